//! The meaning of an answer of the engine.

use std::any::type_name;

use hyper::StatusCode;
use serde::de::DeserializeOwned;

use super::RestateError;
use super::reply::{Reply, excerpt};
use super::server::INGRESS;

/// Returns the output of a handler, or the reason why there is none.
pub(super) fn output<T: DeserializeOwned>(reply: &Reply) -> Result<T, RestateError> {
    if !reply.is_output() {
        return Err(failure(reply, INGRESS));
    }
    // A handler without an output sends an empty body.
    let json = if reply.body.is_empty() { b"null" } else { reply.body.as_ref() };
    serde_json::from_slice(json).map_err(|error| RestateError::Output {
        expected: type_name::<T>(),
        found: excerpt(json),
        invocation_id: reply.invocation_id().to_owned(),
        source: error.into(),
    })
}

/// Returns `true` if the invocation was cancelled or killed, so that its end is not the outcome of the item.
pub(super) fn was_stopped(reply: &Reply) -> bool {
    reply.is_outcome()
        && !reply.is_output()
        && matches!(failure(reply, INGRESS), RestateError::Cancelled { .. })
}

/// Returns `true` if the invocation was stopped before this call arrived, so that the answer is not about the item.
pub(super) fn was_stopped_before(reply: &Reply) -> bool {
    reply.was_kept() && was_stopped(reply)
}

/// Returns the error for an answer that is not an output.
pub(super) fn failure(reply: &Reply, server: &'static str) -> RestateError {
    let status = reply.status.as_u16();
    let body = reply.error_body();
    let code = body.as_ref().and_then(|body| body.code).unwrap_or(status);
    let message = body.map_or_else(|| excerpt(&reply.body), |body| body.message);
    if reply.is_outcome() && server == INGRESS {
        let invocation_id = reply.invocation_id().to_owned();
        return if is_stopped(code, &message) {
            RestateError::Cancelled { message, invocation_id }
        } else {
            RestateError::Handler { code, message, invocation_id }
        };
    }
    match status {
        401 | 403 | 407 => RestateError::Unauthorized { server, status, message },
        404 if reply.is_not_found() && server == INGRESS => RestateError::NotFound { message },
        200..300 => RestateError::NotRestate { server, status, message },
        _ => RestateError::Rejected { server, status, message },
    }
}

/// Returns `true` if an invocation was stopped from outside, and has no outcome of its own.
fn is_stopped(code: u16, message: &str) -> bool {
    code == StatusCode::CONFLICT && ["cancelled", "killed"].contains(&message)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hyper::HeaderMap;
    use hyper::header::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;
    use crate::restate::server::ADMIN;

    /// Creates an answer, with the header that names its source.
    fn reply(status: u16, source: &'static str, body: &'static str) -> Reply {
        let mut headers = HeaderMap::new();
        headers.insert("x-restate-id", HeaderValue::from_static("inv_1abc"));
        if !source.is_empty() {
            headers.insert("x-restate-error-source", HeaderValue::from_static(source));
        }
        Reply { status: StatusCode::from_u16(status).unwrap(), headers, body: body.into() }
    }

    /// Removes the id of the invocation.
    fn unnamed(mut reply: Reply) -> Reply {
        reply.headers.remove("x-restate-id");
        reply
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
                "unknown service or handler: service 'W' not found",
            ),
            (204, "invocation", "", "the handler failed with code 204: ``"),
            (200, "invocation", r#"{"code":200,"message":"no"}"#, "the handler failed with code 200: no"),
            (200, "ingress", "7", "the answer of the ingress, with status 200, is not from Restate: `7`"),
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
    fn an_answer_without_an_invocation_is_no_outcome() {
        for (status, expected) in [
            (200, "the answer of the ingress, with status 200, is not from Restate: ``"),
            (204, "the answer of the ingress, with status 204, is not from Restate: ``"),
            (302, "the ingress refused the call with status 302: ``"),
            (401, "the ingress refused the bearer token with status 401: ``"),
            (403, "the ingress refused the bearer token with status 403: ``"),
            (404, "the ingress refused the call with status 404: ``"),
            (413, "the ingress refused the call with status 413: ``"),
        ] {
            for source in ["", "invocation"] {
                let reply = unnamed(reply(status, source, ""));
                assert_eq!(output::<()>(&reply).unwrap_err().to_string(), expected);
                assert_eq!(output::<Option<u32>>(&reply).unwrap_err().to_string(), expected);
                assert!(!reply.is_transient() && !was_stopped(&reply), "{expected}");
            }
        }
    }

    #[test]
    fn an_error_with_an_invocation_is_its_outcome_where_the_engine_does_not_name_the_source() {
        for (status, body, expected) in [
            (500, r#"{"code":500,"message":"no"}"#, "the handler failed with code 500: no"),
            (404, r#"{"code":404,"message":"no row"}"#, "the handler failed with code 404: no row"),
            (409, r#"{"code":409,"message":"killed"}"#, "invocation inv_1abc was killed in the engine"),
        ] {
            let reply = reply(status, "", body);
            assert_eq!(output::<()>(&reply).unwrap_err().to_string(), expected);
            assert!(!reply.is_transient(), "{expected}");
        }
    }

    #[test]
    fn a_handler_is_not_found_only_if_the_engine_says_so() {
        let body = r#"{"message":"service 'W' not found"}"#;
        let older = unnamed(reply(404, "", body));
        assert!(matches!(failure(&older, INGRESS), RestateError::NotFound { .. }));
        assert!(matches!(failure(&older, ADMIN), RestateError::Rejected { .. }));
        let proxy = unnamed(reply(404, "", "<html>"));
        assert!(matches!(failure(&proxy, INGRESS), RestateError::Rejected { .. }));
        let handler = reply(404, "", body);
        assert!(matches!(failure(&handler, INGRESS), RestateError::Handler { code: 404, .. }));
    }

    #[test]
    fn what_a_proxy_says_may_pass_and_what_a_handler_says_does_not() {
        for status in [500, 502, 503, 504, 408, 429] {
            assert!(unnamed(reply(status, "", "")).is_transient(), "{status}");
            assert!(unnamed(reply(status, "ingress", "")).is_transient(), "{status}");
            assert!(reply(status, "ingress", "").is_transient(), "{status}");
            assert!(!reply(status, "invocation", "").is_transient(), "{status}");
        }
    }

    #[test]
    fn a_message_is_one_line_and_the_field_has_all_of_it() {
        let text = format!("a\nb{}", "c".repeat(3_000_000));
        let body = serde_json::json!({ "code": 500, "message": text }).to_string();
        let mut reply = reply(500, "invocation", "");
        reply.body = body.into();
        let error = output::<()>(&reply).unwrap_err();
        let shown = error.to_string();
        assert!(
            shown.starts_with(r"the handler failed with code 500: a\nbcc") && shown.ends_with("cc..."),
            "{shown}"
        );
        assert!(shown.len() < 500 && !shown.contains('\n'), "{}", shown.len());
        let RestateError::Handler { message, .. } = error else { panic!("{error:?}") };
        assert_eq!(message, text);
    }

    #[test]
    fn only_what_was_stopped_and_kept_was_stopped_before() {
        let stopped = r#"{"code":409,"message":"cancelled","source":"invocation"}"#;
        assert!(was_stopped_before(&kept(reply(409, "invocation", stopped))));
        assert!(!was_stopped_before(&reply(409, "invocation", stopped)));
        assert!(!was_stopped_before(&kept(reply(409, "invocation", r#"{"code":409,"message":"taken"}"#))));
        assert!(!was_stopped_before(&kept(reply(200, "", stopped))));
        assert!(!was_stopped_before(&unnamed(kept(reply(409, "", stopped)))));
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

    /// Bodies, with many that are nearly the description of an error.
    fn body() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300),
            (any::<i32>(), any::<String>())
                .prop_map(|(code, message)| serde_json::json!({ "code": code, "message": message }))
                .prop_map(|error| error.to_string().into_bytes()),
            any::<u32>().prop_map(|number| number.to_string().into_bytes()),
        ]
    }

    proptest! {
        /// Only an answer that names the invocation is about the item. Its text fits into one line of a log.
        #[test]
        fn any_answer_has_a_meaning(
            status in 100_u16..1000,
            id in prop_oneof![Just("inv_1abc".to_owned()), any::<String>()],
            source in prop::sample::select(vec!["", "ingress", "invocation", "else"]),
            is_kept in any::<bool>(),
            body in body(),
        ) {
            let mut reply = reply(status, source, "");
            match HeaderValue::from_str(&id) {
                Ok(id) => { reply.headers.insert("x-restate-id", id); }
                Err(_) => reply = unnamed(reply),
            }
            if is_kept {
                reply = kept(reply);
            }
            reply.body = body.into();
            let is_named = !reply.invocation_id().is_empty();
            match output::<u32>(&reply) {
                Ok(number) => {
                    prop_assert!(is_named && (200..300).contains(&status));
                    prop_assert_eq!(number.to_string().into_bytes(), reply.body.to_vec());
                }
                Err(error) => {
                    let is_about_item = matches!(error, RestateError::Handler { .. } | RestateError::Cancelled { .. } | RestateError::Output { .. });
                    prop_assert!(is_named || !is_about_item, "{}", error);
                    prop_assert!(!error.to_string().is_empty());
                }
            }
            prop_assert!(!was_stopped_before(&reply) || was_stopped(&reply));
            failure(&reply, ADMIN);
        }
    }
}
