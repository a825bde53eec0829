//! Runs each test under several schedulers and prints the number of explored schedules.

use std::cell::{Cell, RefCell};
use std::panic::{catch_unwind, set_hook};
use std::time::Instant;
use std::{env, fs, process, thread};

use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};

/// A test: its name, the function that each schedule runs, and the number of schedules if the environment sets none.
pub(crate) type Test = (&'static str, fn(), usize);

/// Far more than any case needs, so a schedule that reaches it is taken to have no end.
const MOST_STEPS: usize = 50_000;

/// Enough for the unoptimized code of the engine.
const STACK_SIZE: usize = 256 * 1024;

/// The depth of each PCT scheduler, which is the number of its priority changes plus one; 0 stands for the random scheduler.
const DEPTHS: [usize; 5] = [0, 2, 3, 5, 8];

thread_local! {
    static SCHEDULES: Cell<usize> = const { Cell::new(0) };
    static CASE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps the description of a drawn case, to be printed if its schedule fails.
pub(crate) fn describe(case: String) {
    CASE.set(case);
}

/// Explores the tests with a word of the command line in their names, or all tests if there is no word.
pub(crate) fn all(tests: &[Test]) {
    set_hook(Box::new(|panic| {
        let (schedule, case) = (SCHEDULES.get(), CASE.take());
        let thread = thread::current();
        let scheduler = thread.name().unwrap_or("a scheduler");
        eprintln!("\nFAILED in schedule {schedule} of {scheduler}: {case}\n{panic}");
    }));
    let words: Vec<_> = env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let is_chosen = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let chosen: Vec<_> = tests.iter().filter(|(name, ..)| is_chosen(name)).collect();
    eprintln!("explorer: {} of {} tests", chosen.len(), tests.len());
    for &&(name, run, schedules) in &chosen {
        match env::var("EXPLORER_REPLAY") {
            Ok(file) => replay(run, &file),
            Err(_) => explore(name, run, wanted().unwrap_or(schedules)),
        }
    }
}

/// The number of schedules of each test that the environment sets.
fn wanted() -> Option<usize> {
    let wanted = env::var("EXPLORER_SCHEDULES").ok()?;
    Some(wanted.parse().expect("EXPLORER_SCHEDULES must be a number"))
}

fn explore(name: &str, run: fn(), schedules: usize) {
    let each = schedules.div_ceil(DEPTHS.len());
    let begun = Instant::now();
    let explored: Vec<_> = thread::scope(|scope| {
        let threads = DEPTHS.map(|depth| {
            let run = move || scheduled(run, depth, each);
            thread::Builder::new().name(scheduler(depth)).spawn_scoped(scope, run).unwrap()
        });
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let figures: Vec<_> = DEPTHS
        .iter()
        .zip(&explored)
        .map(|(depth, explored)| format!("{} {explored}", scheduler(*depth)))
        .collect();
    eprintln!("explorer {name}: schedules explored: {}; {:.1?}", figures.join(", "), begun.elapsed());
    assert!(explored.iter().all(|explored| *explored > 0), "{name}: a scheduler explored no schedule");
}

/// Explores the schedules of one scheduler. A failure ends the process, because the panic hook has printed everything.
fn scheduled(run: fn(), depth: usize, schedules: usize) -> usize {
    let explore = || {
        if depth == 0 {
            runner(RandomScheduler::new(schedules)).run(counted(run));
        } else {
            runner(PctScheduler::new(depth, schedules)).run(counted(run));
        }
    };
    if catch_unwind(explore).is_err() {
        process::exit(101);
    }
    SCHEDULES.get()
}

fn replay(run: fn(), file: &str) {
    let schedule = fs::read_to_string(file).expect("EXPLORER_REPLAY must be a file with a schedule");
    runner(ReplayScheduler::new_from_encoded(schedule.trim())).run(counted(run));
    eprintln!("explorer: the schedule of {file} did not fail");
}

fn counted(run: fn()) -> impl Fn() + Send + Sync + 'static {
    move || {
        SCHEDULES.set(SCHEDULES.get() + 1);
        run();
    }
}

fn runner<S: Scheduler + 'static>(scheduler: S) -> Runner<S> {
    let mut config = Config::new();
    config.stack_size = STACK_SIZE;
    config.max_steps = MaxSteps::FailAfter(MOST_STEPS);
    config.silence_warnings = true;
    Runner::new(scheduler, config)
}

fn scheduler(depth: usize) -> String {
    if depth == 0 { "random".to_owned() } else { format!("pct depth {depth}") }
}
