//! What an answer of the engine means.

use std::any::type_name;

use hyper::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::RestateError;
use super::reply::{Reply, beginning};

/// The body of an error: what the engine and the handlers say.
#[derive(Debug, Deserialize)]
struct Refusal {
    code: u16,
    message: String,
}

/// The output of a handler, or why there is none.
pub(super) fn output<T: DeserializeOwned>(reply: &Reply) -> Result<T, RestateError> {
    if !reply.status.is_success() {
        return Err(failure(reply));
    }
    // A handler that returns nothing sends nothing.
    let json = if reply.body.is_empty() { b"null" } else { reply.body.as_ref() };
    serde_json::from_slice(json).map_err(|error| RestateError::Output {
        expected: type_name::<T>(),
        found: beginning(json),
        invocation_id: reply.invocation_id().to_owned(),
        source: error.into(),
    })
}

/// Whether the invocation was stopped before this call came, so that nobody has said anything about the item.
pub(super) fn was_stopped_before(reply: &Reply) -> bool {
    // The engine says until when it keeps an outcome where it had it already.
    let is_kept = !reply.header("idempotency-expires").is_empty();
    is_kept && !reply.status.is_success() && matches!(failure(reply), RestateError::Cancelled { .. })
}

/// What an answer says that is no output.
pub(super) fn failure(reply: &Reply) -> RestateError {
    let status = reply.status.as_u16();
    let refusal = serde_json::from_slice(&reply.body);
    let Refusal { code, message } =
        refusal.unwrap_or_else(|_| Refusal { code: status, message: beginning(&reply.body) });
    if reply.is_of_invocation() {
        let invocation_id = reply.invocation_id().to_owned();
        return if is_stopped(code, &message) {
            RestateError::Cancelled { message, invocation_id }
        } else {
            RestateError::Handler { code, message, invocation_id }
        };
    }
    match status {
        401 | 403 | 407 => RestateError::Unauthorized { status, message },
        404 if reply.is_of_ingress() => RestateError::NotFound { message },
        _ => RestateError::Rejected { status, message },
    }
}

/// Whether an invocation was stopped from outside, and has no outcome of its own.
fn is_stopped(code: u16, message: &str) -> bool {
    code == StatusCode::CONFLICT && ["cancelled", "killed"].contains(&message)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hyper::HeaderMap;
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    /// An answer, with the header that says whose it is.
    fn reply(status: u16, source: &'static str, body: &'static str) -> Reply {
        let mut headers = HeaderMap::new();
        headers.insert("x-restate-id", HeaderValue::from_static("inv_1abc"));
        if !source.is_empty() {
            headers.insert("x-restate-error-source", HeaderValue::from_static(source));
        }
        Reply { status: StatusCode::from_u16(status).unwrap(), headers, body: body.into() }
    }

    fn kept(mut reply: Reply) -> Reply {
        let name = HeaderName::from_static("idempotency-expires");
        reply.headers.insert(name, HeaderValue::from_static("2026-11-23T15:36:06.782+00:00"));
        reply
    }

    #[test]
    fn each_answer_has_its_meaning() {
        let cases = [
            (503, "invocation", r#"{"code":503,"message":"no"}"#, "the handler failed with code 503: no"),
            (500, "invocation", r#"{"code":70,"message":"odd"}"#, "the handler failed with code 70: odd"),
            (
                404,
                "invocation",
                r#"{"code":404,"message":"no row"}"#,
                "the handler failed with code 404: no row",
            ),
            (
                409,
                "invocation",
                r#"{"code":409,"message":"taken"}"#,
                "the handler failed with code 409: taken",
            ),
            (500, "invocation", "torn", "the handler failed with code 500: `torn`"),
            (
                409,
                "invocation",
                r#"{"code":409,"message":"killed"}"#,
                "invocation inv_1abc was killed in the engine",
            ),
            (
                404,
                "ingress",
                r#"{"code":404,"message":"service 'W' not found"}"#,
                "there is no such handler: service 'W' not found",
            ),
            (404, "", "<html>", "the ingress refused the call with status 404: `<html>`"),
            (401, "", "", "the bearer token was refused with status 401: ``"),
            (403, "", "a\r\nb", r"the bearer token was refused with status 403: `a\r\nb`"),
            (
                413,
                "",
                "length limit exceeded",
                "the ingress refused the call with status 413: `length limit exceeded`",
            ),
            (302, "", "", "the ingress refused the call with status 302: ``"),
            (
                400,
                "ingress",
                r#"{"code":400,"message":"bad"}"#,
                "the ingress refused the call with status 400: bad",
            ),
        ];
        for (status, source, body, expected) in cases {
            let reply = reply(status, source, body);
            assert_eq!(output::<()>(&reply).unwrap_err().to_string(), expected);
            assert!(!reply.is_transient(), "{expected}");
        }
    }

    #[test]
    fn what_a_proxy_says_may_pass_and_what_a_handler_says_does_not() {
        for status in [500, 502, 503, 504, 408, 429] {
            assert!(reply(status, "", "").is_transient(), "{status}");
            assert!(reply(status, "ingress", "").is_transient(), "{status}");
            assert!(!reply(status, "invocation", "").is_transient(), "{status}");
        }
    }

    #[test]
    fn only_what_was_stopped_and_kept_was_stopped_before() {
        let stopped = r#"{"code":409,"message":"cancelled","source":"invocation"}"#;
        assert!(was_stopped_before(&kept(reply(409, "invocation", stopped))));
        assert!(!was_stopped_before(&reply(409, "invocation", stopped)));
        assert!(!was_stopped_before(&kept(reply(409, "invocation", r#"{"code":409,"message":"taken"}"#))));
        assert!(!was_stopped_before(&kept(reply(200, "", stopped))));
    }

    #[test]
    fn an_output_is_json_and_nothing_is_an_output_too() {
        assert_eq!(output::<u32>(&reply(200, "", "7")).unwrap(), 7);
        output::<()>(&reply(200, "", "")).unwrap();
        assert_eq!(output::<Option<u32>>(&reply(200, "", "")).unwrap(), None);
        let error = output::<BTreeMap<String, u32>>(&reply(200, "", r#"{"a":"b"}"#)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("inv_1abc") && text.contains(r#"`{\"a\":\"b\"}`"#), "{text}");
        assert!(!error.is_retryable());
    }

    #[test]
    fn the_name_of_an_invocation_fits_into_a_path() {
        let mut reply = reply(200, "", "");
        assert_eq!(reply.invocation_id(), "inv_1abc");
        for bad in ["a/b", "../x", "a?b", "a b", ""] {
            reply.headers.insert("x-restate-id", HeaderValue::from_str(bad).unwrap());
            assert_eq!(reply.invocation_id(), "", "{bad}");
        }
    }
}
