//! Clients that send slowly, hold connections or ask for too much. Others are answered meanwhile.

use std::time::Duration;

use futures::future::join_all;
use reqwest::StatusCode;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};

use crate::server::{Server, client, json, until};

/// The limits of the service.
const HEADER_LIMIT: Duration = Duration::from_secs(5);
const BODY_LIMIT: Duration = Duration::from_secs(10);
const MAX_CONNECTIONS: usize = 768;
const MAX_LONG: usize = 576;

/// The files of the service that are not connections of clients, at most.
const OTHER_FILES: usize = 40;

/// The delay that a busy machine may add to a limit.
const DELAY: Duration = Duration::from_secs(4);

const HALF_A_HEADER: &str = "GET /health HTTP/1.1\r\nHost: localh";
const HALF_A_BODY: &str = "POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                           Content-Length: 1000\r\n\r\n[";

#[tokio::test]
async fn half_sent_headers_keep_nobody_away() {
    half_sent_requests(HALF_A_HEADER, HEADER_LIMIT).await;
}

#[tokio::test]
async fn half_sent_bodies_keep_nobody_away() {
    half_sent_requests(HALF_A_BODY, BODY_LIMIT).await;
}

async fn half_sent_requests(half: &str, limit: Duration) {
    // Both processes need more files than the usual limit.
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).unwrap();
    let server = Server::start(&[]).await;

    let mut halves = Vec::new();
    for number in 0..1_500 {
        let mut connection = TcpStream::connect(server.address()).await.unwrap();
        connection.write_all(half.as_bytes()).await.unwrap();
        halves.push(connection);
        // A service that makes new clients wait delays the next connections of this loop as well.
        if number % 50 == 0 {
            timeout(Duration::from_secs(1), server.health()).await.expect("an answer within a second");
        }
    }
    let sent = Instant::now();
    for _ in 0..20 {
        timeout(Duration::from_secs(1), server.health()).await.expect("an answer within a second");
        let files = server.open_files();
        assert!(files <= MAX_CONNECTIONS + OTHER_FILES, "{files} files are open");
        sleep(Duration::from_millis(100)).await;
    }
    // A reset ends a connection, too.
    let ends = halves.iter_mut().map(async |half| drop(half.read_to_end(&mut Vec::new()).await));
    timeout(limit + DELAY, join_all(ends)).await.expect("the service closes the connections");
    assert!(sent.elapsed() > limit - DELAY, "some are within the limit of connections, and have their time");
    until("the files are closed", async || server.open_files(), |files| *files <= OTHER_FILES).await;
}

/// The limit is for the whole body, because each byte comes soon after the one before.
#[tokio::test]
async fn a_trickling_body_has_a_time_limit() {
    let server = Server::start(&[]).await;
    let mut connection = TcpStream::connect(server.address()).await.unwrap();
    connection.write_all(HALF_A_BODY.as_bytes()).await.unwrap();
    let (start, mut answer) = (Instant::now(), [0; 12]);
    let (mut reader, mut writer) = connection.split();
    let trickle = async {
        let mut ticks = interval(Duration::from_millis(100));
        loop {
            ticks.tick().await;
            writer.write_all(b" ").await.unwrap();
        }
    };
    tokio::select! {
        biased;
        read = reader.read_exact(&mut answer) => assert_eq!(read.unwrap(), answer.len()),
        () = trickle => unreachable!("it has no end"),
        () = sleep(BODY_LIMIT + DELAY) => panic!("there is no answer"),
    }
    assert_eq!(std::str::from_utf8(&answer).unwrap(), "HTTP/1.1 408");
    assert!(start.elapsed() > BODY_LIMIT - DELAY, "an answer after {:?}", start.elapsed());
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let server = Server::start(&[]).await;
    let mut connection = TcpStream::connect(server.address()).await.unwrap();
    connection.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let end = timeout(HEADER_LIMIT + DELAY, connection.read_to_end(&mut answer)).await;
    end.expect("the service closes the connection").unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn streams_leave_connections_for_short_answers() {
    let server = Server::start(&[]).await;
    let id = server.start_job(&json!({ "generate": 100, "delay_ms": 10, "concurrency": 2 })).await;
    server.post(&format!("/jobs/{id}/pause")).await;
    until("nothing is fetched", async || server.health().await, |health| health.in_use == 0).await;
    let events = async || {
        let answer = client().get(server.url(&format!("/jobs/{id}/events"))).send().await.unwrap();
        (answer.status(), answer)
    };
    let mut streams = Vec::new();
    for _ in 0..MAX_LONG {
        let (status, stream) = events().await;
        assert_eq!(status, StatusCode::OK);
        streams.push(stream);
    }
    let (_, refused) = events().await;
    assert_eq!(refused.headers()["retry-after"], "1");
    let error = json(refused, StatusCode::SERVICE_UNAVAILABLE).await["error"].clone();
    assert_eq!(error, "at most 576 streams and maps can be open at once");
    for _ in 0..MAX_CONNECTIONS {
        timeout(Duration::from_secs(1), server.health()).await.expect("an answer within a second");
    }
    drop(streams);
    until("a stream is free", async || events().await.0, |status| *status == StatusCode::OK).await;
}

#[tokio::test]
async fn large_maps_take_no_memory() {
    let server = Server::start(&[]).await;
    server.get("/map?generate=100").await;
    let before = server.peak_kib();
    let mut maps = JoinSet::new();
    for _ in 0..300 {
        maps.spawn(client().get(server.url("/map?generate=10000&concurrency=256")).send());
    }
    while let Some(map) = maps.join_next().await {
        let error = json(map.unwrap().unwrap(), StatusCode::PAYLOAD_TOO_LARGE).await["error"].clone();
        assert_eq!(error, "a map has at most 1000 items, got 10000: start a job instead");
    }
    let grown = server.peak_kib() - before;
    eprintln!("limits: 300 maps of 10,000 items are refused with {grown} KiB");
    assert!(grown < 32 * 1024, "the memory grew by {grown} KiB");
}

#[tokio::test]
async fn all_maps_together_have_a_limit() {
    let server = Server::start(&[]).await;
    server.get("/map?generate=100").await;
    let before = server.peak_kib();
    let mut maps = JoinSet::new();
    for _ in 0..300 {
        maps.spawn(client().get(server.url("/map?generate=1000&delay_ms=20000")).send());
    }
    // Twenty have a place, and do not end soon. All others are answered at once.
    for _ in 0..280 {
        let refused = maps.join_next().await.unwrap().unwrap().unwrap();
        assert_eq!(refused.headers()["retry-after"], "1");
        let error = json(refused, StatusCode::SERVICE_UNAVAILABLE).await["error"].clone();
        assert_eq!(error, "all maps together have at most 20000 items, and 1000 more are too many");
    }
    assert_eq!(maps.len(), 20);
    let health = server.health().await;
    assert_eq!(health.in_use, health.permits);
    let grown = server.peak_kib() - before;
    eprintln!("limits: 20 of 300 maps of 1,000 items are accepted with {grown} KiB");
    assert!(grown < 64 * 1024, "the memory grew by {grown} KiB");

    maps.shutdown().await;
    let map = async || client().get(server.url("/map?generate=1000")).send().await.unwrap().status();
    until("the places are free", map, |status| *status == StatusCode::OK).await;
}
