//! The account of all pages, with the failures by kind.

use std::collections::BTreeMap;
use std::io::{self, Write};

use async_map_task::{ItemError, ItemOutcome, NotRetried, Summary};
use reqwest::Url;

use crate::frontier::Frontier;
use crate::page::{CheckError, Page};

/// The maximum number of links that are shown of each kind of failure.
const SHOWN: usize = 10;

#[derive(Debug, Default)]
pub(crate) struct Report {
    /// The number of pages that were found, by status.
    found: BTreeMap<String, usize>,
    /// The broken links, by kind of failure.
    broken: BTreeMap<String, Vec<String>>,
    requests: u32,
}

impl Report {
    /// Counts a page. `origin` is the page with the link to it.
    pub(crate) fn add(&mut self, page: &ItemOutcome<Page, CheckError>, origin: Option<&Url>) {
        self.requests += page.attempts;
        match &page.result {
            Ok(found) => *self.found.entry(found.status.to_string()).or_default() += 1,
            // It has retries left, and may be found by the next one. It was not checked.
            Err(_) if page.not_retried == Some(NotRetried::Stopping) => {}
            Err(error) => {
                let mut link = page.label.clone().unwrap_or_default();
                if let Some(origin) = origin {
                    link += &format!(", linked from {origin}");
                }
                self.broken.entry(kind(error)).or_default().push(link);
            }
        }
    }

    pub(crate) fn checked(&self) -> usize {
        self.found.values().sum::<usize>() + self.broken()
    }

    pub(crate) fn broken(&self) -> usize {
        self.broken.values().map(Vec::len).sum()
    }

    pub(crate) fn print(
        &mut self,
        out: &mut impl Write,
        summary: &Summary,
        frontier: &Frontier,
    ) -> io::Result<()> {
        let (checked, requests, seconds) = (self.checked(), self.requests, summary.elapsed.as_secs_f64());
        let rate = f64::from(requests) / seconds.max(0.001);
        writeln!(out, "pages checked: {checked} in {seconds:.1} s")?;
        writeln!(out, "requests: {requests}, {rate:.1} per second, {} of them retries", summary.retries)?;
        for (status, count) in &self.found {
            writeln!(out, "{count:6}  {status}")?;
        }
        writeln!(out, "broken links: {}", self.broken())?;
        for (kind, links) in &mut self.broken {
            links.sort();
            writeln!(out, "{:6}  {kind}", links.len())?;
            for link in links.iter().take(SHOWN) {
                writeln!(out, "          {link}")?;
            }
            if links.len() > SHOWN {
                writeln!(out, "          and {} more", links.len() - SHOWN)?;
            }
        }
        let not_checked = [
            (frontier.len() - checked, "because the check was stopped"),
            (frontier.beyond, "more than --max-pages"),
            (frontier.not_http, "because they are not http"),
        ];
        for (count, why) in not_checked.into_iter().filter(|(count, _)| *count > 0) {
            writeln!(out, "not checked, {why}: {count}")?;
        }
        Ok(())
    }
}

fn kind(error: &ItemError<CheckError>) -> String {
    match error {
        ItemError::Failed { error, .. } => error.to_string(),
        ItemError::TimedOut { .. } => String::from("timed out"),
        other => other.to_string(),
    }
}
