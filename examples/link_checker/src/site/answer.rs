//! The answers of the hosts.

use std::fmt::Write;
use std::future::pending;
use std::io;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use axum::http::{StatusCode, Uri};
use axum::response::{Html, IntoResponse, Response};
use futures::stream;
use tokio::time::sleep;

use super::host::{HOLD, Host};
use super::visit::Visit;

/// What a host does with the requests for a page. After so many `times`, the page is as it should be.
#[derive(Debug)]
pub(super) enum Answer {
    Page(Vec<String>),
    Moved(&'static str),
    Fail { times: u32 },
    Hang { times: u32 },
    Drop { times: u32 },
    Refuse { times: u32 },
}

pub(super) async fn respond(State(host): State<Arc<Host>>, uri: Uri) -> Response {
    let (visit, number) = Visit::begin(Arc::clone(&host), uri.path());
    sleep(host.delay).await;
    let answer = host.pages.get(uri.path());
    if let Some(Answer::Refuse { times }) = answer
        && number <= *times
    {
        visit.refuse().await;
        let seconds = HOLD.as_secs().to_string();
        return (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, seconds)]).into_response();
    }
    visit.end().await;
    match answer {
        None => StatusCode::NOT_FOUND.into_response(),
        Some(Answer::Page(links)) => page(links),
        Some(Answer::Moved(to)) => (StatusCode::MOVED_PERMANENTLY, [(LOCATION, *to)]).into_response(),
        Some(Answer::Fail { times }) if number <= *times => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Some(Answer::Hang { times }) if number <= *times => pending().await,
        Some(Answer::Drop { times }) if number <= *times => broken_off(),
        Some(Answer::Fail { .. } | Answer::Hang { .. } | Answer::Drop { .. } | Answer::Refuse { .. }) => {
            page(&[])
        }
    }
}

fn page(links: &[String]) -> Response {
    let mut html = String::from("<!DOCTYPE html>\n<title>A page</title>\n");
    for link in links {
        let _ = writeln!(html, "<p><a href=\"{link}\">{link}</a>");
    }
    Html(html).into_response()
}

/// An answer that breaks off before its first byte. The server closes the connection.
fn broken_off() -> Response {
    let broken = stream::iter([Err::<Bytes, _>(io::Error::other("the connection is dropped"))]);
    ([(CONTENT_TYPE, "text/html")], Body::from_stream(broken)).into_response()
}
