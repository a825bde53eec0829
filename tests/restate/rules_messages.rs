//! Rule 4: items and outputs are JSON, and have a limit that is checked before they are sent.

use std::collections::BTreeMap;
use std::fmt::Debug;

use async_map_task::restate::{Handler, Restate, RestateBuilder, RestateError};
use async_map_task::{AsyncMapTask, ItemError, MapTaskResult};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::odd;
use crate::scene::{Scene, engine, outputs};
use crate::server;
use crate::work::{Item, Output};

/// Calls a handler with each item, and accepts every result.
async fn run<I, T>(items: Vec<I>, handler: &Handler<T>) -> MapTaskResult<T, RestateError>
where
    I: Serialize + Clone,
    T: DeserializeOwned,
{
    let task = AsyncMapTask::builder().retries(2).min_success_ratio(0.0).build().unwrap();
    let run = task.over(items).map_with_context(|cx, item| handler.call(cx, item));
    run.retry_if(RestateError::is_retryable).await.unwrap()
}

/// Returns the error of an item that has failed in its only attempt.
fn failure<T>(result: &MapTaskResult<T, RestateError>, index: usize) -> &RestateError {
    match &result.errors[&index] {
        ItemError::Failed { error, attempts: 1 } => error,
        other => panic!("{other:?}"),
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    name: String,
    parent: Option<Box<Record>>,
    shape: Shape,
    numbers: (u64, i64, f64),
    tags: BTreeMap<String, Vec<char>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle { radius: f32 },
    Path(Vec<(i8, i8)>),
}

/// Sends the values through the engine and back.
async fn echoes<V>(run_id: &'static str, values: Vec<V>)
where
    V: Serialize + DeserializeOwned + Clone + PartialEq + Debug,
{
    let server = server::shared().await;
    let echo = engine(server).handler::<V>("Work", "echo").run_id(run_id);
    let result = run(values.clone(), &echo).await;
    assert_eq!(result.into_successful_results(), values);
}

#[tokio::test]
async fn restate_rule_4_items_and_outputs_are_json() {
    let child = Record {
        name: "\u{0}\n\"\\/ täglich 日本語 🦀 \u{2028}".to_owned(),
        parent: None,
        shape: Shape::Circle { radius: 0.1 },
        numbers: (u64::MAX, i64::MIN, 0.1 + 0.2),
        tags: BTreeMap::from([(String::new(), vec!['a', '\u{10ffff}']), ("ü".to_owned(), vec![])]),
    };
    let parent = Record {
        parent: Some(Box::new(child.clone())),
        shape: Shape::Path(vec![(-1, 1)]),
        numbers: (0, -1, f64::MIN_POSITIVE),
        ..child.clone()
    };
    let point = Record { shape: Shape::Point, numbers: (1 << 53 | 1, 0, f64::MAX), ..parent.clone() };
    echoes("messages-records", vec![child, parent, point]).await;
    echoes("messages-u64", vec![0, u64::MAX, (1 << 53) + 1]).await;
    echoes("messages-f64", vec![0.1 + 0.2, 5e-324, -1.5e300, 1.0]).await;
    echoes("messages-bool", vec![true, false]).await;
    echoes("messages-option", vec![None, Some(7)]).await;
    echoes("messages-unit", vec![()]).await;
    echoes("messages-bytes", vec![vec![0_u8, 255], vec![]]).await;
}

#[tokio::test]
async fn restate_rule_4_no_output_is_the_output_of_a_handler_that_returns_nothing() {
    let server = server::shared().await;
    let nothing = engine(server).handler::<()>("Work", "nothing").run_id("messages-nothing");
    assert_eq!(run(vec![1, 2], &nothing).await.results, [Some(()), Some(())]);
    let nothing = engine(server).handler::<Option<u32>>("Work", "nothing").run_id("messages-nothing");
    assert_eq!(run(vec![1, 2], &nothing).await.results, [Some(None), Some(None)]);
}

/// Returns a handler of an engine with a limit.
async fn limited<T>(limit: usize, service: &str, handler: &str, run_id: &str) -> Handler<T> {
    let builder = Restate::builder(odd::shared().await.ingress()).message_limit(limit);
    builder.build().unwrap().handler(service, handler).run_id(run_id)
}

#[tokio::test]
async fn restate_rule_4_an_item_above_the_limit_is_not_sent() {
    let (server, scene) = (server::shared().await, Scene::new("messages-limit"));
    let echo = limited::<String>(1_000, "Work", "echo", scene.run_id).await;
    // With its two quotes, each is two bytes longer.
    let texts: Vec<_> = [997, 998, 999, 5_000].iter().map(|length| "x".repeat(*length)).collect();
    let result = run(texts.clone(), &echo).await;
    assert_eq!(result.results, [Some(texts[0].clone()), Some(texts[1].clone()), None, None]);
    for (index, bytes) in [(2, 1_001), (3, 5_002)] {
        let error = failure(&result, index);
        let RestateError::TooLarge { what: "item", size, limit: 1_000 } = error else { panic!("{error:?}") };
        assert_eq!(*size, bytes);
        assert_eq!(error.to_string(), format!("the item must have at most 1000 bytes of JSON, got {bytes}"));
    }
    assert_eq!(scene.keys(server).await, ["0.1", "1.1"]);
}

#[tokio::test]
async fn restate_rule_4_an_output_above_the_limit_is_too_large() {
    let scene = Scene::new("messages-output");
    let text = limited::<String>(1_000, "Odd", "text", scene.run_id).await;
    let result = run(vec![998, 999], &text).await;
    assert_eq!(result.results, [Some("x".repeat(998)), None]);
    let error = failure(&result, 1);
    assert!(
        matches!(error, RestateError::TooLarge { what: "output", size: 1_001, limit: 1_000 }),
        "{error:?}"
    );
    assert_eq!(error.to_string(), "the output must have at most 1000 bytes of JSON, got 1001");

    // The output is not lost: with a higher limit, the engine returns it under the same key.
    let text = limited::<String>(1_001, "Odd", "text", scene.run_id).await;
    let result = run(vec![998, 999], &text).await;
    assert_eq!(result.results, [Some("x".repeat(998)), Some("x".repeat(999))]);
    assert_eq!(scene.keys(server::shared().await).await, ["0.1", "1.1"]);
}

#[tokio::test]
async fn restate_rule_4_what_has_the_default_limit_passes_the_engine() {
    let server = odd::shared().await;
    let longest = RestateBuilder::DEFAULT_MESSAGE_LIMIT - 2;
    let echo = engine(server).handler::<String>("Work", "echo").run_id("messages-longest");
    let item = "x".repeat(longest);
    let result = run(vec![item.clone()], &echo).await;
    assert!(result.results == [Some(item)], "{:?}", result.errors);
    let text = engine(server).handler::<String>("Odd", "text").run_id("messages-longer");
    let result = run(vec![longest + 1], &text).await;
    assert!(matches!(failure(&result, 0), RestateError::TooLarge { what: "output", .. }));
}

#[tokio::test]
async fn restate_rule_4_what_cannot_be_json_is_not_sent() {
    let (server, scene) = (server::shared().await, Scene::new("messages-no-json"));
    let nothing = engine(server).handler::<()>("Work", "nothing").run_id(scene.run_id);
    let items = vec![BTreeMap::new(), BTreeMap::from([((1, 2), 3)]), BTreeMap::new()];
    let result = run(items, &nothing).await;
    assert_eq!(result.results, [Some(()), None, Some(())]);
    let error = failure(&result, 1);
    assert!(matches!(error, RestateError::Item { .. }), "{error:?}");
    assert_eq!(error.to_string(), "the item cannot be serialized as JSON: key must be a string");
    assert_eq!(scene.keys(server).await, ["0.1", "2.1"]);
}

#[tokio::test]
async fn restate_rule_4_items_may_be_borrowed_where_the_run_is_not_spawned() {
    let (server, scene) = (server::shared().await, Scene::new("messages-borrowed"));
    let items = scene.items(3);
    let work = engine(server).handler::<Output>("Work", "work").run_id(scene.run_id);
    let task = AsyncMapTask::default();
    let result = task.over(&items).map_with_context(|cx, item| work.call(cx, item)).await.unwrap();
    assert_eq!(result.results, outputs(3));
}

#[tokio::test]
async fn restate_rule_4_a_call_with_an_item_of_its_own_can_be_spawned() {
    let (server, scene) = (server::shared().await, Scene::new("messages-parallel"));
    let work = engine(server).handler::<Output>("Work", "work").run_id(scene.run_id);
    let task = AsyncMapTask::default();
    let clone = work.clone();
    let call = move |cx, item: Item| clone.call(cx, item);
    let result = task.over(scene.items(3)).map_with_context(call).parallel().await.unwrap();
    assert_eq!(result.results, outputs(3));
    let result =
        task.over(scene.items(3)).map_with_context(move |cx, item| work.call(cx, item)).spawn().await;
    assert_eq!(result.unwrap().results, outputs(3));
    assert_eq!(scene.began(3), [1; 3]);
}
