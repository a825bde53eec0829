//! Rule 3: the end of an invocation that no caller waits for any more, in each state that it can be in at that moment.

use std::future::pending;
use std::time::Duration;

use async_map_task::restate::Restate;
use async_map_task::{AsyncMapTask, MapTaskResult};
use restate_sdk::prelude::{Context, ContextSideEffects, Endpoint, HandlerResult, HttpServer, Json, service};
use serde_json::Value;
use tokio::join;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

use crate::server::{LONGEST, Server};
use crate::support::{Place, builder, drop_after, is_stopped, lenient, until};
use crate::work::{Event, Item, Log, Output, output};

/// Returns an engine that kills nothing: a cancelled invocation ends of its own accord, or not at all.
fn never_killing(server: &Server) -> Restate {
    builder(server).admin(server.admin()).kill_after(Duration::MAX).build().unwrap()
}

#[tokio::test]
async fn restate_rule_3_a_handler_that_heeds_its_cancelling_is_not_killed() {
    let place = Place::with("heeding", never_killing).await;
    let task = AsyncMapTask::builder().concurrency(16).build().unwrap();
    let run = task.over(place.heeding(16)).map_with_context(|cx, item| place.work.call(cx, item));
    place.drop_when_begun(16, run.into_future()).await;
    assert_eq!(place.nothing_goes_on().await, 16);
    assert_eq!(place.kept().await, [""; 0]);
}

#[tokio::test]
async fn restate_rule_3_handlers_that_are_deaf_do_not_hold_up_the_others() {
    let place = Place::with("held-up", never_killing).await;
    let task = AsyncMapTask::builder().concurrency(64).build().unwrap();
    // As many as are cancelled at the same time.
    let gates: Vec<_> = (0..64).collect();
    let deaf = task.over(place.some_at_the_gate(64, &gates));
    let deaf = deaf.map_with_context(|cx, item| place.work.call(cx, item));
    place.drop_when_begun(64, deaf.into_future()).await;
    let others = place.work.clone().run_id(format!("{}.others", place.run_id));
    let heeding = task.over(place.heeding(8)).map_with_context(|cx, item| others.call(cx, item));
    place.drop_when_begun(64 + 8, heeding.into_future()).await;
    until("those that heed it have ended", || place.count(Event::Dropped) == 8).await;
    place.open_the_gate();
    assert_eq!(place.nothing_goes_on().await, 8);
}

#[tokio::test]
async fn restate_rule_3_an_output_that_is_too_large_is_no_invocation_that_goes_on() {
    let limited = |server: &Server| {
        let builder = builder(server).admin(server.admin()).kill_after(Duration::MAX);
        builder.message_limit(1_000).build().unwrap()
    };
    let place = Place::with("large", limited).await;
    let worker = serve(&place, Endpoint::builder().bind(Verbose).build()).await;
    let large = place.engine.handler::<String>("Verbose", "large").run_id(&place.run_id);
    let task = AsyncMapTask::builder().concurrency(4).build().unwrap();
    let items = place.some_at_the_gate(4, &[0, 1, 2, 3]);
    let run = task.over(items).map_with_context(|cx, item| large.call(cx, item));
    place.drop_when_begun(4, run.into_future()).await;
    place.open_the_gate();
    place.nothing_goes_on().await;
    assert_eq!(place.kept().await, ["0.1", "1.1", "2.1", "3.1"]);
    worker.shutdown_background();
}

#[tokio::test]
async fn restate_rule_3_a_handler_that_is_deaf_in_a_step_is_killed() {
    let place = Place::new("step").await;
    let worker = serve(&place, Endpoint::builder().bind(Passing).build()).await;
    let step = place.engine.handler::<Output>("Passing", "step").run_id(&place.run_id);
    let task = AsyncMapTask::builder().concurrency(8).build().unwrap();
    let run = task.over(place.deaf(8)).map_with_context(|cx, item| step.call(cx, item));
    place.drop_when_begun(8, run.into_future()).await;
    assert_eq!(place.nothing_goes_on().await, 8);
    assert_eq!(place.kept().await, [""; 0]);
    worker.shutdown_background();
}

#[tokio::test]
async fn restate_rule_3_what_waits_for_a_worker_that_is_gone_is_stopped() {
    let place = Place::new("absent").await;
    // Another name, because a service has only one deployment at a time.
    let worker = serve(&place, Endpoint::builder().bind(Absent).build()).await;
    worker.shutdown_background();
    let call = place.engine.handler::<Output>("Absent", "call").run_id(&place.run_id);
    let task = AsyncMapTask::builder().concurrency(8).build().unwrap();
    let run = task.over(place.deaf(8)).map_with_context(|cx, item| call.call(cx, item));
    tokio::select! {
        biased;
        ended = run => panic!("nobody has done it: {:?}", ended.err()),
        () = in_state(&place, "backing-off", 8) => {}
    }
    place.nothing_goes_on().await;
    assert_eq!(place.count(Event::Began), 0);
    assert_eq!(place.kept().await, [""; 0]);
}

#[tokio::test]
async fn restate_rule_3_what_waits_for_another_try_of_the_engine_is_stopped() {
    let place = Place::new("backing-off").await;
    let task = AsyncMapTask::builder().concurrency(8).build().unwrap();
    let run = task.over(stumbling(&place, 8)).map_with_context(|cx, item| place.work.call(cx, item));
    tokio::select! {
        biased;
        ended = run => panic!("it never ends: {:?}", ended.err()),
        () = in_state(&place, "backing-off", 8) => {}
    }
    place.nothing_goes_on().await;
    assert_eq!(place.kept().await, [""; 0]);
}

#[tokio::test]
async fn restate_rule_3_what_is_paused_is_stopped() {
    let place = Place::new("paused").await;
    let task = AsyncMapTask::builder().concurrency(4).build().unwrap();
    let run = task.over(stumbling(&place, 4)).map_with_context(|cx, item| place.work.call(cx, item));
    let pause = async {
        in_state(&place, "backing-off", 4).await;
        for invocation in place.server.in_flight(&place.run_id).await {
            let url =
                format!("{}/invocations/{}/pause", place.server.admin(), invocation["id"].as_str().unwrap());
            let reply = reqwest::Client::new().patch(url).send().await.unwrap();
            assert!(reply.status().is_success(), "{}", reply.text().await.unwrap());
        }
        in_state(&place, "paused", 4).await;
    };
    tokio::select! {
        biased;
        ended = run => panic!("it never ends: {:?}", ended.err()),
        () = pause => {}
    }
    place.nothing_goes_on().await;
    assert_eq!(place.kept().await, [""; 0]);
}

#[tokio::test]
async fn restate_rule_3_what_had_ended_before_the_cancelling_is_kept() {
    let place = Place::new("kept").await;
    let task = AsyncMapTask::builder().concurrency(8).build().unwrap();
    let ends = [1, 2, 5, 6];
    let items = place.some_at_the_gate(8, &ends);
    // The worker has ended them, but the call may not have the answer yet when it is dropped.
    let run = task.over(items.clone()).map_with_context(|cx, item| place.work.call(cx, item));
    let stop = async {
        place.begun(8).await;
        place.open_the_gate();
        // Waits until the engine has all four outcomes. The run may have received some of them, or none.
        in_state(&place, "running", 4).await;
    };
    tokio::select! {
        biased;
        () = stop => {}
        ended = run => panic!("it never ends: {:?}", ended.err()),
    }
    assert_eq!(place.nothing_goes_on().await, 4);
    assert_eq!(place.kept().await, ["1.1", "2.1", "5.1", "6.1"]);

    let items = items.into_iter().map(|item| Item { millis: 0, ..item });
    let result = task.over(items).map_with_context(|cx, item| place.work.call(cx, item)).await.unwrap();
    assert_eq!(result.into_successful_results(), (0..8).map(output).collect::<Vec<_>>());
    assert_eq!(place.log.counts(Event::Began, 8), [2, 1, 1, 2, 2, 1, 1, 2]);
}

#[tokio::test]
async fn restate_rule_3_without_an_admin_the_items_run_on_and_the_next_run_has_them() {
    let place = Place::with("without-admin", |server| builder(server).build().unwrap()).await;
    let task = AsyncMapTask::builder().concurrency(8).build().unwrap();
    let items = place.some_at_the_gate(8, &[0, 1, 2, 3, 4, 5, 6, 7]);
    let run = task.over(items.clone()).map_with_context(|cx, item| place.work.call(cx, item));
    place.drop_when_begun(8, run.into_future()).await;
    assert_eq!(place.engine.settled().await, 0);
    assert_eq!(place.server.in_flight(&place.run_id).await.len(), 8);

    let run = task.over(items).map_with_context(|cx, item| place.work.call(cx, item));
    let (result, ()) = join!(run, async {
        // Gives its calls time to attach. Later calls find the outcomes, and nothing below changes.
        drop_after(Duration::from_millis(20), pending::<()>()).await;
        place.open_the_gate();
    });
    assert_eq!(result.unwrap().into_successful_results(), (0..8).map(output).collect::<Vec<_>>());
    assert_eq!(place.nothing_goes_on().await, 0);
    assert_eq!(place.log.counts(Event::Began, 8), [1; 8]);
}

#[tokio::test]
async fn restate_rule_3_what_was_stopped_by_others_runs_again_in_the_next_run() {
    let place = Place::new("by-others").await;
    let task = lenient(8).build().unwrap();
    let run = task.over(place.deaf(8)).map_with_context(|cx, item| place.work.call(cx, item));
    let (result, ()) = join!(run, async {
        place.begun(8).await;
        for invocation in place.server.in_flight(&place.run_id).await {
            let url =
                format!("{}/invocations/{}/kill", place.server.admin(), invocation["id"].as_str().unwrap());
            assert!(reqwest::Client::new().patch(url).send().await.unwrap().status().is_success());
        }
    });
    let result: MapTaskResult<Output, _> = result.unwrap();
    assert!(result.errors.values().all(is_stopped), "{result:?}");
    assert_eq!((place.kept().await.len(), place.stopped().await.len()), (0, 8));

    let items = place.deaf(8).into_iter().map(|item| Item { millis: 0, ..item });
    let result = task.over(items).map_with_context(|cx, item| place.work.call(cx, item)).await.unwrap();
    assert_eq!(result.into_successful_results(), (0..8).map(output).collect::<Vec<_>>());
    assert_eq!(place.log.counts(Event::Began, 8), [2; 8]);
}

/// Returns items that the engine must retry again and again.
fn stumbling(place: &Place<'_>, count: u64) -> Vec<Item> {
    let stumble = |item| Item { millis: 0, stumbles: u64::MAX, ..item };
    place.deaf(count).into_iter().map(stumble).collect()
}

/// Waits until this many invocations of a run are in this state.
async fn in_state(place: &Place<'_>, state: &str, count: usize) {
    let is_so = |invocation: &&Value| invocation["status"] == state;
    let wait = async {
        while place.server.in_flight(&place.run_id).await.iter().filter(is_so).count() != count {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONGEST, wait).await.expect("as many are in this state as there are items");
}

/// Starts a worker for one test, on a separate runtime that the test can shut down.
async fn serve(place: &Place<'_>, endpoint: Endpoint) -> Runtime {
    let runtime = Runtime::new().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, listener) = (listener.local_addr().unwrap().port(), listener.into_std().unwrap());
    runtime.spawn(async { HttpServer::new(endpoint).serve(TcpListener::from_std(listener).unwrap()).await });
    place.server.register(port).await;
    runtime
}

struct Absent;

#[service]
impl Absent {
    #[handler]
    async fn call(&self, _ctx: Context<'_>, item: Json<Item>) -> HandlerResult<Json<Output>> {
        Ok(Json(output(item.0.index)))
    }
}

struct Passing;

#[service]
impl Passing {
    /// Never completes a step.
    #[handler]
    async fn step(&self, ctx: Context<'_>, item: Json<Item>) -> HandlerResult<Json<Output>> {
        let Json(item) = item;
        let log = Log::of(&item);
        log.write(Event::Began, item.index);
        let _dropped = WriteOnDrop(&log, item.index);
        ctx.run(|| async {
            pending::<()>().await;
            Ok(())
        })
        .await?;
        Ok(Json(output(item.index)))
    }
}

struct Verbose;

#[service]
impl Verbose {
    /// Returns more than its caller accepts.
    #[handler]
    async fn large(&self, _ctx: Context<'_>, item: Json<Item>) -> HandlerResult<Json<String>> {
        let Json(item) = item;
        let log = Log::of(&item);
        log.write(Event::Began, item.index);
        until("the gate is open", || item.gate.as_ref().is_some_and(|gate| gate.exists())).await;
        log.write(Event::Ended, item.index);
        Ok(Json("x".repeat(10_000)))
    }
}

struct WriteOnDrop<'a>(&'a Log, u64);

impl Drop for WriteOnDrop<'_> {
    fn drop(&mut self) {
        self.0.write(Event::Dropped, self.1);
    }
}
