//! Rule 5: a call that was in flight may run twice, and no other may.

use async_map_task::AsyncMapTask;
use async_map_task::restate::RestateError;

use crate::relay::Relay;
use crate::scene::{Scene, engine, outputs, until};
use crate::server::Server;
use crate::work::{Event, Item, Output};
use crate::worker;

const ITEMS: u64 = 20;
const HELD: std::ops::Range<u64> = 8..12;

#[tokio::test]
async fn restate_rule_5_what_was_in_flight_when_its_worker_was_cut_off_runs_twice() {
    let (server, scene) = (Server::start().await, Scene::new("twice"));
    let mut way_to_worker = Relay::to(worker::here()).await;
    server.register(way_to_worker.port()).await;
    let work = engine(&server).handler::<Output>("Work", "work").run_id(scene.run_id);
    let items: Vec<Item> = (0..ITEMS)
        .map(|index| if HELD.contains(&index) { scene.held(index) } else { scene.item(index) })
        .collect();
    let task = AsyncMapTask::builder().concurrency(HELD.count()).retries(3).build().unwrap();
    let run = task.over(items).map_with_context(move |cx, item| work.call(cx, item));
    let running = run.retry_if(RestateError::is_retryable).spawn();

    scene.until(Event::Began, HELD.end as usize).await;
    let before: Vec<_> = (0..ITEMS).map(|index| u64::from(index < HELD.end)).collect();
    assert_eq!(scene.began(ITEMS), before, "the held ones fill the run");
    way_to_worker.cut().await;
    way_to_worker.restore().await;
    let both = HELD.end as usize + HELD.count();
    until("the engine has them run again", async || scene.log.events().len() >= both).await;
    scene.until(Event::Began, both).await;
    scene.open();

    let result = running.await.unwrap();
    assert_eq!((result.results, result.summary.retries), (outputs(ITEMS), 0), "one output each, in order");
    let executions: Vec<_> = (0..ITEMS).map(|index| 1 + u64::from(HELD.contains(&index))).collect();
    assert_eq!(scene.began(ITEMS), executions);
    let keys = scene.keys(&server).await;
    assert_eq!(keys.len(), ITEMS as usize, "{keys:?}");
}
