//! Values: what an item is known by, and outputs and states that come back as they went.

use async_map_task::{AsyncMapTask, Cache, FailureReason, MapTaskError};

use crate::rigged::{Call, Rigged};
use crate::support::{Calls, in_time};

fn v1() -> Cache {
    Cache::version("1")
}

/// Two closures of one function have one type name, so a task without a name could find the outputs of the other.
#[tokio::test]
async fn a_run_that_keeps_outputs_needs_a_name() {
    let (store, calls) = (Rigged::willing(), Calls::default());
    let task = AsyncMapTask::builder().build().unwrap();
    let run = || {
        let calls = calls.clone();
        task.over([1, 2, 3]).map(move |n| {
            calls.note(n);
            async move { Ok::<_, String>(n + 1) }
        })
    };
    let check = |error: MapTaskError<u64, String>| {
        let FailureReason::Config(config) = error.reason() else { panic!("{error}") };
        assert_eq!((config.field(), config.found()), ("name", "not set"));
        assert!(error.to_string().contains(".name(..)"), "{error}");
        assert_eq!(error.summary().not_started, 3);
    };
    check(in_time(run().cache(&store, v1())).await.unwrap_err());
    check(in_time(run().cache(&store, v1().serialized()).spawned()).await.unwrap_err());
    check(in_time(run().recover(&store, "r")).await.unwrap_err());
    check(in_time(run().recover(&store, "r").cache(&store, v1())).await.unwrap_err());
    check(in_time(run().recover(&store, "r").spawn()).await.unwrap_err());
    let error = in_time(run().recover(&store, "r").for_each(|_| async {})).await.unwrap_err();
    assert!(matches!(error.reason(), FailureReason::Config(_)), "{error}");
    assert_eq!(calls.take(), [0_u64; 0], "no item has started");
    for call in [Call::OpenRun, Call::Cached, Call::Claim] {
        assert_eq!(store.count(call), 0, "the store was not touched: {call:?}");
    }
}
