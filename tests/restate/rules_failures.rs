//! Rule 2: a refusal by a handler is a failure of the item; an outage of the machines is not.

use std::time::Duration;

use async_map_task::restate::{Handler, Restate, RestateError};
use async_map_task::{ItemError, MapTaskResult};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::odd;
use crate::ports;
use crate::proxy::Proxy;
use crate::relay::Relay;
use crate::scene::{Scene, at_once, engine, outputs, run, until};
use crate::server::{self, Server};
use crate::support::lenient;
use crate::warnings::Warnings;
use crate::work::{Event, Item, Output};
use crate::worker;

fn work(engine: &Restate, scene: &Scene) -> Handler<Output> {
    engine.handler("Work", "work").run_id(scene.run_id)
}

/// Returns the error of an item, and the number of its attempts.
fn failure(result: &MapTaskResult<Output, RestateError>, index: usize) -> (&RestateError, u32) {
    match &result.errors[&index] {
        ItemError::Failed { error, attempts } => (error, *attempts),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn restate_rule_2_a_terminal_error_is_the_failure_of_the_item() {
    let (server, scene) = (server::shared().await, Scene::new("failures-terminal"));
    let mut items = scene.items(4);
    items[2].fails = u64::MAX;
    let result = run(at_once(4).retries(1), items, work(&engine(server), &scene)).await;
    assert_eq!((result.successes(), result.failures()), (3, 1));
    let (RestateError::Handler { code: 418, message, invocation_id }, 2) = failure(&result, 2) else {
        panic!("{:?}", result.errors);
    };
    assert_eq!(message, "item 2 is bad");
    assert_eq!(*invocation_id, scene.invocation_id(server, "2.2").await, "the last attempt's");
    assert_eq!(scene.keys(server).await, ["0.1", "1.1", "2.1", "2.2", "3.1"]);
    assert_eq!(scene.began(4), [1, 1, 2, 1]);
}

#[tokio::test]
async fn restate_rule_2_a_terminal_error_is_retried_where_the_run_says_so() {
    let server = server::shared().await;
    for (run_id, is_retried) in [("failures-retried", true), ("failures-not-retried", false)] {
        let scene = Scene::new(run_id);
        let items = vec![Item { fails: 1, ..scene.item(0) }];
        let work = work(&engine(server), &scene);
        let task = at_once(1).retries(3).min_success_ratio(0.0).build().unwrap();
        let run = task.over(items).map_with_context(|cx, item| work.call(cx, item));
        let is_worth_it =
            |error: &RestateError| is_retried || !matches!(error, RestateError::Handler { code: 418, .. });
        let result = run.retry_if(is_worth_it).await.unwrap();
        let expected = if is_retried { vec!["0.1", "0.2"] } else { vec!["0.1"] };
        assert_eq!(scene.keys(server).await, expected);
        assert_eq!(scene.began(1), [expected.len() as u64]);
        assert_eq!(result.successes(), usize::from(is_retried));
    }
}

#[tokio::test]
async fn restate_rule_2_any_other_error_of_a_handler_is_the_engines_to_retry() {
    let (server, scene) = (server::shared().await, Scene::new("failures-stumbles"));
    let mut items = scene.items(3);
    items[1].stumbles = 2;
    let result = run(at_once(3).retries(3), items, work(&engine(server), &scene)).await;
    assert_eq!((result.results, result.summary.retries), (outputs(3), 0));
    assert_eq!(scene.began(3), [1, 3, 1]);
    assert_eq!(scene.keys(server).await, ["0.1", "1.1", "2.1"]);
}

#[tokio::test]
async fn restate_rule_2_a_worker_that_is_away_is_the_engines_to_retry() {
    let (server, scene) = (Server::start().await, Scene::new("failures-worker"));
    let mut way_to_worker = Relay::to(worker::here()).await;
    server.register(way_to_worker.port()).await;
    way_to_worker.cut().await;

    let running = tokio::spawn(run(at_once(3).retries(3), scene.items(3), work(&engine(&server), &scene)));
    let tried = "SELECT id FROM sys_invocation WHERE status = 'backing-off' AND retry_count > 1";
    until("the engine has tried all of them", async || server.query(tried).await.len() == 3).await;
    assert!(!running.is_finished());
    assert_eq!(scene.began(3), [0; 3]);

    way_to_worker.restore().await;
    let result = running.await.unwrap();
    assert_eq!((result.results, result.summary.retries), (outputs(3), 0));
    assert_eq!(scene.began(3), [1; 3]);
    assert_eq!(scene.keys(&server).await, ["0.1", "1.1", "2.1"]);
}

/// Starts a run with all items held at the gate.
async fn held_run(scene: &Scene, engine: &Restate) -> JoinHandle<MapTaskResult<Output, RestateError>> {
    let items = (0..4).map(|index| scene.held(index)).collect();
    let running = tokio::spawn(run(at_once(4).retries(3), items, work(engine, scene)));
    scene.until(Event::Began, 4).await;
    running
}

#[tokio::test]
async fn restate_rule_2_a_call_survives_the_cut_of_its_connection() {
    let server = server::shared().await;
    let mut way = Relay::to_url(&server.ingress()).await;
    let engine = Restate::builder(way.url()).build().unwrap();

    // The handlers end while no caller can be reached.
    let scene = Scene::new("failures-cut-ended");
    let running = held_run(&scene, &engine).await;
    way.cut().await;
    scene.open();
    scene.until(Event::Ended, 4).await;
    assert!(!running.is_finished());
    way.restore().await;
    let result = running.await.unwrap();
    assert_eq!((result.results, result.summary.retries), (outputs(4), 0));
    assert_eq!(scene.began(4), [1; 4]);

    // They continue, and are waited for again.
    let scene = Scene::new("failures-cut-running");
    let running = held_run(&scene, &engine).await;
    way.cut().await;
    let connections = way.accepted();
    way.restore().await;
    until("every call is sent again", async || way.accepted() == connections + 4).await;
    scene.open();
    let result = running.await.unwrap();
    assert_eq!((result.results, result.summary.retries), (outputs(4), 0));
    assert_eq!(scene.began(4), [1; 4]);
    assert_eq!(scene.keys(server).await, ["0.1", "1.1", "2.1", "3.1"]);
}

/// No connection can be made to it, and the system reports so immediately, so the clock may be paused.
const NOWHERE: &str = "http://255.255.255.255:8080";

#[tokio::test(start_paused = true)]
async fn restate_rule_2_an_ingress_that_stays_away_is_unavailable() {
    let scene = Scene::new("failures-away");
    let limit = Duration::from_secs(120);
    let engine = Restate::builder(NOWHERE).build().unwrap();
    let began = Instant::now();
    let result = run(at_once(3), scene.items(3), work(&engine, &scene)).await;
    assert!(began.elapsed() <= limit, "{:?}", began.elapsed());
    assert_eq!(result.failures(), 3, "the account has every item");
    for index in 0..3 {
        let (error @ RestateError::Unavailable { since, tries, source, .. }, 1) = failure(&result, index)
        else {
            panic!("{:?}", result.errors);
        };
        // The longest delay is 7.5 s, so at most that can be missing.
        assert!(*since <= limit && *since > limit - Duration::from_millis(7_500), "{since:?}");
        assert!((16..64).contains(tries), "{tries}");
        assert!(source.to_string().contains("Network is unreachable"), "{source}");
        assert!(error.is_retryable());
        let text = format!("the ingress has been unavailable for {since:.1?} and {tries} tries: {source}");
        assert_eq!(error.to_string(), text);
    }

    let engine = Restate::builder(NOWHERE).retry_time(Duration::ZERO).build().unwrap();
    let result = run(at_once(1), scene.items(1), work(&engine, &scene)).await;
    assert!(matches!(
        failure(&result, 0),
        (RestateError::Unavailable { since: Duration::ZERO, tries: 1, .. }, 1)
    ));
}

#[tokio::test]
async fn restate_rule_2_an_ingress_that_refuses_connections_is_unavailable() {
    let scene = Scene::new("failures-refused");
    let nobody = format!("http://127.0.0.1:{}", ports::free());
    let engine = Restate::builder(nobody).retry_time(Duration::from_millis(200)).build().unwrap();
    let result = run(at_once(1), scene.items(1), work(&engine, &scene)).await;
    let (RestateError::Unavailable { since, tries, source, .. }, 1) = failure(&result, 0) else {
        panic!("{:?}", result.errors);
    };
    assert!(*tries > 1 && *since > Duration::ZERO, "{since:?}, {tries}");
    assert!(source.to_string().contains("Connection refused"), "{source}");
}

#[tokio::test]
async fn restate_rule_2_an_ingress_that_hangs_up_is_unavailable() {
    let scene = Scene::new("failures-hangs-up");
    let way = Relay::to(ports::free()).await;
    let engine = Restate::builder(way.url()).retry_time(Duration::from_millis(200)).build().unwrap();
    let result = run(at_once(1), scene.items(1), work(&engine, &scene)).await;
    let (RestateError::Unavailable { tries, source, .. }, 1) = failure(&result, 0) else {
        panic!("{:?}", result.errors);
    };
    assert!(*tries > 1);
    assert_eq!(2 * *tries as usize, way.accepted(), "each try came through, and a question after it");
    let reasons = ["connection closed before message completed", "Connection reset by peer", "Broken pipe"];
    assert!(reasons.iter().any(|reason| source.to_string().contains(reason)), "{source}");
}

#[tokio::test(start_paused = true)]
async fn restate_rule_2_what_is_unavailable_says_so_before_its_deadline() {
    let scene = Scene::new("failures-deadline");
    let engine = Restate::builder(NOWHERE).build().unwrap();
    let limit = Duration::from_secs(10);
    for (task, attempts) in
        [(at_once(1).timeout_per_attempt(limit).retries(1), 2), (at_once(1).timeout_per_item(limit), 1)]
    {
        let result = run(task, scene.items(1), work(&engine, &scene)).await;
        let (RestateError::Unavailable { since, tries, .. }, found) = failure(&result, 0) else {
            panic!("{:?}", result.errors);
        };
        assert!(*since < limit && *tries > 4, "{since:?}, {tries}");
        assert_eq!((found, result.summary.timeouts), (attempts, 0));
    }
}

#[tokio::test]
async fn restate_rule_2_a_503_of_a_proxy_is_retried() {
    let (server, scene) = (server::shared().await, Scene::new("failures-proxy"));
    let mut way = Relay::to_url(&server.ingress()).await;
    let proxy = Proxy::before(way.port(), "token").await;
    let (warnings, _listening) = Warnings::listen();
    let engine = Restate::builder(proxy.url()).bearer_token("token").build().unwrap();
    way.cut().await;
    let running = tokio::spawn(run(lenient(3), scene.items(3), work(&engine, &scene)));
    until("the proxy has answered", async || warnings.count("status 503") > 0).await;
    assert!(!running.is_finished());
    way.restore().await;
    assert_eq!(running.await.unwrap().results, outputs(3));
    assert_eq!(scene.began(3), [1; 3]);
}

#[tokio::test]
async fn restate_rule_2_a_503_of_a_handler_is_a_failure() {
    let (server, scene) = (odd::shared().await, Scene::new("failures-503"));
    let engine = Restate::builder(server.ingress()).retry_time(Duration::ZERO).build().unwrap();
    let refuse = engine.handler::<()>("Odd", "refuse").run_id(scene.run_id);
    let codes = [503, 500, 429, 408, 401, 404, 413, 409, 302];
    let task = at_once(4).min_success_ratio(0.0).build().unwrap();
    let result = task.over(codes).map_with_context(|cx, code| refuse.call(cx, code)).await.unwrap();
    for (index, expected) in codes.into_iter().enumerate() {
        match &result.errors[&index] {
            ItemError::Failed { error: RestateError::Handler { code, message, .. }, attempts: 1 } => {
                assert_eq!((*code, message.as_str()), (expected, "not today"));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(scene.keys(server).await.len(), codes.len());
}

#[tokio::test]
async fn restate_rule_2_an_outage_is_one_warning() {
    let server = server::shared().await;
    let mut way = Relay::to_url(&server.ingress()).await;
    // While the way is cut, the relay accepts every call and hangs up, and so counts the tries.
    let tries = Relay::to(way.port()).await;
    let engine = Restate::builder(tries.url()).build().unwrap();
    let (warnings, _listening) = Warnings::listen();
    for run_id in ["failures-outage-1", "failures-outage-2"] {
        let scene = Scene::new(run_id);
        way.cut().await;
        let before = tries.accepted();
        let running = tokio::spawn(run(lenient(20), scene.items(40), work(&engine, &scene)));
        until("every call is tried again", async || tries.accepted() >= before + 60).await;
        way.restore().await;
        assert_eq!(running.await.unwrap().results, outputs(40));
        assert_eq!(warnings.count("the ingress is unavailable"), 1);
    }
}
