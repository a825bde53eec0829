//! Settings that cancel each other's effect: the task is built, with one warning in the log.

use std::io;
use std::sync::{Arc, Mutex};

use async_map_task::{AsyncMapTask, AsyncMapTaskBuilder};
use tracing::subscriber::with_default;

use crate::recorded_trace::keep_company;
use crate::support::secs;

/// A writer that many threads may share, and that remembers its text.
#[derive(Debug, Clone, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl io::Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines of the log while a function runs.
fn logged(function: impl FnOnce()) -> Vec<String> {
    keep_company();
    let text = Text::default();
    let writer = text.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone())
        .finish();
    with_default(subscriber, function);
    let bytes = text.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap().lines().map(|line| line.trim().to_owned()).collect()
}

fn doubtful() -> AsyncMapTaskBuilder {
    AsyncMapTask::builder().name("resize").retry_delay(secs(5)).fail_fast(true).max_failures(7)
}

const LINES: [&str; 2] = [
    r#"WARN async_map_task: retry_delay: no effect, because retries is 0 task="resize""#,
    r#"WARN async_map_task: max_failures: no effect, because fail_fast ends the run at the first failure task="resize""#,
];

#[test]
fn a_setting_without_effect_is_warned_about_once() {
    let mut task = None;
    assert_eq!(logged(|| task = Some(doubtful().build().unwrap())), LINES);
    let task = task.unwrap();
    let run = || {
        let work = task.run(0..3, |n| async move { Ok::<_, String>(n) });
        assert_eq!(futures_executor::block_on(work).unwrap().successes(), 3);
    };
    let said = logged(run);
    assert!(!said.iter().any(|line| line.contains("no effect")), "{said:?}");
}

#[test]
fn no_warning_without_a_cause_or_a_build() {
    assert_eq!(logged(|| drop(AsyncMapTask::default())), [""; 0]);
    assert_eq!(logged(|| drop(AsyncMapTask::builder().build().unwrap())), [""; 0]);
    assert_eq!(logged(|| drop(doubtful().concurrency(0).build().unwrap_err())), [""; 0]);
}

#[cfg(feature = "serde")]
#[test]
fn a_configuration_file_causes_the_same_warnings() {
    let text = "name = 'resize'\nretry_delay = '5s'\nfail_fast = true\nmax_failures = 7";
    let config: async_map_task::MapTaskConfig = toml::from_str(text).unwrap();
    assert_eq!(logged(|| drop(AsyncMapTask::try_from(config).unwrap())), LINES);
}
