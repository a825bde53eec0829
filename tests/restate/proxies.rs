//! Proxies in front of the ingress: time limits, and TLS.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use async_map_task::restate::{Restate, RestateError};
use async_map_task::{AsyncMapTask, ItemError};

use crate::process::{Coordinator, Map, Report};
use crate::proxy::Proxy;
use crate::scene::{Scene, outputs};
use crate::server;
use crate::warnings::Warnings;
use crate::work::{Item, Output};

#[tokio::test]
async fn a_call_that_a_proxy_cuts_is_attached_to_again_and_is_no_outage() {
    let (server, scene) = (server::shared().await, Scene::new("proxies-cut"));
    let proxy = Proxy::before_url(&server.ingress(), "timeout server 500ms").await;
    let (warnings, _listening) = Warnings::listen();
    // Shorter than an item takes, so an outage of that length would be too long.
    let engine = Restate::builder(proxy.url()).retry_time(Duration::from_secs(1)).build().unwrap();
    let work = engine.handler::<Output>("Work", "work").run_id(scene.run_id);
    let items: Vec<_> = (0..4).map(|index| Item { millis: 4_000, ..scene.item(index) }).collect();
    let task = AsyncMapTask::builder().concurrency(4).build().unwrap();
    let result = task.over(items).map_with_context(|cx, item| work.call(cx, item)).await.unwrap();
    assert_eq!(result.results, outputs(4));
    assert_eq!(scene.began(4), [1; 4]);
    assert_eq!(warnings.count("was closed before the handler ended"), 1, "and there is no other warning");
}

/// Creates a self-signed certificate, and a file that also contains its key.
fn self_signed(folder: &Path, constraints: &str) -> [PathBuf; 2] {
    let [key, certificate, both] = ["key.pem", "certificate.pem", "both.pem"].map(|name| folder.join(name));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]);
    openssl.args(["-addext", "subjectAltName=DNS:localhost", "-addext", constraints]);
    openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
    let made = openssl.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    fs::write(&both, [fs::read(&certificate).unwrap(), fs::read(&key).unwrap()].concat()).unwrap();
    [certificate, both]
}

/// A certificate of a server.
const OF_A_SERVER: &str = "basicConstraints=critical,CA:FALSE";

/// A certificate of an authority: the default of `openssl`.
const OF_AN_AUTHORITY: &str = "basicConstraints=critical,CA:TRUE";

/// Starts a proxy that speaks TLS, in front of a server's ingress or admin API.
async fn with_tls(url: &str, certificate: &Path) -> Proxy {
    let target = url.rsplit(':').next().unwrap().parse().unwrap();
    Proxy::start(target, &format!("ssl crt {}", certificate.display()), "timeout server 60s").await
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_ends_a_call_at_once() {
    let (server, scene) = (server::shared().await, Scene::new("proxies-tls"));
    let [_, certificate] = self_signed(scene.folder(), OF_A_SERVER);
    let proxy = with_tls(&server.ingress(), &certificate).await;
    let engine = Restate::builder(format!("https://localhost:{}", proxy.port())).build().unwrap();
    let work = engine.handler::<Output>("Work", "work").run_id(scene.run_id);
    let began = Instant::now();
    let task = AsyncMapTask::builder().retries(2).min_success_ratio(0.0).build().unwrap();
    let run = task.over(scene.items(2)).map_with_context(|cx, item| work.call(cx, item));
    let result = run.retry_if(RestateError::is_retryable).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    for error in result.errors.into_values() {
        let ItemError::Failed { error, attempts: 1 } = error else { panic!("{error:?}") };
        let text = error.to_string();
        assert!(matches!(error, RestateError::Certificate { server: "ingress", .. }), "{error:?}");
        assert!(text.starts_with("the certificate of the ingress is not trusted: "), "{text}");
    }
    assert_eq!((result.summary.failures, scene.began(2)), (2, vec![0; 2]));
}

/// Executes a run with this ingress and admin API, in a program that trusts only this certificate.
async fn run_that_trusts(map: &Map, scene: &Scene, certificate: &Path) -> Report {
    let variables = [("SSL_CERT_FILE", certificate)];
    Coordinator::start_with(map, scene.folder(), ":", &variables).report().await
}

#[tokio::test]
async fn a_certificate_that_is_named_is_trusted_for_its_own_host_only() {
    const ITEMS: u64 = 4;
    let (server, scene) = (server::shared().await, Scene::new("proxies-tls-named"));
    let [certificate, both] = self_signed(scene.folder(), OF_A_SERVER);
    let (ingress, admin) = (with_tls(&server.ingress(), &both).await, with_tls(&server.admin(), &both).await);
    let map = |host: &str| Map {
        ingress: format!("https://{host}:{}", ingress.port()),
        admin: format!("https://{host}:{}", admin.port()),
        log: scene.log.path(),
        ..Map::new(server, scene.run_id, ITEMS)
    };
    let report = run_that_trusts(&map("127.0.0.1"), &scene, &certificate).await;
    let text = "failed after 1 attempt: the certificate of the ingress is not trusted: ";
    for error in report.errors.values() {
        assert!(error.starts_with(text) && error.contains("not valid for name \"127.0.0.1\""), "{error}");
    }
    assert_eq!((report.errors.len(), scene.began(ITEMS)), (ITEMS as usize, vec![0; ITEMS as usize]));

    let map = map("localhost");
    assert_eq!(run_that_trusts(&map, &scene, &certificate).await, map.undisturbed().await);
    assert_eq!(scene.began(ITEMS), [1; ITEMS as usize]);
}

#[tokio::test]
async fn a_certificate_of_an_authority_is_none_of_a_server() {
    let (server, scene) = (server::shared().await, Scene::new("proxies-tls-authority"));
    let [certificate, both] = self_signed(scene.folder(), OF_AN_AUTHORITY);
    let proxy = with_tls(&server.ingress(), &both).await;
    let ingress = format!("https://localhost:{}", proxy.port());
    let map = Map { ingress, log: scene.log.path(), ..Map::new(server, scene.run_id, 1) };
    let report = run_that_trusts(&map, &scene, &certificate).await;
    // As the guide says.
    assert!(report.errors[&0].contains("CaUsedAsEndEntity"), "{report:?}");
}
