//! Rule 1: the key of a call consists of run id, index and attempt, so a run with the same id finds the calls of the first.

use std::time::Duration;

use async_map_task::restate::{Handler, Restate, RestateError};
use async_map_task::{AsyncMapTaskBuilder, ItemContext, ItemError};
use serde_json::Value;

use crate::scene::{Scene, at_once, engine, outputs, run, until};
use crate::server::{self, Server};
use crate::work::{Event, Item, Output, output};

/// Returns the handler of an engine without an admin API, with the run id of the scene.
fn work(server: &Server, scene: &Scene) -> Handler<Output> {
    engine(server).handler("Work", "work").run_id(scene.run_id)
}

/// Simulates the death of a coordinator: drops the run when this many executions have begun, without a message to the engine.
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
    assert_eq!(scene.keys(server).await, ["0.1", "1.1", "2.1"], "the engine knows that they were stopped");

    scene.open();
    assert_eq!(run(at_once(3), items, work).await.results, outputs(6));
    assert_eq!(scene.began(6), [2, 2, 2, 1, 1, 1]);
    assert_eq!(scene.log.counts(Event::Ended, 6), [1; 6]);
}

/// Stops the two items of a dead coordinator's run in the engine, and leaves their outcomes there. The first one is
/// cancelled, the other is killed.
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
async fn restate_rule_1_what_was_stopped_by_hand_runs_again_under_the_next_key() {
    let (server, scene) = (server::shared().await, Scene::new("again-by-hand"));
    stop_by_hand(server, &scene).await;
    for executions in [2, 2] {
        // Without an admin API and without a retry.
        let result = run(at_once(2), scene.items(2), work(server, &scene)).await;
        assert_eq!((result.results, result.summary.retries), (outputs(2), 0));
        assert_eq!(scene.began(2), [executions; 2]);
        assert_eq!(scene.keys(server).await, ["0.1", "0.2", "1.1", "1.2"]);
    }
}

#[tokio::test]
async fn restate_rule_1_two_coordinators_of_a_run_that_was_stopped_agree() {
    const ITEMS: usize = 60;
    let (server, scene) = (server::shared().await, Scene::new("again-both"));
    let items: Vec<_> =
        (0..ITEMS as u64).map(|index| Item { millis: 3_600_000, ..scene.item(index) }).collect();
    run_and_die(at_once(ITEMS), items, server, &scene, ITEMS).await;
    for invocation in server.in_flight(scene.run_id).await {
        let url = format!("{}/invocations/{}/kill", server.admin(), invocation["id"].as_str().unwrap());
        assert!(reqwest::Client::new().patch(url).send().await.unwrap().status().is_success());
    }
    until("the end of all", async || server.in_flight(scene.run_id).await == Vec::<Value>::new()).await;
    let both = [(); 2].map(|()| {
        let engine = Restate::builder(server.ingress()).admin(server.admin()).build().unwrap();
        let work = engine.handler("Work", "work").run_id(scene.run_id);
        tokio::spawn(run(at_once(8), scene.items(ITEMS as u64), work))
    });
    for coordinator in both {
        assert_eq!(coordinator.await.unwrap().results, outputs(ITEMS as u64));
    }
    assert_eq!(scene.began(ITEMS as u64), [2; ITEMS], "once before they were killed, and once for both");
}

#[tokio::test]
async fn restate_rule_1_an_item_that_timed_out_and_then_succeeded_does_not_run_again() {
    let (server, scene) = (server::shared().await, Scene::new("again-timed-out"));
    let engine = Restate::builder(server.ingress()).admin(server.admin());
    let engine = engine.kill_after(Duration::from_millis(50)).build().unwrap();
    let work = engine.handler::<Output>("Work", "work").run_id(scene.run_id);
    let task = at_once(4).retries(1).timeout_per_attempt(Duration::from_secs(1)).build().unwrap();
    let items: Vec<_> = (0..4).map(|index| scene.held(index)).collect();
    let run_it = task.over(items).map_with_context(async |cx, item| {
        if cx.attempt() == 2 {
            scene.until(Event::Dropped, 4).await;
            scene.open();
        }
        work.call(cx, item).await
    });
    let result = run_it.await.unwrap();
    assert_eq!((result.results, result.summary.timeouts), (outputs(4), 4));
    assert_eq!(scene.began(4), [2; 4]);
    assert_eq!(engine.settled().await, 0);

    // Once with an admin API and retries, and once without either.
    let items: Vec<_> = (0..4).map(|index| scene.held(index)).collect();
    for (task, work) in [(at_once(4).retries(1), work.clone()), (at_once(4), self::work(server, &scene))] {
        assert_eq!(run(task, items.clone(), work).await.results, outputs(4));
        assert_eq!(scene.began(4), [2; 4], "what has ended does not run again");
    }
}

#[tokio::test]
async fn restate_rule_1_an_item_that_was_killed_and_then_succeeded_does_not_run_again() {
    let (server, scene) = (server::shared().await, Scene::new("again-killed"));
    let items: Vec<_> = (0..3).map(|index| scene.held(index)).collect();
    let running = tokio::spawn(run(at_once(3).retries(1), items.clone(), work(server, &scene)));
    scene.until(Event::Began, 3).await;
    for invocation in server.in_flight(scene.run_id).await {
        let url = format!("{}/invocations/{}/kill", server.admin(), invocation["id"].as_str().unwrap());
        assert!(reqwest::Client::new().patch(url).send().await.unwrap().status().is_success());
    }
    scene.open();
    let result = running.await.unwrap();
    assert_eq!((result.results, result.summary.retries), (outputs(3), 3));
    for retries in [0, 1] {
        let result = run(at_once(3).retries(retries), items.clone(), work(server, &scene)).await;
        assert_eq!((result.results, result.summary.retries), (outputs(3), 0));
        assert_eq!(scene.began(3), [2; 3], "what has ended does not run again");
    }
}

#[tokio::test]
async fn restate_rule_1_a_function_that_fails_after_its_call_has_the_output_again() {
    let (server, scene) = (server::shared().await, Scene::new("again-after"));
    let work = work(server, &scene);
    let task = at_once(3).retries(2).build().unwrap();
    let run = task.over(scene.items(3)).map_with_context(async |cx: ItemContext, item| {
        let output = work.call(cx.clone(), item).await.map_err(|error| error.to_string())?;
        if cx.attempt() < 3 { Err("the disk is full".to_owned()) } else { Ok(output) }
    });
    let result = run.await.unwrap();
    assert_eq!((result.results, result.summary.retries), (outputs(3), 6));
    assert_eq!(scene.began(3), [1; 3]);
    assert_eq!(scene.keys(server).await, ["0.1", "1.1", "2.1"]);
}

#[tokio::test]
async fn restate_rule_1_a_handler_without_a_run_id_shares_nothing_between_its_runs() {
    let (server, scene) = (server::shared().await, Scene::new("again-random"));
    let engine = engine(server);
    let handler = engine.handler::<Output>("Work", "work");
    // As a service keeps it in its state, for one run after another, and for two at once.
    for executions in [1, 2] {
        assert_eq!(run(at_once(3), scene.items(3), handler.clone()).await.results, outputs(3));
        assert_eq!(scene.began(3), [executions; 3]);
    }
    let echo = engine.handler::<Item>("Work", "echo");
    let names = |names: [u64; 2]| names.map(|index| scene.item(index)).to_vec();
    let task = at_once(2).build().unwrap();
    let echoed = async |items: Vec<Item>| {
        let run = task.over(items).map_with_context(|cx, item| echo.call(cx, item));
        run.await.unwrap().into_successful_results().into_iter().map(|item| item.index).collect::<Vec<_>>()
    };
    let both = tokio::join!(echoed(names([0, 1])), echoed(names([2, 3])));
    assert_eq!(both, (vec![0, 1], vec![2, 3]));
}

#[tokio::test]
async fn restate_rule_1_handlers_with_the_same_run_id_do_not_share() {
    let (server, scene) = (server::shared().await, Scene::new("again-two"));
    let engine = engine(server);
    let work = engine.handler::<Output>("Work", "work").run_id(scene.run_id);
    let echo = engine.handler::<Item>("Work", "echo").run_id(scene.run_id);
    let task = at_once(1).build().unwrap();
    let call = async |cx: ItemContext, item: Item| {
        let echoed = echo.call(cx.clone(), item.clone()).await?;
        Ok::<_, RestateError>((work.call(cx, item).await?, echoed.index))
    };
    let result = task.over(scene.items(2)).map_with_context(&call).await.unwrap();
    assert_eq!(result.into_successful_results(), [(output(0), 0), (output(1), 1)]);
    assert_eq!(scene.keys(server).await, ["0.1", "0.1", "1.1", "1.1"]);
}
