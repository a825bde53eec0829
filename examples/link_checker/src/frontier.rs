//! The links that were found, each of them once. They are the source of the run, and the run finds them.

use std::collections::HashSet;

use futures::{Stream, stream};
use reqwest::Url;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// A link to check.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) url: Url,
    /// If its page is searched for further links.
    pub(crate) is_followed: bool,
}

impl Link {
    /// Returns the host with its port, which is the key of the limit.
    pub(crate) fn host(&self) -> String {
        host_of(&self.url)
    }
}

fn host_of(url: &Url) -> String {
    format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default())
}

#[derive(Debug)]
pub(crate) struct Frontier {
    /// The hosts whose pages are searched.
    hosts: HashSet<String>,
    /// Also those that are not checked.
    seen: HashSet<Url>,
    /// The page on which each link was found first, by the index of the link in the run.
    origins: Vec<Option<Url>>,
    settled: usize,
    max_pages: usize,
    /// Closed when all links are settled, so that the run ends. The channel is unbounded, because a full one would
    /// stop the run that empties it. `max_pages` bounds it.
    sender: Option<UnboundedSender<Link>>,
    /// The number of links that were found after the first `max_pages`, which are not checked.
    pub(crate) beyond: usize,
    /// The number of links that are not HTTP, which are not checked.
    pub(crate) not_http: usize,
}

impl Frontier {
    /// Returns the frontier, and the stream of all links that are added to it.
    pub(crate) fn new(starts: &[Url], max_pages: usize) -> (Self, impl Stream<Item = Link> + use<>) {
        let (sender, mut receiver) = unbounded_channel();
        let mut frontier = Self {
            hosts: starts.iter().map(host_of).collect(),
            seen: HashSet::new(),
            origins: Vec::new(),
            settled: 0,
            max_pages,
            sender: Some(sender),
            beyond: 0,
            not_http: 0,
        };
        frontier.add(starts.iter().cloned(), None);
        (frontier, stream::poll_fn(move |cx| receiver.poll_recv(cx)))
    }

    /// Adds the links that are new.
    pub(crate) fn add(&mut self, urls: impl IntoIterator<Item = Url>, origin: Option<&Url>) {
        for mut url in urls {
            url.set_fragment(None);
            if !self.seen.insert(url.clone()) {
                continue;
            }
            if url.scheme() != "http" {
                self.not_http += 1;
            } else if self.origins.len() == self.max_pages {
                self.beyond += 1;
            } else if let Some(sender) = &self.sender {
                let is_followed = self.hosts.contains(&host_of(&url));
                self.origins.push(origin.cloned());
                // It fails if the run has been stopped, and then nobody needs the link.
                let _ = sender.send(Link { url, is_followed });
            }
        }
    }

    /// Counts a link that was checked, after its own links were added.
    pub(crate) fn settle(&mut self) {
        self.settled += 1;
        if self.settled == self.origins.len() {
            self.sender = None;
        }
    }

    /// Returns the page on which a link was found; `None` for a start.
    pub(crate) fn origin(&self, index: usize) -> Option<&Url> {
        self.origins.get(index)?.as_ref()
    }

    /// Returns the number of links, checked or not.
    pub(crate) fn len(&self) -> usize {
        self.origins.len()
    }
}
