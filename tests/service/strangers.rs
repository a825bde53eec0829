//! Requests that a browser sends for pages of other servers: they are refused.

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::json;

use crate::server::{Server, client, json};

/// DNS rebinding: the page of a stranger gives its own name to the address of the service.
#[tokio::test]
async fn foreign_names_are_refused() {
    let server = Server::start(&["--host", "jobs.example"]).await;
    let cases = [
        ("localhost", true),
        ("LOCALHOST:3000", true),
        ("127.0.0.1:3000", true),
        ("[::1]:3000", true),
        ("192.0.2.7", true),
        ("jobs.example", true),
        ("Jobs.example:8080", true),
        ("evil.example", false),
        ("evil.example:3000", false),
        ("localhost.evil.example", false),
        ("127.0.0.1.evil.example", false),
        ("jobs.example.evil.example", false),
        ("not a host", false),
    ];
    for (host, is_own) in cases {
        // Reading is refused as well, because the browser would show the answers to the page.
        let requests = [
            (Method::GET, "/jobs"),
            (Method::POST, "/limiter"),
            (Method::GET, "/"),
            (Method::GET, "/metrics"),
        ];
        for (method, path) in requests {
            let request = client().request(method.clone(), server.url(path)).header("host", host);
            let answer = request.json(&json!({ "permits": 7 })).send().await.unwrap();
            let expected = if is_own { StatusCode::OK } else { StatusCode::MISDIRECTED_REQUEST };
            assert_eq!(answer.status(), expected, "{method} {path} for {host}");
        }
        let permits = json!({ "permits": 100 });
        let reset = client().post(server.url("/limiter")).json(&permits).send().await.unwrap();
        json(reset, StatusCode::OK).await;
    }
}

/// Cross-site request forgery: the page of a stranger gives orders, although it cannot read the answers.
#[tokio::test]
async fn orders_of_foreign_pages_are_refused() {
    let server = Server::start(&[]).await;
    let id = server.start_job(&json!({ "generate": 100, "delay_ms": 60_000 })).await;
    let job = format!("/jobs/{id}");
    let own = server.origin.as_str();
    let sources: [(&[(&str, &str)], bool); 9] = [
        (&[], true),
        (&[("origin", own)], true),
        (&[("origin", own), ("sec-fetch-site", "same-origin")], true),
        (&[("sec-fetch-site", "none")], true),
        (&[("origin", "http://evil.example")], false),
        (&[("origin", "null")], false),
        (&[("origin", "http://127.0.0.1:1")], false),
        (&[("sec-fetch-site", "cross-site")], false),
        (&[("origin", own), ("sec-fetch-site", "same-site")], false),
    ];
    let order = |method: Method, path: &str| client().request(method, server.url(path));
    for (headers, is_allowed) in sources {
        let with = |request: RequestBuilder| {
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
        };
        let orders = [
            (order(Method::POST, "/jobs").json(&json!({ "generate": 1 })), StatusCode::CREATED),
            (order(Method::POST, "/limiter").json(&json!({ "permits": 90 })), StatusCode::OK),
            (order(Method::POST, &format!("{job}/pause")), StatusCode::OK),
            (order(Method::POST, &format!("{job}/resume")), StatusCode::OK),
            (order(Method::GET, "/map?generate=1"), StatusCode::OK),
        ];
        for (order, done) in orders {
            let expected = if is_allowed { done } else { StatusCode::FORBIDDEN };
            let answer = with(order).send().await.unwrap();
            assert_eq!(answer.status(), expected, "{} with {headers:?}", answer.url());
        }
        // Without an order there is nothing to forge.
        let answer = with(order(Method::GET, "/health")).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
    let stop = |origin| order(Method::DELETE, &job).header("origin", origin).send();
    json(stop("http://evil.example").await.unwrap(), StatusCode::FORBIDDEN).await;
    assert_eq!(server.get(&job).await["state"], "running");
    json(stop(own).await.unwrap(), StatusCode::OK).await;
    assert_eq!(server.health().await.permits, 90);
}
