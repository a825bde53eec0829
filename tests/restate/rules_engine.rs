//! Rule 3: a stopped run is stopped even if the engine, or the way to it, has changed since the call.

use std::collections::HashSet;
use std::convert::Infallible;
use std::time::Duration;

use async_map_task::restate::{Restate, RestateError};
use async_map_task::{AsyncMapTask, ItemContext, ItemError};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::any;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::late::Late;
use crate::scene::{Scene, outputs, until};
use crate::server::{self, Server};
use crate::support::{Place, builder, lenient};
use crate::warnings::Warnings;
use crate::work::{Event, Item, Output};
use crate::worker;

#[tokio::test]
async fn restate_rule_3_what_runs_for_a_deployment_that_was_removed_is_stopped() {
    let server = Server::start().await;
    server.register(worker::here()).await;
    let engine = |server: &Server| builder(server).admin(server.admin()).build().unwrap();
    let place = Place::on(&server, "removed", engine);
    let task = AsyncMapTask::builder().concurrency(6).build().unwrap();
    let mut run = Box::pin(
        task.over(place.deaf(6)).map_with_context(|cx, item| place.work.call(cx, item)).into_future(),
    );
    place.drop_when_begun(6, &mut run).await;
    for deployment in server.query("SELECT id FROM sys_deployment").await {
        let url = format!("{}/deployments/{}?force=true", server.admin(), deployment["id"].as_str().unwrap());
        assert!(reqwest::Client::new().delete(url).send().await.unwrap().status().is_success());
    }
    drop(run);
    assert_eq!(place.nothing_goes_on().await, 6);
    assert_eq!((place.kept().await.len(), place.stopped().await.len()), (0, 6));
}

#[tokio::test]
async fn restate_rule_3_a_call_that_comes_late_begins_nothing() {
    let server = server::shared().await;
    let late = Late::before(&server.ingress()).await;
    let place =
        Place::with("late", |server| Restate::builder(late.url()).admin(server.admin()).build().unwrap())
            .await;
    let task = AsyncMapTask::builder().concurrency(6).build().unwrap();
    let run = task.over(place.deaf(6)).map_with_context(|cx, item| place.work.call(cx, item));
    tokio::select! {
        biased;
        _ = run => panic!("no call has come through"),
        () = until("the calls are on their way", async || late.held() == 6) => {}
    }
    until("the engine has them, to begin later", async || server.in_flight(&place.run_id).await.len() == 6)
        .await;
    late.let_through().await;
    place.nothing_goes_on().await;
    assert_eq!(place.count(Event::Began), 0);
}

#[tokio::test]
async fn restate_rule_3_what_a_dead_coordinator_left_under_a_later_key_is_stopped() {
    let late = Late::before(&server::shared().await.ingress()).await;
    let engine = |server: &Server| {
        let builder = Restate::builder(late.url()).admin(server.admin());
        builder.kill_after(Duration::from_millis(100)).build().unwrap()
    };
    let place = Place::with("later-key", engine).await;
    let task = AsyncMapTask::builder().concurrency(4).build().unwrap();
    // One coordinator is stopped, and the next one dies, under the second keys.
    let (with_admin, without) = (builder(place.server).admin(place.server.admin()), builder(place.server));
    for (begun, engine) in [(4, with_admin.build().unwrap()), (8, without.build().unwrap())] {
        let work = engine.handler::<Output>("Work", "work").run_id(&place.run_id);
        let run = task.over(place.deaf(4)).map_with_context(|cx, item| work.call(cx, item));
        place.drop_when_begun(begun, run.into_future()).await;
        assert_eq!(engine.settled().await, 0);
    }
    assert_eq!(place.server.in_flight(&place.run_id).await.len(), 4);
    // The third one is stopped before it knows more than the first keys.
    let run = task.over(place.deaf(4)).map_with_context(|cx, item| place.work.call(cx, item));
    tokio::select! {
        biased;
        _ = run => panic!("no call has come through"),
        () = until("the calls are on their way", async || late.held() == 4) => {}
    }
    assert_eq!(place.nothing_goes_on().await, 8);
    let keys: Vec<_> = (0..4).flat_map(|index| [format!("{index}.1"), format!("{index}.2")]).collect();
    assert_eq!(place.stopped().await, keys);
}

#[tokio::test]
async fn restate_rule_3_a_retry_that_looks_for_its_key_stops_what_a_dead_coordinator_left() {
    let late = Late::holding(&server::shared().await.ingress(), "output").await;
    let engine = |server: &Server| {
        let builder = Restate::builder(late.url()).admin(server.admin());
        builder.kill_after(Duration::from_millis(100)).build().unwrap()
    };
    let place = Place::with("looking-for-key", engine).await;
    let dead = builder(place.server).build().unwrap();
    let left = dead.handler::<Output>("Work", "work").run_id(&place.run_id);
    let task = AsyncMapTask::builder().concurrency(4).retries(1).retry_delay(Duration::from_millis(1));
    let task = task.build().unwrap();
    let run = task.over(place.deaf(4)).map_with_context(|cx, item| left.call(cx, item));
    place.drop_when_begun(4, run.into_future()).await;
    // The first attempts fail before they call.
    let run = task.over(place.deaf(4)).map_with_context(async |cx: ItemContext, item| match cx.attempt() {
        1 => Err("not yet".to_owned()),
        _ => place.work.call(cx, item).await.map_err(|error| error.to_string()),
    });
    tokio::select! {
        biased;
        _ = run => panic!("no key is known"),
        () = until("the retries look for their keys", async || late.held() == 4) => {}
    }
    late.let_through().await;
    assert_eq!(place.nothing_goes_on().await, 4);
}

#[tokio::test]
async fn restate_rule_3_a_retry_does_not_wait_for_calls_that_may_come_late() {
    let server = server::shared().await;
    for (name, with_id) in [("late-retried", true), ("late-retried-random", false)] {
        let late = Late::before(&server.ingress()).await;
        let engine = |server: &Server| Restate::builder(late.url()).admin(server.admin()).build().unwrap();
        let place = Place::with(name, engine).await;
        let work = if with_id { place.work.clone() } else { place.engine.handler("Work", "work") };
        let task =
            AsyncMapTask::builder().concurrency(4).retries(1).timeout_per_attempt(Duration::from_secs(3));
        let items: Vec<_> = place.deaf(4).into_iter().map(|item| Item { millis: 0, ..item }).collect();
        let run = task.build().unwrap().over(items).map_with_context(async |cx: ItemContext, item| {
            if cx.attempt() == 2 {
                late.let_through().await;
            }
            work.call(cx, item).await
        });
        let result = run.await.unwrap();
        assert_eq!((result.results, result.summary.timeouts), (outputs(4), 4));
        assert_eq!(place.engine.settled().await, 0);
        assert_eq!(place.log.counts(Event::Began, 4), [1; 4], "the late calls begin nothing");
    }
}

/// Returns the URL of a server that has no data.
async fn stranger() -> String {
    let app = Router::new().fallback(any(async || StatusCode::NOT_FOUND));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

#[tokio::test]
async fn restate_rule_3_an_admin_api_of_something_else_is_counted_and_named() {
    let (server, other) = (server::shared().await, Server::start().await);
    for (name, url) in
        [("ingress", server.ingress()), ("stranger", stranger().await), ("other", other.admin())]
    {
        let (warnings, _listening) = Warnings::listen();
        let place =
            Place::with(&format!("admin-of-{name}"), |server| builder(server).admin(url).build().unwrap())
                .await;
        let task = lenient(4).build().unwrap();
        let run = task.over(place.deaf(4)).map_with_context(|cx, item| place.work.call(cx, item));
        place.drop_when_begun(4, run.into_future()).await;
        assert_eq!(place.engine.settled().await, 4, "{name}");
        assert_eq!(warnings.count("the admin API refused the call with status 404"), 4);
        for invocation in server.in_flight(&place.run_id).await {
            let url = format!("{}/invocations/{}/kill", server.admin(), invocation["id"].as_str().unwrap());
            assert!(reqwest::Client::new().patch(url).send().await.unwrap().status().is_success());
        }
    }
}

#[tokio::test]
async fn restate_rule_3_an_admin_api_that_is_away_is_named() {
    let (warnings, _listening) = Warnings::listen();
    let away = format!("http://127.0.0.1:{}", crate::ports::free());
    let engine = |server: &Server| builder(server).admin(away).retry_time(Duration::ZERO).build().unwrap();
    let place = Place::with("admin-named", engine).await;
    let task = lenient(1).build().unwrap();
    let run = task.over(place.deaf(1)).map_with_context(|cx, item| place.work.call(cx, item));
    place.drop_when_begun(1, run.into_future()).await;
    assert_eq!(place.engine.settled().await, 1);
    assert_eq!(warnings.count("the admin API has been unavailable"), 1);
    for invocation in place.server.in_flight(&place.run_id).await {
        let url = format!("{}/invocations/{}/kill", place.server.admin(), invocation["id"].as_str().unwrap());
        assert!(reqwest::Client::new().patch(url).send().await.unwrap().status().is_success());
    }
}

/// Searches repeatedly for an item that the engine runs twice at the same time. The engine reads its partitions one after
/// another, so only a result that it returns twice in succession counts.
async fn never_twice(server: &Server) -> Infallible {
    let mut before = HashSet::new();
    loop {
        let rows =
            server.query("SELECT idempotency_key FROM sys_invocation WHERE status <> 'completed'").await;
        let keys: HashSet<_> =
            rows.iter().map(|row| row["idempotency_key"].as_str().unwrap().to_owned()).collect();
        let still: Vec<_> = keys.intersection(&before).collect();
        let item = |key: &&String| key.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
        let items: HashSet<_> = still.iter().map(item).collect();
        assert_eq!(items.len(), still.len(), "an item runs twice at the same time: {still:?}");
        before = keys;
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn restate_rule_3_a_retry_begins_when_the_attempt_before_it_has_ended_in_the_engine() {
    let server = Server::start().await;
    server.register(worker::here()).await;
    let engine = |server: &Server| {
        builder(server).admin(server.admin()).kill_after(Duration::from_millis(900)).build().unwrap()
    };
    for (name, with_id) in [("one-at-a-time", true), ("one-at-a-time-random", false)] {
        let place = Place::on(&server, name, engine);
        let work = if with_id { place.work.clone() } else { place.engine.handler("Work", "work") };
        let task = lenient(4).timeout_per_attempt(Duration::from_millis(700)).retries(4);
        let task = task.retry_delay(Duration::from_millis(1)).build().unwrap();
        let run = task.over(place.deaf(4)).map_with_context(|cx, item| work.call(cx, item));
        tokio::select! {
            biased;
            result = run => assert_eq!(result.unwrap().summary.timeouts, 20),
            never = never_twice(&server) => match never {},
        }
        place.nothing_goes_on().await;
        assert!(place.count(Event::Began) > 4, "an attempt came to its turn");
    }
}

#[tokio::test]
async fn restate_rule_2_a_handler_that_is_registered_a_while_after_an_outage_is_waited_for() {
    let (server, scene) = (Server::start().await, Scene::new("engine-empty"));
    server.register(worker::here()).await;
    let engine = Restate::builder(server.ingress()).build().unwrap();
    let work = engine.handler::<Output>("Work", "work").run_id(scene.run_id);
    let task = AsyncMapTask::builder().concurrency(8).build().unwrap();
    let items: Vec<_> = (0..24).map(|index| scene.held(index)).collect();
    let run = task.over(items).map_with_context(move |cx, item| work.call(cx, item));
    let running = run.retry_if(RestateError::is_retryable).spawn();
    scene.until(Event::Began, 8).await;
    server.kill();
    server.lose_everything();
    server.revive().await;
    // At the end of this one's time, the others have the same answer.
    let another = engine.handler::<Output>("Work", "work");
    let task = lenient(1).timeout_per_attempt(Duration::from_secs(2)).build().unwrap();
    let run = task.over([scene.item(0)]).map_with_context(|cx, item| another.call(cx, item));
    let errors = run.await.unwrap().errors;
    assert!(
        matches!(errors[&0], ItemError::Failed { error: RestateError::NotFound { .. }, .. }),
        "{errors:?}"
    );
    scene.open();
    server.register(worker::here()).await;
    assert_eq!(running.await.unwrap().results, outputs(24));
    assert_eq!(server.in_flight(scene.run_id).await, Vec::<Value>::new());
}
