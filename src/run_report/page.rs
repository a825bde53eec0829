//! The page of a report.
//!
//! The page is made by `maud`, which escapes every text that is not written here: labels and errors are texts of strangers.
//! The charts are drawn by hand, because their colours are those of the style, which follows the reader's screen.

mod chart;
mod durations;
mod findings;
mod text;
mod timeline;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use self::chart::{Chart, HEIGHT, WIDTH, area, bars, line, staircase, time_ticks};
use self::durations::durations;
use self::findings::findings;
use self::text::{compact, duration, most_of, name_of, number, percent, short, top as top_of};
use self::timeline::timeline;
use super::snapshot::{FailureGroup, SlowItem, Snapshot};

pub(super) fn render(run: &Snapshot) -> String {
    let title = if run.name.is_empty() { "A run" } else { run.name.as_str() };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) ": " (run.verdict) }
                style { (PreEscaped(include_str!("page/style.css"))) }
            }
            body {
                (header(run, title))
                main { (sections(run)) }
                footer { "Written by the crate async-map-task, version " (env!("CARGO_PKG_VERSION")) "." }
            }
        }
    };
    page.into_string()
}

fn header(run: &Snapshot, title: &str) -> Markup {
    let class = match (run.ended, run.succeeded) {
        (false, _) => "run",
        (true, true) => "ok",
        (true, false) => "ko",
    };
    html! {
        header {
            h1 { (title) }
            p class={ "verdict " (class) } { (run.verdict) }
            @if let Some(started_at) = &run.started_at {
                p.note {
                    "Started at " (started_at) ", " @if run.ended { "took " } @else { "for " } (duration(run.elapsed)) "."
                    @if run.other_runs > 0 {
                        " " (run.other_runs) " later runs are not in this report, which has the first one only."
                    }
                }
                (tiles(run))
                (list(&findings(run)))
            }
        }
    }
}

fn tiles(run: &Snapshot) -> Markup {
    let items = &run.items;
    let rate = if run.elapsed > 0.0 { run.settled() as f64 / run.elapsed } else { 0.0 };
    let total = run.total.map_or_else(|| "not known".to_owned(), |total| number(total as u64));
    let mut tiles = vec![
        ("items", total, ""),
        ("succeeded", number(items.succeeded), "ok"),
        ("failed", number(items.failed), if items.failed > 0 { "ko" } else { "" }),
        ("retries", number(run.attempts.retries), ""),
        ("items/s", short(rate), ""),
        ("median attempt", duration(run.attempt_durations.p50), ""),
    ];
    if run.attempts.calls < run.attempts.started {
        tiles.push(("calls", number(run.attempts.calls), ""));
    }
    if let Some(in_use) = run.permits_in_use {
        tiles.push(("permits in use", percent(in_use), ""));
    }
    let others = [
        ("cancelled", items.cancelled),
        ("not started", items.not_started),
        ("recovered", items.recovered),
        ("cached", items.cached),
        ("carried over", items.carried),
        ("running", items.running as u64),
        ("waiting for a retry", items.waiting_for_retry as u64),
        ("timeouts", run.attempts.timeouts as u64),
        ("panics", run.attempts.panics as u64),
    ];
    tiles.extend(
        others.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| (name, number(count), "")),
    );
    html! {
        dl.tiles {
            @for (name, value, class) in tiles {
                div class=(class) { dt { (name) } dd { (value) } }
            }
        }
    }
}

fn list(sentences: &[String]) -> Markup {
    html! {
        @if !sentences.is_empty() {
            ul.findings {
                @for sentence in sentences { li { (sentence) "." } }
            }
        }
    }
}

fn sections(run: &Snapshot) -> Markup {
    if run.attempts.started == 0 {
        return html! { p { "No attempt has started." } (settings(run)) };
    }
    html! {
        section { h2 { "What ran when" } (timeline(run)) }
        section { h2 { "Attempts in flight" } (in_flight(run)) }
        section { h2 { "Throughput" } (throughput(run)) }
        section { h2 { "How long attempts took" } (durations(run)) }
        @if !run.failures.is_empty() {
            section { h2 { "Failures" } (failures(&run.failures)) }
        }
        @if !run.slowest.is_empty() {
            section { h2 { "The slowest items" } (slowest(&run.slowest)) }
        }
        (settings(run))
        @if run.timeline_has_one_item_in > 1 {
            p.note {
                "The list of attempts in the JSON of this report has one in " (run.timeline_has_one_item_in)
                " items. Everything on this page is computed from all attempts."
            }
        }
    }
}

fn in_flight(run: &Snapshot) -> Markup {
    let over_time = &run.over_time;
    let most = most_of(&over_time.in_flight).max(1.0);
    let steps = run.limit_changes.iter().map(|step| step.from.max(step.to) as f64);
    let most = steps.fold(most, f64::max);
    // A limit far above what was reached would flatten the curve.
    let limit = Some(run.concurrency as f64).filter(|limit| *limit <= 4.0 * most);
    let top = top_of(limit.unwrap_or(most).max(most));
    let plot = html! {
        (area("ok", over_time.period, run.elapsed, top, &over_time.in_flight))
        @if let Some(limit) = limit {
            (line("limit", limit, top, &format!("concurrency: {limit}")))
        }
        @if !run.limit_changes.is_empty() {
            (staircase("adaptive", run.elapsed, top, &limit_steps(run)))
        }
    };
    let waiting = &over_time.waiting_for_retry;
    let most_waiting = most_of(waiting);
    html! {
        (over_time_chart(run, "Attempts in flight over time", 110.0, compact(top), &plot))
        p.note {
            "The average number of attempts that ran."
            @if limit.is_some() { " The dashed line is the concurrency of the run." }
            @if !run.limit_changes.is_empty() { " The solid line is the limit that an adaptive limiter has found." }
        }
        @if most_waiting > 0.0 {
            @let top = top_of(most_waiting);
            h3 { "Items that wait for their retry" }
            (over_time_chart(run, "Items that wait for a retry over time", 60.0, compact(top),
                &area("re", over_time.period, run.elapsed, top, waiting)))
        }
    }
}

/// Returns the limit of an adaptive limiter from each time on.
fn limit_steps(run: &Snapshot) -> Vec<(f64, f64)> {
    let first = run.limit_changes.first().map(|step| (0.0, step.from as f64));
    let others = run.limit_changes.iter().map(|step| (step.at, step.to as f64));
    first.into_iter().chain(others).collect()
}

fn throughput(run: &Snapshot) -> Markup {
    let over_time = &run.over_time;
    let settled = over_time.succeeded.iter().zip(&over_time.failed).zip(&over_time.retried);
    let most = settled.map(|((succeeded, failed), retried)| succeeded + failed + retried).max().unwrap_or(0);
    let top = top_of(most as f64 / over_time.period);
    let layers: [(&str, &[u64]); 3] =
        [("ok", &over_time.succeeded), ("ko", &over_time.failed), ("re", &over_time.retried)];
    let plot = bars(over_time.period, run.elapsed, top * over_time.period, &layers);
    html! {
        (over_time_chart(run, "Items that settled per second, over time", 110.0, compact(top), &plot))
        ul.legend {
            li { i.ok {} "items/s that succeeded" }
            @if run.items.failed > 0 {
                li { i.ko {} "items/s that failed" }
            }
            @if run.attempts.retries > 0 {
                li { i.re {} "attempts/s that were retried" }
            }
        }
    }
}

fn over_time_chart(run: &Snapshot, description: &str, height: f64, top: String, plot: &Markup) -> Markup {
    let ticks = time_ticks(run.elapsed);
    Chart { description, height, size: (WIDTH, HEIGHT), top, ticks }.render(plot)
}

fn failures(groups: &[FailureGroup]) -> Markup {
    html! {
        table {
            thead { tr { th { "kind" } th { "text" } th.n { "attempts" } th.n { "items" } } }
            tbody {
                @for group in groups {
                    tr {
                        td { (group.kind) }
                        td.wrap { (text_of(group)) div.note { (examples(group)) } }
                        td.n { (number(group.attempts)) }
                        td.n { (number(group.items)) }
                    }
                }
            }
        }
        p.note {
            "Items are those that failed for good. Texts that differ only in numbers are one row, with the first text."
        }
    }
}

fn text_of(group: &FailureGroup) -> Markup {
    html! {
        @match &group.text {
            Some(text) => { (text) }
            None if group.other_texts => { em { "other texts" } }
            None => { em { "no text" } }
        }
    }
}

/// Names some items of a group.
fn examples(group: &FailureGroup) -> String {
    let names = group.examples.iter().map(|example| name_of(example.label.as_deref(), example.item));
    names.collect::<Vec<_>>().join(", ")
}

fn slowest(items: &[SlowItem]) -> Markup {
    let longest = items.first().map_or(1.0, |item| item.elapsed);
    html! {
            table.slowest {
                thead { tr { th { "item" } th.n { "attempts" } th.n { "time" } th {} } }
                tbody {
                    @for item in items {
                        tr {
                            td.wrap { (name_of(item.label.as_deref(), item.item)) @if item.failed { " (failed)" } }
                            td.n { (item.attempts) }
                            td.n { (duration(item.elapsed)) }
                            td.bar {
                                i class=(if item.failed { "ko" } else { "ok" })
                                    style=(format!("width:{:.1}%", 100.0 * item.elapsed / longest)) {}
                            }
                        }
                    }
                }
            }
        p.note { "From the start of the first attempt until the item settled, with all waits between." }
    }
}

fn settings(run: &Snapshot) -> Markup {
    html! {
        section {
            h2 { "Settings" }
            dl.settings {
                @for (name, value) in &run.settings {
                    div { dt { (name) } dd { (value) } }
                }
            }
        }
    }
}
