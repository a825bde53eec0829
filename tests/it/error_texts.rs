//! The texts of errors in events and log lines.

use std::cell::{Cell, RefCell};
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};

use async_map_task::{AsyncMapTask, Event, FailureKind};
use tracing::level_filters::LevelFilter;

use crate::recorded_trace::listen;
use crate::support::{lenient, secs};

/// What an event told of a failed attempt.
type Told = (usize, u32, FailureKind, Option<String>);

fn note(told: &RefCell<Vec<Told>>) -> impl Fn(&Event<'_>) + '_ {
    |event| {
        if let Event::AttemptFailed { index, attempt, kind, message, .. } = event {
            told.borrow_mut().push((*index, *attempt, *kind, message.map(str::to_owned)));
        }
    }
}

async fn fail(n: u32) -> Result<u32, u32> {
    match n {
        0 => Err(404),
        1 => std::future::pending().await,
        2 => resume_unwind(Box::new("as it happens")),
        _ => Ok(n),
    }
}

#[tokio::test(start_paused = true)]
async fn the_message_of_a_failed_attempt_is_the_text_of_its_error_or_of_its_panic() {
    let task =
        lenient().concurrency(1).retries(1).timeout_per_attempt(secs(1)).look_ahead(1).build().unwrap();
    let (told, asked) = (RefCell::default(), Cell::new(0));
    let text = |error: &u32| {
        asked.set(asked.get() + 1);
        format!("status {error}")
    };
    task.over(0..4).map(fail).error_text(text).observe(note(&told)).await.unwrap();
    let error = |attempt| (0, attempt, FailureKind::Failed, Some("status 404".to_owned()));
    let timeout = |attempt| (1, attempt, FailureKind::TimedOut, None);
    let panic = (2, 1, FailureKind::Panicked, Some("as it happens".to_owned()));
    assert_eq!(told.take(), [error(1), error(2), timeout(1), timeout(2), panic.clone()]);
    assert_eq!(asked.get(), 2, "once for each attempt that failed");

    task.over(0..3).map(fail).observe(note(&told)).await.unwrap();
    let messages: Vec<_> = told.take().into_iter().map(|(.., message)| message).collect();
    assert_eq!(messages, [None, None, None, None, panic.3], "the type of the error need not have a text");
}

#[tokio::test(start_paused = true)]
async fn each_item_of_a_batch_that_failed_has_the_text_of_its_error() {
    let task = lenient().concurrency(1).build().unwrap();
    let told = RefCell::default();
    let call = |items: Vec<u32>| async move {
        match items[..] {
            [0, ..] => Ok(items.iter().map(|n| if n % 2 == 1 { Err(*n) } else { Ok(*n) }).collect()),
            _ => Err(500),
        }
    };
    let run = task.over(0..4).map_batches(2, call).split_failed(false);
    run.error_text(|error| format!("status {error}")).observe(note(&told)).await.unwrap();
    let failed = |index, kind, text: Option<&str>| (index, 1, kind, text.map(str::to_owned));
    let told = told.take();
    assert_eq!(told[0], failed(1, FailureKind::Failed, Some("status 1")));
    assert_eq!(told[1], failed(2, FailureKind::Failed, Some("status 500")));
    assert_eq!((told[2].0, told[2].2, told.len()), (3, FailureKind::Faulted, 3));
    assert!(told[2].3.as_ref().is_some_and(|reason| !reason.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn rule_32_log_lines_have_the_text_of_an_error() {
    let (memory, _guard) = listen(LevelFilter::TRACE);
    let task =
        lenient().concurrency(1).retries(1).look_ahead(1).timeout_per_attempt(secs(1)).build().unwrap();
    task.over(0..4).map(fail).error_text(|error| format!("status {error}")).await.unwrap();
    let errors_of = |line: &str| -> Vec<_> {
        let events = memory.events(line);
        events.iter().map(|told| told.fields.get("error").map(str::to_owned)).collect()
    };
    let text = || Some("status 404".to_owned());
    assert_eq!(errors_of("attempt failed, will retry"), [text(), None]);
    assert_eq!(errors_of("item failed"), [text(), None, None]);
}

#[tokio::test(start_paused = true)]
async fn the_message_of_a_run_error_has_the_cause_of_the_first_failure() {
    let task = AsyncMapTask::builder().name("sums").timeout_per_attempt(secs(1)).build().unwrap();
    let causes = [
        (0, "status 404"),
        (1, "timed out at the timeout_per_attempt of 1s"),
        (2, "panicked: as it happens"),
    ];
    for (n, cause) in causes {
        let run = || task.over([n]).map(fail);
        let expected = "sums: 1 of 1 item failed, 0 allowed; item 0 failed first, after 1 attempt";
        let with_text = run().error_text(|error| format!("status {error}"));
        let error = with_text.for_each(|_| async {}).await.unwrap_err();
        assert_eq!(error.to_string(), format!("{expected}: {cause}"));
        let error = run().for_each(|_| async {}).await.unwrap_err();
        // An error without a text is not known here.
        let cause = if n == 0 { String::new() } else { format!(": {cause}") };
        assert_eq!(error.to_string(), format!("{expected}{cause}"));
    }
    let run = task.over([7]).map(fail);
    let error =
        run.try_for_each(|_| async { Err(std::io::Error::other("the disk is full")) }).await.unwrap_err();
    assert_eq!(error.report().to_string(), "sums: the sink failed after 1 item: the disk is full");
}

#[tokio::test]
async fn a_parallel_run_has_the_texts_too() {
    let task = AsyncMapTask::builder().concurrency(2).allow_failures().build().unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&told);
    task.over(0..100_u32)
        .map(|n| async move { if n % 10 == 3 { Err(n) } else { Ok(n) } })
        .error_text(|error| error.to_string())
        .observe(move |event: &Event<'_>| {
            if let Event::AttemptFailed { index, message, .. } = event {
                noted.lock().unwrap().push((*index, message.map(str::to_owned)));
            }
        })
        .parallel()
        .await
        .unwrap();
    let mut told = std::mem::take(&mut *told.lock().unwrap());
    told.sort_unstable();
    assert_eq!(told, (0..10).map(|n| (10 * n + 3, Some((10 * n + 3).to_string()))).collect::<Vec<_>>());
}
