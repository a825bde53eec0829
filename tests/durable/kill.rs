//! Processes that are killed at any instant: nothing that was committed is lost, and nothing of it runs again.

mod account;
mod batches;

use std::fmt;
use std::thread::sleep;
use std::time::Duration;

use async_map_task::Origin;
use async_map_task::store::{PostgresStore, RunStatus, SqliteStore, Store};

use self::account::Account;
use crate::cluster;
use crate::folder::Folder;
use crate::process::{Event, IfHeld, Job, Keeping, Line, Log, Place, Process};
use crate::random::Random;

pub(crate) const ITEMS: u64 = 5_000;

/// The items in a call of a run of batches.
const BATCH: usize = 50;

/// The seed of the kills.
const SEED: u64 = 20_261_122;

/// Longer than a busy machine stalls a process. No process waits for it, because the one before is known to be dead.
const LEASE: Duration = Duration::from_secs(30);

/// The progress of a process when it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It has given out no outcome and run no item.
    Opening,
    /// It has given out outcomes of earlier processes, and run no item.
    Reading,
    /// It has run items, and is writing their outcomes.
    Running,
    /// It has given out all outcomes.
    Closing,
}

/// The log of a process so far.
#[derive(Debug, Default)]
struct Seen {
    began: u64,
    ran: u64,
    recovered: u64,
}

impl Seen {
    fn add(&mut self, line: &Line) {
        match line.event {
            Event::Began(_) => self.began += 1,
            Event::Settled(_, Origin::Ran, _) => self.ran += 1,
            Event::Settled(..) => self.recovered += 1,
            Event::Loaded(..) | Event::Saved(..) | Event::Ended(_) => {}
        }
    }

    fn phase(&self) -> Phase {
        match self {
            _ if self.ran + self.recovered == ITEMS => Phase::Closing,
            Self { began: 0, recovered: 0, .. } => Phase::Opening,
            Self { began: 0, .. } => Phase::Reading,
            _ => Phase::Running,
        }
    }
}

/// The time at which a process is killed: in a phase, and a little later.
struct Instant {
    phase: Phase,
    /// The number of outcomes that it gives out before, if it comes so far.
    outcomes: u64,
    later: Duration,
}

impl Instant {
    fn random(random: &mut Random) -> Self {
        let (phase, outcomes, later) = match random.below(10) {
            0..=1 => (Phase::Opening, 0, 100_000),
            2..=3 => (Phase::Reading, random.below(ITEMS), 300),
            4..=8 => (Phase::Running, random.below(1_500), 10_000),
            _ => (Phase::Closing, 0, 2_000),
        };
        Self { phase, outcomes, later: Duration::from_micros(random.below(later)) }
    }

    fn has_come(&self, seen: &Seen) -> bool {
        let so_far = match self.phase {
            Phase::Opening => return true,
            Phase::Reading => seen.recovered,
            Phase::Running => seen.ran,
            Phase::Closing => 0,
        };
        let phase = seen.phase() as u8;
        phase > self.phase as u8 || (phase == self.phase as u8 && so_far >= self.outcomes)
    }
}

/// The results of all kills.
#[derive(Debug, Default)]
struct Figures {
    kills: u32,
    by_phase: [u32; 4],
    runs: u64,
    executions: u64,
    again: u64,
    most_of_one: u32,
    resumed: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kills, by_phase: [opening, reading, running, closing], runs, .. } = self;
        let Self { executions, again, most_of_one, resumed, .. } = self;
        write!(
            f,
            "{kills} kills ({opening} opening, {reading} reading, {running} running, {closing} closing) in {runs} \
             runs of {ITEMS} items: {executions} executions, {again} of them again, {most_of_one} at most of one \
             item, {resumed} from a checkpoint; lost 0, again after a reported commit 0"
        )
    }
}

/// The way in which the runs are durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Recover,
    /// With the cache and checkpoints.
    Together,
    /// With [`BATCH`] items in a call.
    Batches,
}

impl Kind {
    /// The calls at once.
    fn concurrency(self) -> usize {
        match self {
            Self::Recover | Self::Together => 64,
            Self::Batches => 4,
        }
    }

    /// The items that run at once.
    fn running(self) -> u64 {
        let size = if self == Self::Batches { BATCH } else { 1 };
        (self.concurrency() * size) as u64
    }
}

/// A run with one id, by as many processes as it takes.
struct Scene<'a> {
    folder: &'a Folder,
    place: &'a Place,
    kind: Kind,
    name: String,
    log: Log,
    account: Account,
}

impl<'a> Scene<'a> {
    fn new(folder: &'a Folder, place: &'a Place, kind: Kind, name: String) -> Self {
        let log = Log::open(&folder.file(&name));
        Self { folder, place, kind, name, log, account: Account::new() }
    }

    fn start(&self) -> Process {
        let run_id = self.name.clone();
        let keeping = match self.kind {
            Kind::Recover => Keeping::Recover { run_id, if_held: IfHeld::GiveBack },
            Kind::Together => Keeping::Together { run_id },
            Kind::Batches => Keeping::Batches { run_id, size: BATCH },
        };
        Process::start(&Job {
            place: self.place.clone(),
            keeping,
            lease: LEASE,
            items: ITEMS,
            first: 0,
            concurrency: self.kind.concurrency(),
            delays: 3,
            gate: None,
            log: self.folder.file(&self.name),
        })
    }

    /// Starts a process and kills it then. Returns its phase, if it was killed and did not end before.
    fn kill_at(&mut self, instant: &Instant) -> Option<Phase> {
        let (mut process, mut seen) = (self.start(), Seen::default());
        let Self { log, account, .. } = self;
        log.follow(|lines| {
            lines.iter().for_each(|line| seen.add(line));
            account.add(&lines);
            instant.has_come(&seen) || process.is_over()
        });
        sleep(instant.later);
        let was_killed = process.kill();
        let lines = log.read();
        lines.iter().for_each(|line| seen.add(line));
        account.add(&lines);
        account.process_is_over(was_killed);
        was_killed.then(|| seen.phase())
    }

    /// Starts a process and waits for it.
    fn finish(&mut self) {
        self.start().wait();
        self.account.add(&self.log.read());
        self.account.process_is_over(false);
    }
}

/// Kills this many processes, and finishes each run with a last one.
fn kill_and_resume(place: &Place, kind: Kind, kills: u32) -> Figures {
    let (folder, mut random, mut figures) = (Folder::new(), Random(SEED), Figures::default());
    let mut whole = Scene::new(&folder, place, kind, "whole".to_owned());
    whole.finish();
    let expected = whole.account.outputs();
    assert_eq!(whole.account.executions(), &[1; ITEMS as usize]);

    while figures.kills < kills {
        let mut scene = Scene::new(&folder, place, kind, format!("run-{}", figures.runs));
        let (mut kills_of_run, mut was_closing) = (0, false);
        // A busy machine takes long to end a run. One kill of a run of batches at its end is enough: the others are for its calls.
        while figures.kills < kills && !scene.account.has_ended() && !was_closing {
            if let Some(phase) = scene.kill_at(&Instant::random(&mut random)) {
                figures.kills += 1;
                figures.by_phase[phase as usize] += 1;
                kills_of_run += 1;
                was_closing = kind == Kind::Batches && phase == Phase::Closing;
            }
        }
        if !scene.account.has_ended() {
            scene.finish();
        }
        assert_eq!(scene.account.outputs(), expected, "lost, or wrong");
        scene.account.check(kills_of_run, kind.running());
        let executions = scene.account.executions();
        figures.runs += 1;
        figures.resumed += scene.account.resumed();
        figures.executions += executions.iter().copied().map(u64::from).sum::<u64>();
        figures.again = figures.executions - figures.runs * ITEMS;
        figures.most_of_one = figures.most_of_one.max(executions.iter().copied().max().unwrap());
    }
    figures
}

/// Checks that every run has succeeded, according to the store.
async fn check_store(store: &impl Store, figures: &Figures) {
    let runs = store.runs().await.unwrap();
    assert_eq!(runs.len() as u64, figures.runs + 1);
    for run in runs {
        assert_eq!(
            (run.status, run.succeeded, run.failed),
            (RunStatus::Succeeded, ITEMS, 0),
            "{}",
            run.run_id
        );
    }
}

#[tokio::test]
async fn a_run_killed_100_times_keeps_all_commits_in_sqlite() {
    let folder = Folder::new();
    let path = folder.file("runs.db");
    let figures = kill_and_resume(&Place::Sqlite(path.clone()), Kind::Recover, 100);
    check_store(&SqliteStore::open(&path).await.unwrap(), &figures).await;
    eprintln!("SQLite, seed {SEED}: {figures}");
    assert_eq!(figures.kills, 100);
    assert!(figures.by_phase[..3].iter().all(|kills| *kills > 0), "a phase without a kill: {figures}");
}

#[tokio::test]
async fn a_run_killed_30_times_keeps_all_commits_in_postgres() {
    let url = cluster::shared().database().await;
    let figures = kill_and_resume(&Place::Postgres(url.clone()), Kind::Recover, 30);
    check_store(&PostgresStore::connect(&url).await.unwrap(), &figures).await;
    eprintln!("PostgreSQL, seed {SEED}: {figures}");
    assert_eq!(figures.kills, 30);
}

/// All options together: a saved state of an item is never lost, either.
#[tokio::test]
async fn cache_and_checkpoints_survive_50_kills_in_sqlite() {
    let folder = Folder::new();
    let path = folder.file("runs.db");
    let figures = kill_and_resume(&Place::Sqlite(path.clone()), Kind::Together, 50);
    check_store(&SqliteStore::open(&path).await.unwrap(), &figures).await;
    eprintln!("SQLite with cache and checkpoints, seed {SEED}: {figures}");
    assert_eq!(figures.kills, 50);
    assert!(figures.resumed > 0, "no item has gone on from its checkpoint");
}

#[tokio::test]
async fn cache_and_checkpoints_survive_50_kills_in_postgres() {
    let url = cluster::shared().database().await;
    let figures = kill_and_resume(&Place::Postgres(url.clone()), Kind::Together, 50);
    check_store(&PostgresStore::connect(&url).await.unwrap(), &figures).await;
    eprintln!("PostgreSQL with cache and checkpoints, seed {SEED}: {figures}");
    assert_eq!(figures.kills, 50);
    assert!(figures.resumed > 0, "no item has gone on from its checkpoint");
}
