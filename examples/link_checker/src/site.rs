//! A site to check: three hosts on ports of this machine, and one that is down. It has every kind of failure, and it
//! records if its visitor keeps to the limits.

mod answer;
mod host;
mod visit;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use reqwest::Url;
use tokio::net::{TcpListener, TcpSocket};

use self::answer::{Answer, respond};
use self::host::Host;

pub(crate) struct Site {
    urls: Vec<Url>,
    hosts: Vec<Arc<Host>>,
    /// It keeps the port of the host that is down, so that no other program gets it.
    _down: TcpSocket,
}

impl Site {
    /// Starts the site. A host refuses requests while `per_host` of them are in progress.
    pub(crate) async fn start(per_host: usize) -> io::Result<Self> {
        let down = TcpSocket::new_v4()?;
        down.bind(([127, 0, 0, 1], 0).into())?;
        let down_url = format!("http://{}/", down.local_addr()?);
        let mut listeners = Vec::new();
        for _ in 0..3 {
            listeners.push(TcpListener::bind(("127.0.0.1", 0)).await?);
        }
        let urls = listeners.iter().map(|listener| Ok(format!("http://{}/", listener.local_addr()?)));
        let urls = urls.collect::<io::Result<Vec<_>>>()?;

        let fast = fast_pages([urls.as_slice(), &[down_url]].concat());
        let contents = [(10, fast), (100, slow_pages()), (20, busy_pages())];
        let mut hosts = Vec::new();
        for (listener, (delay, pages)) in listeners.into_iter().zip(contents) {
            let host = Arc::new(Host::new(Duration::from_millis(delay), per_host, pages));
            let router = Router::new().fallback(respond).with_state(Arc::clone(&host));
            tokio::spawn(axum::serve(listener, router).into_future());
            hosts.push(host);
        }
        let urls = urls.iter().filter_map(|url| url.parse().ok()).collect();
        Ok(Self { urls, hosts, _down: down })
    }

    /// Returns the first page of each host.
    pub(crate) fn urls(&self) -> &[Url] {
        &self.urls
    }
}

/// The record of the hosts.
impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let records: Vec<_> = self.hosts.iter().map(|host| host.record()).collect();
        let requests: usize = records.iter().map(|record| record.requests).sum();
        let most = records.iter().map(|record| record.most_at_once).max().unwrap_or_default();
        let refusals: usize = records.iter().map(|record| record.refusals).sum();
        let during_hold: usize = records.iter().map(|record| record.during_hold).sum();
        write!(
            f,
            "the site saw: {requests} requests, {refusals} of them refused, at most {most} at once per host, \
             {during_hold} requests during a hold"
        )
    }
}

/// Pages that link to one another, to all hosts, and to pages that are missing, have moved or fail.
fn fast_pages(hosts: Vec<String>) -> Vec<(String, Answer)> {
    let mut links = hosts;
    links.extend((1..=20).map(|number| format!("/page/{number}")));
    links.extend(
        ["/old", "/fails", "/fails-once", "mailto:me@site.example", "https://site.example/"]
            .map(str::to_owned),
    );
    let mut pages = vec![
        (String::from("/"), Answer::Page(links)),
        (String::from("/old"), Answer::Moved("/page/1#new")),
        (String::from("/fails"), Answer::Fail { times: u32::MAX }),
        (String::from("/fails-once"), Answer::Fail { times: 1 }),
    ];
    pages.extend((1..=20).map(|number| {
        let mut links = vec![String::from("/"), format!("/page/{}", number % 20 + 1)];
        if number <= 12 {
            links.push(format!("/missing/{number}"));
        }
        (format!("/page/{number}"), Answer::Page(links))
    }));
    pages
}

/// Slow pages, some of which hang or drop their connection.
fn slow_pages() -> Vec<(String, Answer)> {
    let bad = [
        ("/hangs", Answer::Hang { times: u32::MAX }),
        ("/hangs-once", Answer::Hang { times: 1 }),
        ("/drops/1", Answer::Drop { times: u32::MAX }),
        ("/drops/2", Answer::Drop { times: u32::MAX }),
        ("/drops-once", Answer::Drop { times: 1 }),
    ];
    index_of(8, bad.map(|(path, answer)| (path.to_owned(), answer)))
}

/// Pages of a host that is busy. It refuses some requests, and asks to be left alone for a second.
fn busy_pages() -> Vec<(String, Answer)> {
    let bad = [("/busy", Answer::Refuse { times: u32::MAX }), ("/busy-once", Answer::Refuse { times: 1 })];
    index_of(12, bad.map(|(path, answer)| (path.to_owned(), answer)))
}

/// A first page with links to these pages, and to so many others.
fn index_of(others: u32, bad: impl IntoIterator<Item = (String, Answer)>) -> Vec<(String, Answer)> {
    let mut pages: Vec<_> = bad.into_iter().collect();
    pages.extend(
        (1..=others).map(|number| (format!("/page/{number}"), Answer::Page(vec![String::from("/")]))),
    );
    let links = pages.iter().map(|(path, _)| path.clone()).collect();
    pages.push((String::from("/"), Answer::Page(links)));
    pages
}
