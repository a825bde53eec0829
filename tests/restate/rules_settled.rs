//! Rule 3: the calls that `settled` waits for, and the result that it returns.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_map_task::{AsyncMapTask, FailureReason};
use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::routing::any;
use futures::future::{BoxFuture, join_all, select};
use futures::{FutureExt, poll};
use serde_json::Value;
use tokio::join;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::ports;
use crate::server::{self, Server};
use crate::support::{Place, builder, until};
use crate::warnings::Warnings;
use crate::work::{Event, Output};
use crate::worker;

/// Far more than the number of calls that are cancelled at the same time.
const MANY: u64 = 600;

/// The number that the library documents.
const CANCELLED_AT_ONCE: usize = 64;

#[tokio::test]
async fn restate_rule_3_settled_has_nothing_to_wait_for_where_nothing_was_stopped() {
    let place = Place::new("nothing").await;
    assert_eq!(place.engine.settled().now_or_never(), Some(0));
    assert_eq!(place.engine.settled().now_or_never(), Some(0));
    let task = AsyncMapTask::builder().concurrency(4).build().unwrap();
    let items = place.some_at_the_gate(4, &[0, 1, 2, 3]);
    place.open_the_gate();
    task.over(items).map_with_context(|cx, item| place.work.call(cx, item)).await.unwrap();
    assert_eq!(place.engine.settled().now_or_never(), Some(0));
}

#[tokio::test]
async fn restate_rule_3_settled_waits_for_each_run_and_in_each_task() {
    let place = Place::new("again").await;
    let task = AsyncMapTask::builder().concurrency(8).build().unwrap();
    for round in 1..=2 {
        let run = task.over(place.deaf(8)).map_with_context(|cx, item| place.work.call(cx, item));
        place.drop_when_begun(8 * round, run.into_future()).await;
        let waiting = (0..4).map(|_| {
            let engine = place.engine.clone();
            tokio::spawn(async move { engine.settled().await })
        });
        for uncancelled in join_all(waiting).await {
            assert_eq!(uncancelled.unwrap(), 0);
            assert_eq!(place.server.in_flight(&place.run_id).await.len(), 0);
        }
        assert_eq!(place.nothing_goes_on().await, 8 * round);
    }
}

#[tokio::test]
async fn restate_rule_3_settled_waits_for_what_is_under_way() {
    let place = Place::new("under-way").await;
    let task = AsyncMapTask::builder().concurrency(4).build().unwrap();
    let work = place.work.clone();
    let items = place.some_at_the_gate(4, &[0, 1, 2, 3]);
    let run = task.over(items).map_with_context(move |cx, item| work.call(cx, item)).spawn();
    place.begun(4).await;
    let mut settled = pin!(place.engine.settled());
    assert!(poll!(settled.as_mut()).is_pending());
    place.open_the_gate();
    assert_eq!(settled.await, 0);
    assert_eq!(run.await.unwrap().successes(), 4);
}

#[tokio::test]
async fn restate_rule_3_a_handler_that_is_not_there_has_left_nothing_to_cancel() {
    let place = Place::new("not-there").await;
    let nowhere = place.engine.handler::<Output>("Work", "nowhere").run_id(&place.run_id);
    let task = AsyncMapTask::builder().concurrency(32).build().unwrap();
    // The first answer ends the run, and the other calls are dropped.
    let run = task.over(place.deaf(32)).map_with_context(|cx, item| nowhere.call(cx, item));
    assert_eq!(run.await.unwrap_err().summary().failures, 1);
    assert_eq!(place.engine.settled().await, 0);
}

#[tokio::test]
async fn restate_rule_3_a_server_that_is_away_is_told_when_it_is_back() {
    let server = Server::start().await;
    server.register(worker::here()).await;
    let engine = |server: &Server| builder(server).admin(server.admin()).build().unwrap();
    let place = Place::on(&server, "server-away", engine);
    let task = AsyncMapTask::builder().concurrency(8).build().unwrap();
    let run = task.over(place.deaf(8)).map_with_context(|cx, item| place.work.call(cx, item));
    let mut run = Box::pin(run.into_future());
    place.drop_when_begun(8, &mut run).await;
    server.kill();
    drop(run);
    let mut settled = pin!(place.engine.settled());
    assert!(poll!(settled.as_mut()).is_pending());
    server.revive().await;
    assert_eq!(settled.await, 0);
    place.nothing_goes_on().await;
    assert_eq!(place.kept().await, [""; 0]);
}

#[tokio::test]
async fn restate_rule_3_an_admin_that_is_away_is_waited_for_once_and_not_for_each() {
    let away = format!("http://127.0.0.1:{}", ports::free());
    let retry_time = Duration::from_secs(1);
    let engine = |server: &Server| builder(server).admin(away).retry_time(retry_time).build().unwrap();
    let place = Place::with("admin-away-for-many", engine).await;
    let count = 4 * CANCELLED_AT_ONCE;
    stop(&place, count).await;
    let began = Instant::now();
    assert_eq!(place.engine.settled().await, count);
    assert!(began.elapsed() < 3 * retry_time, "{:?}", began.elapsed());
    clear_away(&place).await;
}

#[tokio::test]
async fn restate_rule_3_many_are_cancelled_a_few_at_a_time() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    // The first calls are held until the limit is reached, and a while longer, in which no other call may come.
    let (full, _) = watch::channel(false);
    let (full, counted) = (Arc::new(full), (Arc::clone(&now), Arc::clone(&most)));
    let hold = move |is_cancel: bool| {
        let ((now, most), full) = (counted.clone(), Arc::clone(&full));
        async move {
            if !is_cancel {
                return;
            }
            let count = now.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(count, Ordering::SeqCst);
            if count == CANCELLED_AT_ONCE {
                sleep(Duration::from_millis(200)).await;
                full.send_replace(true);
            }
            full.subscribe().wait_for(|full| *full).await.unwrap();
            now.fetch_sub(1, Ordering::SeqCst);
        }
    };
    let server = server::shared().await;
    let admin = server.admin();
    let between = move |method: Method, uri: Uri| {
        let (hold, url) = (hold.clone(), format!("{admin}{uri}"));
        async move {
            hold(uri.path().ends_with("/cancel")).await;
            let reply = reqwest::Client::new().request(method, url).send().await.unwrap();
            reply.status()
        }
    };
    let url = serve_admin(Router::new().fallback(any(between))).await;
    let engine = move |server: &Server| builder(server).admin(url).build().unwrap();
    let place = Place::with("many", engine).await;
    let task = AsyncMapTask::builder().concurrency(MANY as usize).build().unwrap();
    let run = task.over(place.heeding(MANY)).map_with_context(|cx, item| place.work.call(cx, item));
    place.drop_when_begun(MANY as usize, run.into_future()).await;
    assert_eq!(place.nothing_goes_on().await, MANY as usize);
    assert_eq!(place.kept().await, [""; 0]);
    assert_eq!(most.load(Ordering::SeqCst), CANCELLED_AT_ONCE);
}

#[tokio::test]
async fn restate_rule_3_an_admin_that_is_away_holds_up_no_run_and_is_counted() {
    let (warnings, _listening) = Warnings::listen();
    let away = format!("http://127.0.0.1:{}", ports::free());
    let retry_time = Duration::from_secs(2);
    let engine = |server: &Server| builder(server).admin(away).retry_time(retry_time).build().unwrap();
    let place = Place::with("admin-away", engine).await;
    let took = stop(&place, 8).await;
    assert!(took < retry_time, "the run waited for the admin API: {took:?}");
    assert_eq!(place.engine.settled().await, 8);
    // One for each key, and one for the server.
    assert_eq!(warnings.count("unavailable"), 8 + 1);
    clear_away(&place).await;
}

#[tokio::test]
async fn restate_rule_3_an_admin_that_refuses_is_counted() {
    for (name, status) in [("forbidden", StatusCode::FORBIDDEN), ("teapot", StatusCode::IM_A_TEAPOT)] {
        let (warnings, _listening) = Warnings::listen();
        let refuse = Router::new().fallback(any(move || async move { status }));
        let url = serve_admin(refuse).await;
        let engine = |server: &Server| builder(server).admin(url).build().unwrap();
        let place = Place::with(&format!("admin-{name}"), engine).await;
        stop(&place, 4).await;
        assert_eq!(place.engine.settled().await, 4);
        // Each names its key.
        assert_eq!(warnings.count(&format!("{}.", place.run_id)), 4);
        clear_away(&place).await;
    }
}

#[test]
fn restate_rule_3_a_call_that_is_dropped_with_its_runtime_or_after_it_does_not_panic() {
    let outer = Runtime::new().unwrap();
    let place = outer.block_on(Place::new("runtime"));
    let task = AsyncMapTask::builder().concurrency(8).build().unwrap();
    let (sender, panics) = mpsc::channel();
    let run = || {
        let work = place.work.clone();
        let run = task.over(place.deaf(8)).map_with_context(move |cx, item| work.call(cx, item));
        WatchedDrop { run: Some(run.into_future().map(drop).boxed()), panics: sender.clone() }
    };
    // Both call the same items, so each has eight calls that the engine has.
    let (with_it, mut after_it) = (run(), run());
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        tokio::spawn(with_it);
        select(&mut after_it, pin!(place.begun(8))).await;
    });
    drop(runtime);
    drop(after_it);
    assert_eq!([panics.try_recv(), panics.try_recv()], [Ok(false), Ok(false)]);
    outer.block_on(clear_away(&place));
}

/// A run that sends `true` if it panics when it is dropped.
struct WatchedDrop {
    run: Option<BoxFuture<'static, ()>>,
    panics: mpsc::Sender<bool>,
}

impl Future for WatchedDrop {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.run.as_mut().unwrap().poll_unpin(cx)
    }
}

impl Drop for WatchedDrop {
    fn drop(&mut self) {
        let run = self.run.take();
        let panicked = catch_unwind(AssertUnwindSafe(|| drop(run))).is_err();
        self.panics.send(panicked).unwrap();
    }
}

/// Stops a run in an engine that cannot cancel its invocations. Returns the time that this took.
async fn stop(place: &Place<'_>, count: usize) -> Duration {
    let token = CancellationToken::new();
    let task = AsyncMapTask::builder().concurrency(count).build().unwrap();
    let run = task.over(place.deaf(count as u64)).map_with_context(|cx, item| place.work.call(cx, item));
    let run = run.cancellation_token(token.clone());
    let (ended, began) = join!(async { (run.await, Instant::now()) }, async {
        place.begun(count).await;
        token.cancel();
        Instant::now()
    });
    assert!(matches!(ended.0.unwrap_err().reason(), FailureReason::Cancelled));
    ended.1 - began
}

/// Stops the remaining invocations by stopping the run once more, which is possible with its id alone.
async fn clear_away(place: &Place<'_>) {
    let engine = builder(place.server).admin(place.server.admin()).build().unwrap();
    let work = engine.handler::<Output>("Work", "work").run_id(&place.run_id);
    let count = place.count(Event::Began) as u64;
    let task = AsyncMapTask::builder().concurrency(count as usize).build().unwrap();
    let called = Cell::new(0);
    let run = task.over(place.deaf(count)).map_with_context(|cx, item| {
        called.set(called.get() + 1);
        work.call(cx, item)
    });
    let all_called = pin!(until("each is called once more", || called.get() == count));
    select(Box::pin(run.into_future()), all_called).await;
    assert_eq!(engine.settled().await, 0);
    assert_eq!(place.server.in_flight(&place.run_id).await, Vec::<Value>::new());
}

/// Serves an admin API of the test at this URL.
async fn serve_admin(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}
