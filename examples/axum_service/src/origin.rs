//! Refuses the requests that a browser sends for other pages.
//!
//! The service has no login, and it usually listens on the machine of its user. So a page of a stranger in the user's
//! browser reaches it, although the stranger does not. Two checks keep such pages out:
//!
//! - `Host`, for every request. *DNS rebinding*: a page at `evil.example` lets its own name point to 127.0.0.1. The
//!   browser then takes the service for a part of that page, and lets the page read all answers. But it still sends
//!   `Host: evil.example`. An address or `localhost` cannot be pointed elsewhere. Other names must be configured.
//! - `Origin` and `Sec-Fetch-Site`, for orders. *Cross-site request forgery*: a page may send requests to any server,
//!   although it cannot read the answers. The browser adds the page that sent the request. An order from a page of
//!   another server is refused.
//!
//! Both headers come from browsers. A client such as curl sends neither, and no page controls it, so it is allowed.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{HOST, HeaderName, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use crate::api::Service;
use crate::reply::ApiError;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

pub(crate) async fn check(
    State(service): State<Arc<Service>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let host = text(request.headers(), &HOST)
        .ok_or_else(|| ApiError::new(StatusCode::BAD_REQUEST, "the header Host is required"))?;
    if !is_own(host, &service.hosts) {
        let message = format!("this is not the service {host}; it can be started with --host NAME");
        return Err(ApiError::new(StatusCode::MISDIRECTED_REQUEST, message));
    }
    // `/map` is read with GET, but makes the service send requests.
    let is_order = !request.method().is_safe() || request.uri().path() == "/map";
    if is_order && !is_from_own_page(request.headers(), host) {
        let message = "pages of other servers cannot give orders to this service";
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    Ok(next.run(request).await)
}

fn is_own(host: &str, names: &[String]) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    is_address
        || name.eq_ignore_ascii_case("localhost")
        || names.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// The ports count: another server on the same machine is another origin.
fn is_from_own_page(headers: &HeaderMap, host: &str) -> bool {
    // A page without an origin of its own, such as a file, sends `null`.
    let is_same = |origin: &str| {
        origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
    };
    // An image or a link carries no `Origin`. `none` is for addresses that the user has typed.
    let is_allowed = |site: &str| matches!(site, "same-origin" | "none");
    let holds = |name, accepts: &dyn Fn(&str) -> bool| {
        headers.get(name).is_none_or(|value| value.to_str().is_ok_and(accepts))
    };
    holds(ORIGIN, &is_same) && holds(SEC_FETCH_SITE, &is_allowed)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
