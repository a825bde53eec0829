//! One test for each promise of the service, each with its own service.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::lines::Results;
use crate::server::{Server, client, json, until};

#[tokio::test]
async fn what_cannot_be_done_is_refused_in_words() {
    let server = Server::start(&[]).await;
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    let cases = [
        (&post, "/jobs", Some("["), 400, "EOF while parsing"),
        (&post, "/jobs", Some("[]"), 422, "at least one URL is required"),
        (&post, "/jobs", Some("{}"), 422, "exactly one of `urls` and `generate` is required"),
        (&post, "/jobs", Some(r#"{"urls": [], "generate": 1}"#), 422, "exactly one of"),
        (&post, "/jobs", Some(r#"{"generat": 1}"#), 422, "unknown field `generat`"),
        (&post, "/jobs", Some(r#"{"generate": 0}"#), 422, "at least one URL"),
        (&post, "/jobs", Some(r#"{"generate": 10001}"#), 422, "generate must be at most 10000, got 10001"),
        (&post, "/jobs", Some(r#"{"generate": -1}"#), 422, "-1"),
        (&post, "/jobs", Some(r#"["ftp://localhost/"]"#), 422, "the scheme of a URL must be http, got ftp"),
        (&post, "/jobs", Some(r#"["nowhere"]"#), 422, "\"nowhere\" is not a URL"),
        (
            &post,
            "/jobs",
            Some(r#"{"generate": 1, "concurrency": 0}"#),
            422,
            "concurrency must be between 1 and",
        ),
        (
            &post,
            "/jobs",
            Some(r#"{"generate": 1, "retries": 11}"#),
            422,
            "retries must be at most 10, got 11",
        ),
        (
            &post,
            "/jobs",
            Some(r#"{"generate": 1, "busy": 1.5}"#),
            422,
            "busy must be between 0 and 1, got 1.5",
        ),
        (&post, "/jobs", Some(r#"{"generate": 1, "busy": 0.7, "gone": 0.7}"#), 422, "the sum"),
        (
            &post,
            "/jobs",
            Some(r#"{"generate": 1, "delay_ms": 60001}"#),
            422,
            "delay_ms must be at most 60000, got 60001",
        ),
        (
            &post,
            "/jobs",
            Some(r#"{"generate": 1, "min_success_ratio": 2}"#),
            422,
            "min_success_ratio must be between 0 and 1, got 2",
        ),
        (&post, "/jobs", None, 415, "Content-Type"),
        (&get, "/map?generate=many", None, 400, "generate: invalid digit"),
        (&get, "/map", None, 422, "exactly one of"),
        (&post, "/limiter", Some(r#"{"permits": 0}"#), 422, "permits must be between 1 and 4096, got 0"),
        (&get, "/jobs/1", None, 404, "job 1 does not exist"),
        (&get, "/jobs/one", None, 404, "job one does not exist"),
        (&get, "/jobs/1/events", None, 404, "job 1 does not exist"),
        (&get, "/jobs/1/results", None, 404, "job 1 does not exist"),
        (&post, "/jobs/1/pause", None, 404, "job 1 does not exist"),
        (&delete, "/jobs/1", None, 404, "job 1 does not exist"),
        (&get, "/nowhere", None, 404, "this path does not exist"),
        (&delete, "/jobs", None, 405, "does not support this method"),
    ];
    for (method, path, body, status, message) in cases {
        let mut request = client().request(method.clone(), server.url(path));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let answer = json(request.send().await.unwrap(), StatusCode::from_u16(status).unwrap()).await;
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(message), "{method} {path} {body:?} is answered with {error:?}");
    }
    let large = format!("[\"http://localhost/{}\"]", "x".repeat(1 << 20));
    let large = client().post(server.url("/jobs")).header("content-type", "application/json").body(large);
    json(large.send().await.unwrap(), StatusCode::PAYLOAD_TOO_LARGE).await;
    assert_eq!(server.health().await.kept, 0);
}

#[tokio::test]
async fn a_job_pauses_resumes_narrows_and_is_cancelled() {
    let server = Server::start(&[]).await;
    let id = server.start_job(&json!({ "generate": 2_000, "delay_ms": 50, "concurrency": 20 })).await;
    let path = format!("/jobs/{id}");
    let job = async || server.get(&path).await;
    let number = |job: &Value, name: &str| job[name].as_u64().unwrap();

    until("items succeed", job, |job| number(job, "successes") >= 20).await;
    assert_eq!(server.post(&format!("{path}/pause")).await["state"], "paused");
    let paused = until("what runs finishes", job, |job| number(job, "running") == 0).await;
    sleep(Duration::from_millis(500)).await;
    assert_eq!(number(&job().await, "successes"), number(&paused, "successes"));

    assert_eq!(server.post(&format!("{path}/resume")).await["state"], "running");
    until("it goes on", job, |job| number(job, "successes") > number(&paused, "successes")).await;

    let places = client().post(server.url(&format!("{path}/concurrency"))).json(&json!({ "concurrency": 3 }));
    json(places.send().await.unwrap(), StatusCode::OK).await;
    until("fewer run", job, |job| number(job, "running") <= 3).await;
    for _ in 0..20 {
        assert!(number(&job().await, "running") <= 3);
    }

    json(client().delete(server.url(&path)).send().await.unwrap(), StatusCode::OK).await;
    let end = until("it is cancelled", job, |job| job["state"] == "cancelled").await;
    let sum: u64 =
        ["successes", "failures", "cancelled", "not_started"].map(|name| number(&end, name)).iter().sum();
    assert_eq!((sum, number(&end, "total"), number(&end, "running")), (2_000, 2_000, 0));
    assert!(number(&end, "cancelled") <= 3 && number(&end, "not_started") > 1_000, "{end}");

    let late = client().post(server.url(&format!("{path}/pause"))).send().await.unwrap();
    let late = json(late, StatusCode::CONFLICT).await;
    assert_eq!(late["error"], "too late: the state of job 1 is cancelled");
}

#[tokio::test]
async fn every_reader_gets_every_line() {
    let server = Server::start(&[]).await;
    let order = json!({ "generate": 300, "delay_ms": 10, "busy": 0.02, "drop": 0.1, "gone": 0.1 });
    let path = format!("/jobs/{}/results", server.start_job(&order).await);
    let read = async || {
        let results = client().get(server.url(&path)).send().await.unwrap();
        results.text().await.unwrap()
    };
    // Two while it runs, one of which comes later, and one after its end.
    let late = async {
        sleep(Duration::from_millis(100)).await;
        read().await
    };
    let (first, second) = tokio::join!(read(), late);
    assert_eq!(first.lines().count(), 301);
    assert_eq!(first, second);
    assert_eq!(first, read().await);
    let account = Results::new(client().get(server.url(&path)).send().await.unwrap()).all().await;
    assert_eq!((account.items, account.end.as_str()), (300, "succeeded"));
    assert!(first.contains("the server returned the status 410 Gone"));
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_map_along_and_no_job() {
    let server = Server::start(&[]).await;
    let id = server.start_job(&json!({ "generate": 10, "delay_ms": 1_000, "concurrency": 10 })).await;
    let mut job = client().get(server.url(&format!("/jobs/{id}/results"))).send().await.unwrap();
    let map = client().get(server.url("/map?generate=50&delay_ms=20000&concurrency=30")).send();
    let map = tokio::spawn(map);
    until("both are at work", async || server.health().await, |health| health.in_use == 40).await;

    map.abort();
    assert!(timeout(Duration::from_millis(1), job.chunk()).await.is_err(), "no item has settled yet");
    drop(job);
    until("the map is gone", async || server.health().await, |health| health.in_use == 10).await;
    let end = until(
        "the job goes on",
        async || server.get(&format!("/jobs/{id}")).await,
        |job| job["state"] != "running",
    );
    assert_eq!(end.await["successes"], 10);
    let health =
        until("its place is free", async || server.health().await, |health| health.in_use == 0).await;
    assert_eq!((health.alive, health.kept), (0, 1));
}

#[tokio::test]
async fn one_limit_holds_over_jobs_and_requests() {
    let server = Server::start(&["--permits", "6"]).await;
    for _ in 0..3 {
        server.start_job(&json!({ "generate": 200, "delay_ms": 50, "concurrency": 16 })).await;
    }
    let map = tokio::spawn(client().get(server.url("/map?generate=50&delay_ms=50")).send());
    until("the limit is reached", async || server.health().await, |health| health.in_use == 6).await;
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        let health = server.health().await;
        assert!(health.in_use <= 6, "{health:?}");
    }
    let wider = client().post(server.url("/limiter")).json(&json!({ "permits": 30 })).send().await.unwrap();
    json(wider, StatusCode::OK).await;
    until("the wider limit is reached", async || server.health().await, |health| health.in_use == 30).await;
    json(map.await.unwrap().unwrap(), StatusCode::OK).await;
    let health = until("all end", async || server.health().await, |health| health.alive == 0).await;
    assert_eq!((health.in_use, health.permits, health.kept), (0, 30, 3));
}

#[tokio::test]
async fn old_jobs_are_forgotten() {
    let server = Server::start(&[]).await;
    let mut ids = Vec::new();
    for _ in 0..270 {
        let id = server.start_job(&json!({ "generate": 1 })).await;
        // The job that ended first is forgotten first, so each ends before the next one starts.
        let results = client().get(server.url(&format!("/jobs/{id}/results"))).send().await.unwrap();
        assert_eq!(Results::new(results).all().await.end, "succeeded");
        ids.push(id);
    }
    let health = until("all end", async || server.health().await, |health| health.alive == 0).await;
    assert_eq!(health.kept, 256);
    let old = client().get(server.url(&format!("/jobs/{}", ids[0]))).send().await.unwrap();
    let error = json(old, StatusCode::NOT_FOUND).await["error"].clone();
    assert_eq!(error, format!("job {} does not exist or has been deleted", ids[0]));
    assert_eq!(server.get(&format!("/jobs/{}", ids[269])).await["successes"], 1);

    let list = server.get("/jobs").await;
    let numbers: Vec<_> = list["jobs"].as_array().unwrap().iter().map(|job| job["number"].clone()).collect();
    let newest: Vec<_> = (15..=270).rev().map(Value::from).collect();
    assert_eq!(numbers, newest, "the list has every job that is kept, the newest first");
    assert_eq!(list["jobs"][0]["id"], ids[269]);
}

#[tokio::test]
async fn a_signal_drains_the_jobs() {
    let mut server = Server::start(&[]).await;
    let id = server.start_job(&json!({ "generate": 1_000, "delay_ms": 300, "concurrency": 10 })).await;
    let mut results =
        Results::new(client().get(server.url(&format!("/jobs/{id}/results"))).send().await.unwrap());
    assert!(results.more().await);
    let reader = tokio::spawn(results.all());
    let url = server.url("/health");

    assert!(server.terminate().await.success());
    assert_eq!(server.next_line().await.as_deref(), Some("ended"));
    let account = reader.await.unwrap();
    assert_eq!(account.end, "cancelled");
    assert!((10..=40).contains(&account.items), "{account:?}");
    assert!(client().get(url).send().await.is_err(), "nobody listens any more");
}
