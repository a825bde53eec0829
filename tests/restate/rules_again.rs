//! Rule 1: the key of a call is run id, index and attempt, so a run with the same id finds what is there.

use std::time::Duration;

use async_map_task::restate::{Handler, Restate, RestateError};
use async_map_task::{AsyncMapTask, AsyncMapTaskBuilder, ItemError, MapTaskResult};
use serde_json::Value;

use crate::scene::{Scene, engine, outputs, until};
use crate::server::{self, Server};
use crate::work::{Event, Item, Output, output};

fn at_once(concurrency: usize) -> AsyncMapTaskBuilder {
    AsyncMapTask::builder().concurrency(concurrency).retry_delay(Duration::from_millis(1))
}

/// The handler of an engine that has no admin API, and with the run id of the scene.
fn work(server: &Server, scene: &Scene) -> Handler<Output> {
    engine(server).handler("Work", "work").run_id(scene.run_id)
}

/// A run that judges nothing.
async fn run(
    task: AsyncMapTaskBuilder,
    items: Vec<Item>,
    work: Handler<Output>,
) -> MapTaskResult<Output, RestateError> {
    let task = task.min_success_ratio(0.0).build().unwrap();
    let run = task.over(items).map_with_context(|cx, item| work.call(cx, item));
    run.retry_if(RestateError::is_retryable).await.unwrap()
}

/// A coordinator that dies: its run is cut off when so many executions have begun, and tells the engine nothing.
async fn run_and_die(task: AsyncMapTaskBuilder, items: Vec<Item>, server: &Server, scene: &Scene, at: usize) {
    let coordinator = tokio::spawn(run(task, items, work(server, scene)));
    scene.until(Event::Began, at).await;
    coordinator.abort();
    assert!(coordinator.await.unwrap_err().is_cancelled());
}

#[tokio::test]
async fn restate_rule_1_the_key_is_run_id_index_and_attempt() {
    let (server, scene) = (server::shared().await, Scene::new("again-key"));
    let mut items = scene.items(12);
    items[1].fails = 1;
    items[11].fails = 2;
    let result = run(at_once(12).retries(2), items, work(server, &scene)).await;
    assert_eq!((result.results, result.summary.retries), (outputs(12), 3));

    let mut keys: Vec<_> = (0..12).map(|index| format!("{index}.1")).collect();
    keys.extend(["1.2", "11.2", "11.3"].map(str::to_owned));
    keys.sort();
    assert_eq!(scene.keys(server).await, keys);
}

#[tokio::test]
async fn restate_rule_1_what_has_finished_comes_back_and_does_not_run() {
    let (server, scene) = (server::shared().await, Scene::new("again-finished"));
    let mut items = scene.items(20);
    items[3].fails = 1;
    items[7].fails = u64::MAX;
    let mut executions = vec![1; 20];
    (executions[3], executions[7]) = (2, 2);

    let mut seen = Vec::new();
    for _ in 0..2 {
        let result = run(at_once(8).retries(1), items.clone(), work(server, &scene)).await;
        assert_eq!((result.successes(), result.failures(), result.summary.retries), (19, 1, 2));
        let ItemError::Failed {
            error: RestateError::Handler { code: 418, message, invocation_id },
            attempts: 2,
        } = &result.errors[&7]
        else {
            panic!("{:?}", result.errors);
        };
        seen.push((result.results.clone(), message.clone(), invocation_id.clone()));
        assert_eq!(scene.began(20), executions, "the second run has none run");
    }
    assert_eq!(seen[0], seen[1], "the very invocation that failed, not one like it");
}

#[tokio::test]
async fn restate_rule_1_what_still_runs_is_attached_to_and_the_rest_is_called() {
    let (server, scene) = (server::shared().await, Scene::new("again-attached"));
    let items: Vec<_> =
        (0..12).map(|index| if index < 4 { scene.item(index) } else { scene.held(index) }).collect();
    run_and_die(at_once(4), items.clone(), server, &scene, 8).await;
    let began = |begun| (0..12).map(|index| u64::from(index < begun)).collect::<Vec<_>>();
    assert_eq!(scene.began(12), began(8), "four have finished, four are running, four were not called");
    assert_eq!(server.in_flight(scene.run_id).await.len(), 4);

    let again = tokio::spawn(run(at_once(12), items, work(server, &scene)));
    scene.until(Event::Began, 12).await;
    assert_eq!(server.in_flight(scene.run_id).await.len(), 8);
    assert!(!again.is_finished());
    scene.open();
    assert_eq!(again.await.unwrap().results, outputs(12));
    assert_eq!(scene.began(12), began(12));
}

#[tokio::test]
async fn restate_rule_1_what_a_stopped_run_cancelled_runs_again() {
    let (server, scene) = (server::shared().await, Scene::new("again-stopped"));
    let builder = Restate::builder(server.ingress()).admin(server.admin());
    let engine = builder.kill_after(Duration::from_millis(50)).build().unwrap();
    let work = engine.handler("Work", "work").run_id(scene.run_id);
    let items: Vec<_> = (0..6).map(|index| scene.held(index)).collect();

    let stopped = tokio::spawn(run(at_once(3), items.clone(), work.clone()));
    scene.until(Event::Began, 3).await;
    stopped.abort();
    assert!(stopped.await.unwrap_err().is_cancelled());
    assert_eq!(engine.settled().await, 0);
    assert_eq!(scene.keys(server).await, Vec::<String>::new(), "the engine has forgotten them");

    scene.open();
    assert_eq!(run(at_once(3), items, work).await.results, outputs(6));
    assert_eq!(scene.began(6), [2, 2, 2, 1, 1, 1]);
    assert_eq!(scene.log.counts(Event::Ended, 6), [1; 6]);
}

/// Stops the two items of a dead coordinator's run in the engine, the first one with a cancel, the other with a kill,
/// and leaves their outcomes there.
async fn stop_by_hand(server: &Server, scene: &Scene) {
    let items = (0..2).map(|index| Item { heeds: true, millis: 3_600_000, ..scene.item(index) });
    run_and_die(at_once(2), items.collect(), server, scene, 2).await;
    for (key, stop) in [("0.1", "cancel"), ("1.1", "kill")] {
        let id = scene.invocation_id(server, key).await;
        let url = format!("{}/invocations/{id}/{stop}", server.admin());
        let reply = reqwest::Client::new().patch(url).send().await.unwrap();
        assert!(reply.status().is_success(), "{stop}: {}", reply.status());
    }
    until("the end of both", async || server.in_flight(scene.run_id).await == Vec::<Value>::new()).await;
    assert_eq!(scene.keys(server).await, ["0.1", "1.1"]);
}

#[tokio::test]
async fn restate_rule_1_what_was_cancelled_and_not_cleared_away_runs_again() {
    let (server, scene) = (server::shared().await, Scene::new("again-uncleared"));
    stop_by_hand(server, &scene).await;
    let engine = Restate::builder(server.ingress()).admin(server.admin()).build().unwrap();
    let work = engine.handler("Work", "work").run_id(scene.run_id);
    let result = run(at_once(2), scene.items(2), work).await;
    assert_eq!((result.results, result.summary.retries), (outputs(2), 0));
    assert_eq!(scene.began(2), [2, 2]);
    assert_eq!(scene.keys(server).await, ["0.1", "1.1"]);
}

#[tokio::test]
async fn restate_rule_1_what_was_cancelled_is_an_error_where_it_cannot_be_cleared_away() {
    let (server, scene) = (server::shared().await, Scene::new("again-cancelled"));
    stop_by_hand(server, &scene).await;
    let result = run(at_once(2), scene.items(2), work(server, &scene)).await;
    assert_eq!(result.successes(), 0);
    for (index, key, expected) in [(0, "0.1", "cancelled"), (1, "1.1", "killed")] {
        let ItemError::Failed { error: RestateError::Cancelled { message, invocation_id }, attempts: 1 } =
            &result.errors[&index]
        else {
            panic!("{:?}", result.errors);
        };
        assert_eq!(message, expected);
        assert_eq!(*invocation_id, scene.invocation_id(server, key).await);
    }
    assert_eq!(scene.began(2), [1, 1]);

    let result = run(at_once(2).retries(1), scene.items(2), work(server, &scene)).await;
    assert_eq!((result.results, result.summary.retries), (outputs(2), 2), "another attempt has another key");
    assert_eq!(scene.began(2), [2, 2]);
}

#[tokio::test]
async fn restate_rule_1_handlers_without_a_run_id_share_nothing_and_clones_share_all() {
    let (server, scene) = (server::shared().await, Scene::new("again-random"));
    let engine = engine(server);
    let [first, second] = [(); 2].map(|()| engine.handler::<Output>("Work", "work"));
    for (handler, executions) in [(first.clone(), 1), (second.clone(), 2), (first, 2), (second, 2)] {
        assert_eq!(run(at_once(3), scene.items(3), handler).await.results, outputs(3));
        assert_eq!(scene.began(3), [executions; 3]);
    }
}

#[tokio::test]
async fn restate_rule_1_handlers_with_the_same_run_id_do_not_share() {
    let (server, scene) = (server::shared().await, Scene::new("again-two"));
    let engine = engine(server);
    let work = engine.handler::<Output>("Work", "work").run_id(scene.run_id);
    let echo = engine.handler::<Item>("Work", "echo").run_id(scene.run_id);
    let task = at_once(1).build().unwrap();
    let call = async |cx: async_map_task::ItemContext, item: Item| {
        let echoed = echo.call(cx.clone(), item.clone()).await?;
        Ok::<_, RestateError>((work.call(cx, item).await?, echoed.index))
    };
    let result = task.over(scene.items(2)).map_with_context(&call).await.unwrap();
    assert_eq!(result.into_successful_results(), [(output(0), 0), (output(1), 1)]);
    assert_eq!(scene.keys(server).await, ["0.1", "0.1", "1.1", "1.1"]);
}
