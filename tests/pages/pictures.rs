//! The pictures of the page "Seeing a run" are the timelines of reports of these runs. The clock is paused, so the same code
//! makes the same pictures.
//!
//! `UPDATE_PICTURES=1 cargo test -p test-pages --test pictures` writes them anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;
use std::{env, fs};

use async_map_task::{AsyncMapTask, AsyncMapTaskBuilder, RunReport};
use tokio::time::{Instant, sleep};

const ITEMS: u32 = 150;

/// The style of a picture on a page of rustdoc: colours that can be seen on a light and on a dark page.
const STYLE: &str = include_str!("pictures.css");

fn millis(millis: u32) -> Duration {
    Duration::from_millis(millis.into())
}

/// Returns a number below 100 that looks random.
fn dice(n: u32) -> u32 {
    (n.wrapping_mul(2_654_435_769) >> 7) % 100
}

fn builder() -> AsyncMapTaskBuilder {
    AsyncMapTask::builder().concurrency(12).retries(4).retry_delay(millis(100)).retry_jitter(0.0)
}

async fn healthy() -> RunReport {
    let report = RunReport::new();
    let run = builder().build().unwrap().over(0..ITEMS).map_with_context(|cx, n| async move {
        sleep(millis(80 + dice(n))).await;
        if n % 43 == 21 && cx.attempt() == 1 { Err("connection reset") } else { Ok(()) }
    });
    run.observe(report.observer()).await.unwrap();
    report
}

/// A few items take ten times as long as the others, and one of them starts late.
async fn slow_tail() -> RunReport {
    let report = RunReport::new();
    let run = builder().build().unwrap().over(0..ITEMS).map(|n| async move {
        let factor = match n {
            130 => 12,
            n if n % 31 == 7 => 5,
            _ => 1,
        };
        sleep(factor * millis(80 + dice(n))).await;
        Ok::<_, String>(())
    });
    run.observe(report.observer()).await.unwrap();
    report
}

/// A server that serves 40 requests in each second and refuses the others until the next second.
async fn refuses() -> RunReport {
    let report = RunReport::new();
    let begun = Instant::now();
    let served = Cell::new((0, 0));
    let run = builder().build().unwrap().over(0..ITEMS).map(|n| {
        let served = &served;
        async move {
            sleep(millis(10 + dice(n) / 4)).await;
            let now = begun.elapsed();
            let (second, count) = served.get();
            let count = if second == now.as_secs() { count } else { 0 };
            served.set((now.as_secs(), count + 1));
            if count >= 40 {
                return Err(Duration::from_secs(now.as_secs() + 1) - now);
            }
            sleep(millis(60 + dice(n + 7))).await;
            Ok(())
        }
    });
    let run = run.hold_back(|retry_after| Some(*retry_after)).retry_after(|retry_after| Some(*retry_after));
    run.observe(report.observer()).await.unwrap();
    report
}

/// Returns the timeline of a report as a part of a page, without its tooltips.
fn picture(report: &RunReport, caption: &str) -> String {
    let page = report.to_html();
    let (_, page) = page.split_once("<figure class=\"chart\"").unwrap();
    let (timeline, rest) = page.split_once("</ul>").unwrap();
    assert!(rest.contains("Attempts in flight"), "the first chart is the timeline");
    let mut parts = timeline.split("<title>");
    let mut timeline = parts.next().unwrap().to_owned();
    parts.for_each(|part| timeline.push_str(part.split_once("</title>").unwrap().1));
    format!("<div class=\"run-picture\"><p>{caption}</p><figure class=\"chart\"{timeline}</ul></div>\n")
}

fn compare(name: &str, picture: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src/guide/pictures").join(name);
    if env::var_os("UPDATE_PICTURES").is_some() {
        fs::write(&path, picture).unwrap();
    }
    let known = fs::read_to_string(&path).unwrap_or_default();
    assert!(known == picture, "{name} has changed: write it anew with UPDATE_PICTURES=1, and look at it");
}

#[tokio::test(start_paused = true)]
async fn the_pictures_are_those_of_the_reports() {
    let style: String = STYLE.lines().map(str::trim).collect();
    let healthy = picture(
        &healthy().await,
        "<strong>A healthy run.</strong> All permits are in use until the items run out.",
    );
    compare("healthy.html", &format!("<style>{style}</style>\n{healthy}"));
    let caption = "<strong>A slow tail.</strong> One item takes much longer than the others and starts late. Eleven permits have \
                   nothing to do, and the run takes nearly twice as long.";
    compare("slow_tail.html", &picture(&slow_tail().await, caption));
    let caption = "<strong>A server that refuses.</strong> It serves 40 requests in a second. The first refusals hold the run \
                   back until the next second, so few requests are wasted. The dashed lines are the waits of the items that \
                   were refused.";
    compare("refuses.html", &picture(&refuses().await, caption));
}
