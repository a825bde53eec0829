//! Checks the links of web sites: it follows them on the hosts that it is given, and reports those that are broken.
//!
//! ```text
//! cargo run --release -p link_checker
//! cargo run --release -p link_checker -- --report run.html http://localhost:8000/
//! ```
//!
//! It shows a source that grows while it is processed, limits for each host and for all of them, requests that wait when
//! a server asks for it (`429 Too Many Requests`), retries of transient errors only, a report of all failures, and a page that
//! shows the run.
//! Without arguments, it checks a site of its own, with every kind of failure. Exit codes: 0 if no link is broken, 1 if
//! some are, 2 for invalid arguments, 130 after Ctrl-C.

mod arguments;
mod bar;
mod frontier;
mod html;
mod page;
mod report;
mod site;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use async_map_task::{Event, Observer, RunReport, Summary};
use clap::Parser;

use crate::arguments::Arguments;
use crate::bar::Bar;
use crate::frontier::{Frontier, Link};
use crate::page::{check, client};
use crate::report::Report;
use crate::site::Site;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let (task, hosts) = (arguments.task(), arguments.hosts());
    let site = match arguments.urls() {
        [] => Some(Site::start(arguments.per_host()).await.context("cannot start the site of the example")?),
        _ => None,
    };
    let starts = site.as_ref().map_or(arguments.urls(), Site::urls);
    let client = client()?;

    let (mut frontier, links) = Frontier::new(starts, arguments.max_pages());
    let (mut report, bar, recorded) = (Report::default(), Bar::default(), RunReport::new());
    let recorder = recorded.observer();
    let run = task
        .over_stream(links)
        .map(|link: Link| check(&client, link))
        .limit_per(Link::host, &hosts)
        .retry_if(|error| error.is_transient())
        // A refusal holds the host that it came from, and no other.
        .hold_back(|error| error.hold())
        .label(|link| link.url.to_string())
        .error_text(|error| error.to_string())
        .observe(|event: &Event<'_>| {
            tell_stop(event, &bar);
            recorder.on_event(event);
        })
        .cancel_on_ctrl_c()
        // The function gets each page when it is checked, and adds the links of the page to the source of the run.
        .for_each(|mut page| {
            if let Ok(page) = &mut page.result {
                frontier.add(page.links.drain(..), Some(&page.url));
            }
            report.add(&page, frontier.origin(page.index));
            frontier.settle();
            bar.show(&report, frontier.len());
            async {}
        });
    let (summary, failure) = match run.await {
        Ok(summary) => (summary, None),
        Err(error) => (error.summary().clone(), Some(error)),
    };
    bar.clear();
    if let Some(file) = arguments.report() {
        recorded.write_html(file)?;
    }
    print(&mut report, &summary, &frontier, site.as_ref()).context("cannot print the report")?;
    Ok(match failure {
        Some(failure) if failure.is_cancelled() => ExitCode::from(130),
        Some(failure) => return Err(failure.into()),
        None => ExitCode::from(u8::from(report.broken() > 0)),
    })
}

/// Shows what the first Ctrl-C has done.
fn tell_stop(event: &Event<'_>, bar: &Bar) {
    if let Event::RunStopping { running, draining: true, .. } = event {
        bar.clear();
        eprintln!("stopping, {running} still being checked; Ctrl-C again stops now");
    }
}

fn print(report: &mut Report, summary: &Summary, frontier: &Frontier, site: Option<&Site>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    report.print(&mut out, summary, frontier)?;
    if let Some(site) = site {
        writeln!(out, "{site}")?;
    }
    out.flush()
}
