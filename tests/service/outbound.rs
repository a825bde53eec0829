//! The service fetches nothing from internal addresses, unless it is allowed to.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use axum::Router;
use axum::extract::Query;
use axum::response::Redirect;
use axum::routing::get;
use reqwest::{Client, Url};
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use crate::fetch::{FetchError, Fetcher, Reach};
use crate::internal::check_literal;
use crate::lines::Results;
use crate::server::{Server, client, until};

#[test]
fn internal_addresses_are_known() {
    let internal = [
        "127.0.0.1",
        "127.255.255.255",
        "0.0.0.0",
        "0x7f.1",
        "2130706433",
        "017700000001",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.127.255.255",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::1]",
        "[fc00::1]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "[ff02::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[::127.0.0.1]",
        "[64:ff9b::10.0.0.1]",
        "[2002:7f00:1::1]",
        "[2001::1]",
        "[2001:db8::1]",
    ];
    let public = [
        "1.1.1.1",
        "172.15.0.1",
        "172.32.0.1",
        "100.63.0.1",
        "100.128.0.1",
        "169.253.0.1",
        "198.17.0.1",
        "198.20.0.1",
        "223.255.255.1",
        "[2606:4700::1111]",
        "[2001:4860:4860::8888]",
        "[::ffff:1.1.1.1]",
        "[64:ff9b::1.1.1.1]",
        "[2002:101:101::1]",
        // A name is checked when it is resolved.
        "localhost",
    ];
    let is_refused = |host: &str| check_literal(&Url::parse(&format!("http://{host}/")).unwrap()).is_err();
    for host in internal {
        assert!(is_refused(host), "{host} is internal");
    }
    for host in public {
        assert!(!is_refused(host), "{host} is public");
    }
}

#[tokio::test]
async fn a_job_does_not_reach_internal_servers() {
    let (target, address) = target();
    let port = address.port();
    let hosts = ["127.0.0.1", "localhost", "0x7f.1", "127.1", "[::ffff:127.0.0.1]", "0.0.0.0"];
    let urls: Vec<_> = hosts.iter().map(|host| format!("http://{host}:{port}/")).collect();
    let server = Server::start(&[]).await;
    let id = server.start_job(&json!({ "urls": urls })).await;
    let mut results =
        Results::new(client().get(server.url(&format!("/jobs/{id}/results"))).send().await.unwrap());
    while results.more().await {}
    assert_eq!(results.lines.len(), hosts.len() + 1);
    for line in &results.lines[..hosts.len()] {
        assert!(line["detail"].as_str().unwrap().contains("is an internal address"), "{line}");
        assert_eq!(line["attempts"], 1, "another attempt could not succeed: {line}");
    }
    assert!(!has_client(&target));
    // The list of the service itself is exempt, although its address is internal.
    assert_eq!(server.get("/map?generate=1").await["errors"], json!([]));

    let server = Server::start(&["--allow-internal"]).await;
    server.start_job(&json!({ "urls": [format!("http://127.0.0.1:{port}/")] })).await;
    until("a server that is allowed is reached", async || has_client(&target), |reached| *reached).await;
}

#[tokio::test]
async fn redirects_do_not_lead_inside() {
    let (target, address) = target();
    let port = address.port();
    let redirector = redirector().await;
    // The name has the address of the redirector without being resolved, as if that were public.
    let fetcher = move |reach| {
        let client = Client::builder().resolve("redirector.example", redirector);
        Fetcher::new(client, reach).unwrap()
    };
    let at = |to: &str| format!("http://redirector.example:{}/?to={to}", redirector.port());
    let fetcher_of_clients = fetcher(Reach::Public);
    let hosts = ["127.0.0.1", "localhost", "0x7f.1", "[::ffff:127.0.0.1]", "169.254.169.254", "[fd00::1]"];
    for host in hosts {
        let inside = format!("http://{host}:{port}/");
        for url in [at(&inside), at(&at(&inside).replace('?', "%3F"))] {
            // The target never answers a request that reaches it.
            let fetch = timeout(Duration::from_secs(10), fetcher_of_clients.fetch(&url)).await;
            let error = fetch.expect("an error without a connection").unwrap_err();
            assert!(error.to_string().contains("is an internal address"), "{url}: {error}");
            assert!(!error.is_transient(), "{error}");
        }
    }
    assert!(!has_client(&target));
    // Other redirects are followed.
    let fetched = fetcher_of_clients.fetch(&at("/end")).await.unwrap();
    assert_eq!((fetched.status, fetched.bytes), (200, 3));

    let url = at(&format!("http://127.0.0.1:{port}/"));
    let fetch = tokio::spawn(async move { fetcher(Reach::Anywhere).fetch(&url).await.map(drop) });
    until("a server that is allowed is reached", async || has_client(&target), |reached| *reached).await;
    // The target closed the connection without an answer.
    assert!(matches!(fetch.await.unwrap(), Err(FetchError::Http(_))));
}

#[tokio::test]
async fn a_chain_of_redirects_has_an_end() {
    let redirector = redirector().await;
    let client = Client::builder().resolve("redirector.example", redirector);
    let fetcher = Fetcher::new(client, Reach::Public).unwrap();
    let error = fetcher.fetch(&format!("http://redirector.example:{}/again", redirector.port())).await;
    let error = error.unwrap_err();
    assert!(error.to_string().contains("too many redirects") && !error.is_transient(), "{error}");
}

#[derive(Deserialize)]
struct To {
    to: String,
}

/// A server that redirects to the address in its query.
async fn redirector() -> SocketAddr {
    let router = Router::new()
        .route("/", get(async |Query(To { to }): Query<To>| Redirect::temporary(&to)))
        .route("/again", get(async || Redirect::temporary("/again")))
        .route("/end", get(async || "end"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, router).into_future());
    address
}

/// A server that nothing may reach.
fn target() -> (TcpListener, SocketAddr) {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    target.set_nonblocking(true).unwrap();
    let address = target.local_addr().unwrap();
    (target, address)
}

fn has_client(target: &TcpListener) -> bool {
    match target.accept() {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(error) => panic!("{error}"),
    }
}
