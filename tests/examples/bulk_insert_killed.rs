//! The example `bulk_insert`: it is killed again and again, and no row is lost or inserted twice.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::bulk_insert::Import;
use crate::harness::Sandbox;
use crate::random::Random;

/// The number of kills of one test. Set `BULK_INSERT_KILLS` for more.
fn kills() -> u32 {
    let kills = std::env::var("BULK_INSERT_KILLS").ok().map(|kills| kills.parse().unwrap());
    kills.unwrap_or(10)
}

/// Starts the program and kills it at a random time, again and again. If it ends before that, it begins anew with an empty
/// database. In the end, it runs undisturbed.
fn survives_kills<'s>(sandbox: &'s Sandbox, begin: impl Fn(u32) -> Import<'s>) {
    let (mut import, mut random) = (begin(0), Random(43));
    let (mut killed, mut completed, mut halfway) = (0, 0, 0);
    while killed < kills() {
        let (run, started) = (import.run().start(), Instant::now());
        let delay = Duration::from_millis(random.below(1_500));
        sandbox.until("the time of the kill", || started.elapsed() >= delay);
        run.signal(Signal::KILL);
        let ended = run.end();
        if ended.succeeds() {
            import.is_complete(&ended);
            completed += 1;
            import = begin(completed);
            continue;
        }
        ended.is_killed_by(Signal::KILL);
        killed += 1;
        halfway += u32::from((1..19_940).contains(&import.rows()));
    }
    import.is_complete(&import.run().run());
    eprintln!(
        "{killed} kills, {halfway} of them with a part of the rows in the table; {completed} runs ended before"
    );
    assert!(halfway > 0, "no kill came while rows were inserted");
}

#[test]
fn bulk_insert_loses_no_row_and_repeats_none_when_it_is_killed() {
    let sandbox = Sandbox::new();
    survives_kills(&sandbox, |round| Import::into_sqlite(&sandbox, &format!("people-{round}.db")));
}

#[test]
fn bulk_insert_loses_no_row_and_repeats_none_in_postgres_when_it_is_killed() {
    let sandbox = Sandbox::new();
    survives_kills(&sandbox, |_| Import::into_postgres(&sandbox));
}
