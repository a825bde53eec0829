//! Rule 45 if threads can be started again. The limit is one of the process, so each test has a process of its own.

use std::env;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use async_map_task::{Event, FailureKind, Limiter};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};
use tokio::task::spawn_blocking;

use super::retrying;
use crate::support::lenient;

/// The address space of the stack of a thread.
const STACK: u64 = 256 << 20;

/// The variable that tells a process that it is alone.
const ALONE: &str = "FAULTS_ALONE";

/// Returns `true` in a process of its own, which it starts for the test otherwise.
fn is_alone(test: &str) -> bool {
    if env::var_os(ALONE).is_some() {
        return true;
    }
    let mut alone = Command::new(env::current_exe().unwrap());
    alone.args(["--exact", &format!("rules_faults::alone::{test}")]).env(ALONE, "1");
    let ended = alone.output().unwrap();
    let text = String::from_utf8_lossy(&ended.stdout);
    assert!(
        ended.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&ended.stderr)
    );
    false
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().thread_stack_size(STACK as usize).build().unwrap()
}

/// Allows threads, or leaves less address space than the stack of one needs.
fn allow_threads(allowed: bool) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let used = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB"));
    let used = used.unwrap().parse::<u64>().unwrap() << 10;
    let current = if allowed { None } else { Some(used + STACK / 2) };
    setrlimit(Resource::As, Rlimit { current, ..getrlimit(Resource::As) }).unwrap();
}

#[test]
fn rule_10_the_retry_of_a_faulted_attempt_can_succeed() {
    if !is_alone("rule_10_the_retry_of_a_faulted_attempt_can_succeed") {
        return;
    }
    allow_threads(false);
    runtime().block_on(async {
        let run = retrying(1).build().unwrap().over(0..4).map_blocking(Ok::<i32, String>);
        let run = run.observe(|event: &Event<'_>| {
            if let Event::AttemptFailed { kind, retry_in, .. } = event {
                assert_eq!((*kind, retry_in.is_some()), (FailureKind::Faulted, true));
                allow_threads(true);
            }
        });
        let result = run.await.unwrap();
        assert_eq!(result.results, [Some(0), Some(1), Some(2), Some(3)]);
        assert!((1..=3).contains(&result.summary.retries), "{}", result.summary);
    });
}

#[test]
fn rule_45_a_function_whose_attempt_was_faulted_never_runs() {
    if !is_alone("rule_45_a_function_whose_attempt_was_faulted_never_runs") {
        return;
    }
    for parallel in [false, true] {
        allow_threads(false);
        runtime().block_on(async {
            let (calls, limiter) = (Arc::new(AtomicUsize::new(0)), Limiter::new(2));
            let task = lenient().concurrency(3).limiter(&limiter).build().unwrap();
            let run = || {
                let calls = Arc::clone(&calls);
                task.over(0..4).map_blocking(move |n| {
                    calls.fetch_add(1, SeqCst);
                    Ok::<_, String>(n)
                })
            };
            let result = if parallel { run().parallel().await } else { run().await }.unwrap();
            assert_eq!((result.failures(), limiter.in_use()), (4, 0));
            allow_threads(true);
            // One thread takes the entries of the pool's queue in order.
            spawn_blocking(|| {}).await.unwrap();
            assert_eq!(calls.load(SeqCst), 0);
            let result = if parallel { run().parallel().await } else { run().await }.unwrap();
            assert_eq!((result.successes(), calls.load(SeqCst), limiter.in_use()), (4, 4, 0));
        });
    }
}
