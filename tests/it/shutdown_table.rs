//! Rule 44, at random instants: a runtime is shut down in the middle of a run, a hundred times for each way to run and
//! each way to end. `SHUTDOWNS=4000` sets another number.

use std::future::Future;
use std::panic::{AssertUnwindSafe, set_hook, take_hook};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, Once, mpsc};
use std::thread;
use std::time::Instant;

use async_map_task::{AsyncMapTask, FailureReason, MapTaskError, MapTaskResult, RunError, Summary};
use futures::{FutureExt, StreamExt};
use tokio::runtime::{Builder, Handle};
use tokio::time::sleep;

use crate::support::{HOUR, Random, Terminal, cases, millis, secs};

#[derive(Debug, Clone, Copy)]
enum Mode {
    InTask,
    Parallel,
    Blocking,
    BlockingParallel,
}

const MODES: [Mode; 4] = [Mode::InTask, Mode::Parallel, Mode::Blocking, Mode::BlockingParallel];
const ENDS: [Terminal; 4] = [Terminal::Await, Terminal::Spawn, Terminal::Stream, Terminal::ForEach];

/// The number of items that the source promises, if it promises any.
const ITEMS: u32 = 30_000;

/// The name of the threads on which nothing may panic.
const THREAD: &str = "shutdown table";

static PANICS: AtomicUsize = AtomicUsize::new(0);

fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            if thread::current().name() == Some(THREAD) {
                PANICS.fetch_add(1, SeqCst);
            } else {
                before(info);
            }
        }));
    });
}

/// The observations of one run.
#[derive(Debug)]
struct Seen {
    pulled: AtomicUsize,
    called: AtomicUsize,
    /// Set once the runtime is gone.
    is_shut: AtomicBool,
    /// The number of items that were pulled after that.
    late: AtomicUsize,
    has_total: bool,
    counts_calls: bool,
}

/// Counts the items that are pulled. The sender signals its drop.
struct Source {
    next: u32,
    seen: Arc<Seen>,
    _alive: mpsc::Sender<()>,
}

impl Iterator for Source {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        self.seen.pulled.fetch_add(1, SeqCst);
        self.seen.late.fetch_add(usize::from(self.seen.is_shut.load(SeqCst)), SeqCst);
        self.next += 1;
        (self.next <= ITEMS).then_some(self.next)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (ITEMS - self.next.min(ITEMS)) as usize;
        (left, self.seen.has_total.then_some(left))
    }
}

/// The end of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Ended {
    /// Together with the task that awaited it.
    Dropped,
    Cancelled,
    /// Before the shutdown.
    Finished,
    Failed,
    Panicked,
    WrongAccount,
    Hung,
}

fn is_exact(summary: &Summary, seen: &Seen) -> bool {
    let Summary { total, successes, failures, cancelled, not_started, .. } = *summary;
    let pulled = seen.pulled.load(SeqCst);
    // A run that was dropped before it began has not looked at its source.
    let total_is_right = if seen.has_total { total == ITEMS as usize } else { total <= pulled };
    total == successes + failures + cancelled + not_started
        && failures == 0
        && total_is_right
        && (!seen.counts_calls || total - not_started == seen.called.load(SeqCst))
}

fn judge(reason: Option<&FailureReason>, is_exact: bool) -> Ended {
    match reason {
        Some(reason) if !matches!(reason, FailureReason::Cancelled) => Ended::Failed,
        _ if !is_exact => Ended::WrongAccount,
        None => Ended::Finished,
        Some(_) => Ended::Cancelled,
    }
}

fn judge_result(result: Result<MapTaskResult<u32, String>, MapTaskError<u32, String>>, seen: &Seen) -> Ended {
    let of = |result: &MapTaskResult<u32, String>, reason| {
        let slots = result.results.iter().enumerate();
        let settled = slots.filter(|(index, slot)| slot.is_some_and(|n| n as usize == *index + 1)).count();
        let is_whole = result.results.len() == result.total() && settled == result.successes();
        judge(reason, is_whole && is_exact(&result.summary, seen))
    };
    match result {
        Ok(result) => of(&result, None),
        Err(error) => of(error.partial(), Some(error.reason())),
    }
}

fn judge_summary(result: Result<Summary, RunError>, given: usize, seen: &Seen) -> Ended {
    let of = |summary: &Summary, reason| judge(reason, summary.successes == given && is_exact(summary, seen));
    match result {
        Ok(summary) => of(&summary, None),
        Err(error) => of(error.summary(), Some(error.reason())),
    }
}

type Awaited = Pin<Box<dyn Future<Output = Ended> + Send>>;

/// Starts the run and returns a future of its end, for a thread outside the runtime.
macro_rules! start {
    ($run:expr, $end:expr, $handle:expr, $seen:expr) => {{
        let (run, seen, given) = ($run, Arc::clone($seen), Arc::new(AtomicUsize::new(0)));
        let _entered = $handle.enter();
        match $end {
            Terminal::Await => {
                let task = tokio::spawn(run);
                Box::pin(async move {
                    match task.await {
                        Ok(result) => judge_result(result, &seen),
                        Err(error) if error.is_cancelled() => Ended::Dropped,
                        Err(_) => Ended::Panicked,
                    }
                }) as Awaited
            }
            Terminal::Spawn => {
                let handle = run.spawn();
                Box::pin(async move { judge_result(handle.await, &seen) })
            }
            Terminal::Stream => {
                let mut stream = run.stream();
                Box::pin(async move {
                    let mut given = 0;
                    while let Some(outcome) = stream.next().await {
                        match outcome {
                            Ok(outcome) => given += usize::from(outcome.result.is_ok()),
                            Err(error) => return judge_summary(Err(error), given, &seen),
                        }
                    }
                    judge_summary(stream.summary().cloned().ok_or_else(|| unreachable!()), given, &seen)
                })
            }
            Terminal::ForEach | Terminal::TryForEach => {
                let count = Arc::clone(&given);
                let task = tokio::spawn(run.for_each(move |outcome| {
                    count.fetch_add(usize::from(outcome.result.is_ok()), SeqCst);
                    async {}
                }));
                Box::pin(async move {
                    match task.await {
                        Ok(result) => judge_summary(result, given.load(SeqCst), &seen),
                        Err(error) if error.is_cancelled() => Ended::Dropped,
                        Err(_) => Ended::Panicked,
                    }
                })
            }
        }
    }};
}

async fn item(n: u32) -> Result<u32, String> {
    match n % 5 {
        0 => sleep(millis(1)).await,
        1 | 2 => tokio::task::yield_now().await,
        _ => {}
    }
    Ok(n)
}

fn blocking_item(n: u32) -> Result<u32, String> {
    if n % 3 == 0 {
        spin(n % 64);
    }
    Ok(n)
}

fn spin(micros: u32) {
    let begun = Instant::now();
    while begun.elapsed().as_micros() < u128::from(micros) {
        std::hint::spin_loop();
    }
}

fn start(mode: Mode, end: Terminal, task: &AsyncMapTask, source: Source, handle: &Handle) -> Awaited {
    let seen = &Arc::clone(&source.seen);
    let calls = Arc::clone(seen);
    match mode {
        Mode::InTask | Mode::Parallel => {
            let run = task.over(source).map(move |n| {
                calls.called.fetch_add(1, SeqCst);
                item(n)
            });
            match mode {
                Mode::InTask => start!(run, end, handle, seen),
                _ => start!(run.parallel(), end, handle, seen),
            }
        }
        Mode::Blocking => start!(task.over(source).map_blocking(blocking_item), end, handle, seen),
        Mode::BlockingParallel => {
            start!(task.over(source).map_blocking(blocking_item).parallel(), end, handle, seen)
        }
    }
}

/// Shuts a runtime down in the middle of a run. Returns the end of the run, the number of items that were pulled too late,
/// and `true` if nothing of the run is left.
fn shut_down(mode: Mode, end: Terminal, dice: &mut Random) -> (Ended, usize, bool) {
    let workers = 1 + dice.below(3) as usize;
    let runtime =
        Builder::new_multi_thread().worker_threads(workers).enable_all().thread_name(THREAD).build().unwrap();
    let seen = Arc::new(Seen {
        pulled: AtomicUsize::new(0),
        called: AtomicUsize::new(0),
        is_shut: AtomicBool::new(false),
        late: AtomicUsize::new(0),
        has_total: dice.below(2) == 0,
        counts_calls: matches!(mode, Mode::InTask | Mode::Parallel),
    });
    let (alive, is_dropped) = mpsc::channel();
    let source = Source { next: 0, seen: Arc::clone(&seen), _alive: alive };
    let task = AsyncMapTask::builder()
        .concurrency(1 + dice.below(16) as usize)
        .timeout_per_attempt(HOUR)
        .build()
        .unwrap();
    let ended = start(mode, end, &task, source, runtime.handle());
    let (tell, told) = mpsc::channel();
    let handle = runtime.handle().clone();
    let awaiting = thread::Builder::new().name(THREAD.to_owned());
    let awaiting = awaiting.spawn(move || {
        let _entered = handle.enter();
        let ended = futures_executor::block_on(AssertUnwindSafe(ended).catch_unwind());
        let ended = ended.unwrap_or(Ended::Panicked);
        let _ = tell.send(ended);
    });
    spin(dice.below(2_000) as u32);
    match dice.below(3) {
        0 => drop(runtime),
        1 => runtime.shutdown_timeout(secs(20)),
        // The shutdown does not wait for polls that are in progress.
        _ => {
            runtime.shutdown_background();
            let ended = told.recv_timeout(secs(20)).unwrap_or(Ended::Hung);
            let is_gone = is_dropped.recv_timeout(secs(20)) == Err(mpsc::RecvTimeoutError::Disconnected);
            awaiting.unwrap().join().unwrap();
            return (ended, 0, is_gone);
        }
    }
    seen.is_shut.store(true, SeqCst);
    let ended = told.recv_timeout(secs(20)).unwrap_or(Ended::Hung);
    let is_gone = is_dropped.recv_timeout(secs(20)) == Err(mpsc::RecvTimeoutError::Disconnected);
    (ended, seen.late.load(SeqCst), is_gone)
}

#[test]
fn rule_44_a_shutdown_at_any_instant_is_a_cancellation() {
    count_panics();
    let rounds = cases("SHUTDOWNS", 100);
    let columns = [
        Ended::Dropped,
        Ended::Cancelled,
        Ended::Finished,
        Ended::Failed,
        Ended::Panicked,
        Ended::WrongAccount,
        Ended::Hung,
    ];
    let rows = Mutex::new(Vec::new());
    for (row, (mode, end)) in MODES.into_iter().flat_map(|mode| ENDS.map(|end| (mode, end))).enumerate() {
        let mut dice = Random(row as u64);
        let (mut counts, mut late, mut left) = ([0; 7], 0, 0);
        let panics = PANICS.load(SeqCst);
        for _ in 0..rounds {
            let (ended, pulled_late, is_gone) = shut_down(mode, end, &mut dice);
            counts[columns.iter().position(|column| *column == ended).unwrap()] += 1;
            late += pulled_late;
            left += usize::from(!is_gone);
        }
        let panics = PANICS.load(SeqCst) - panics;
        rows.lock().unwrap().push((mode, end, counts, late, left, panics));
    }
    let rows = rows.into_inner().unwrap();
    let mut table = format!("{:<28}", format!("{rounds} shutdowns each"));
    for column in columns {
        table += &format!("{:>14}", format!("{column:?}"));
    }
    table += "  pulled late  left behind  panics\n";
    for (mode, end, counts, late, left, panics) in &rows {
        table += &format!("{:<28}", format!("{mode:?}, {end:?}"));
        for count in counts {
            table += &format!("{count:>14}");
        }
        table += &format!("{late:>13}{left:>13}{panics:>8}\n");
    }
    eprintln!("{table}");
    for (mode, end, [dropped, _, _, failed, panicked, wrong, hung], late, left, panics) in rows {
        let is_awaited_outside = matches!(end, Terminal::Spawn | Terminal::Stream);
        let bad = (failed, panicked, wrong, hung, late, left, panics);
        assert_eq!(bad, (0, 0, 0, 0, 0, 0, 0), "{mode:?}, {end:?}");
        assert!(dropped == 0 || !is_awaited_outside, "{mode:?}, {end:?}");
    }
}
