//! The secrets of clients: the passwords in their URLs, and the ids of their jobs.

use std::collections::HashSet;
use std::fs::File;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Redirect;
use axum::routing::get;
use serde_json::json;

use crate::server::{Server, client, json, until};

const PASSWORD: &str = "correct-horse";

#[tokio::test]
async fn passwords_in_urls_are_masked() {
    let path = std::env::temp_dir().join(format!("axum_service-{}.log", std::process::id()));
    let log = File::create(&path).unwrap();
    let server = Server::start_with_log(&["--allow-internal"], "trace", log.into()).await;
    let upstream = upstream().await;
    let at = |path: &str| format!("http://user:{PASSWORD}@{upstream}{path}");
    let urls =
        [at("/"), at("/gone"), at("/redirect"), format!("http://{PASSWORD}@127.0.0.1:1/@/"), at("/plain@x")];
    let id = server.start_job(&json!({ "urls": urls, "retries": 0 })).await;
    let job = format!("/jobs/{id}");
    let end = until("it ends", async || server.get(&job).await, |job| job["state"] == "succeeded").await;
    assert_eq!((&end["successes"], &end["failures"]), (&json!(1), &json!(4)), "the password is still sent");

    let mut shown = vec![end.to_string(), server.get("/jobs").await.to_string()];
    let results = client().get(server.url(&format!("{job}/results"))).send().await.unwrap();
    let results = results.text().await.unwrap();
    assert!(results.contains(&format!("http://***@{upstream}/gone")), "{results}");
    assert!(results.contains("http://***@127.0.0.1:1/@/"), "the rest of a URL remains: {results}");
    assert!(results.contains("a redirect contains a name or a password"), "{results}");
    shown.push(results);
    let events = client().get(server.url(&format!("{job}/events"))).send().await.unwrap();
    shown.push(events.text().await.unwrap());
    // Errors quote the request.
    let orders = [
        json!([format!("http://user:{PASSWORD}@host:99999/")]),
        json!([format!("http://user:{PASSWORD}/or so@[host/")]),
        json!([format!("//user:{PASSWORD}@host")]),
        json!({ "urls": format!("http://user:{PASSWORD}@host/") }),
        json!({ "generate": format!("http://user:{PASSWORD}@host/") }),
    ];
    for order in orders {
        let refused = client().post(server.url("/jobs")).json(&order).send().await.unwrap();
        let error = json(refused, StatusCode::UNPROCESSABLE_ENTITY).await["error"].clone();
        assert!(error.as_str().unwrap().contains("***@"), "{error}");
        shown.push(error.to_string());
    }
    let map = server.url(&format!("/map?generate=http://user:{PASSWORD}@host/"));
    shown.push(client().get(map).send().await.unwrap().text().await.unwrap());
    drop(server);
    let log = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(log.contains("job 1"), "the log is written: {log}");
    assert!(!log.contains(&id), "the log contains no ids: {log}");
    shown.push(log);
    for line in shown.iter().flat_map(|text| text.lines()) {
        assert!(!line.contains(PASSWORD), "{line}");
    }
}

/// A server that expects the password.
async fn upstream() -> String {
    let home = async |headers: HeaderMap| {
        let is_known =
            headers.get("authorization").is_some_and(|value| value.as_bytes().starts_with(b"Basic "));
        if is_known { StatusCode::OK } else { StatusCode::UNAUTHORIZED }
    };
    let elsewhere = async || Redirect::temporary(&format!("http://user:{PASSWORD}@127.0.0.1:1/"));
    let router = Router::new()
        .route("/", get(home))
        .route("/gone", get(async || StatusCode::GONE))
        .route("/redirect", get(elsewhere));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(axum::serve(listener, router).into_future());
    address
}

#[tokio::test]
async fn ids_of_jobs_cannot_be_guessed() {
    let server = Server::start(&[]).await;
    let mut ids = HashSet::new();
    let mut differing = 0_u128;
    let mut last = None;
    for _ in 0..64 {
        let id = server.start_job(&json!({ "generate": 1 })).await;
        assert_eq!(id.len(), 32, "{id}");
        let bits = u128::from_str_radix(&id, 16).unwrap();
        differing |= bits ^ last.unwrap_or(bits);
        last = Some(bits);
        assert!(ids.insert(id), "no id occurs twice");
    }
    // Each bit of random ids stays the same with a probability of 2^-63.
    assert_eq!(differing, u128::MAX, "every bit changes");
    let number = client().get(server.url("/jobs/1")).send().await.unwrap();
    json(number, StatusCode::NOT_FOUND).await;
}
