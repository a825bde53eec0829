//! Several processes at one store: none repeats the work of another, and each takes over if one dies or loses its
//! lease.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use async_map_task::Origin;
use async_map_task::store::{PostgresStore, Recorded, RunStatus, SqliteStore, Store};
use tokio::time::timeout;

use crate::cluster;
use crate::folder::Folder;
use crate::process::{Event, IfHeld, Job, Keeping, Line, Log, Output, Place, Process, output};

const ITEMS: u64 = 300;
const CONCURRENCY: usize = 8;

/// Longer than a busy machine stalls a process, because a running process must keep its leases.
const LEASE: Duration = Duration::from_secs(2);

const RUN: &str = "nightly";

/// The processes of one test and their events, in order.
struct Scene {
    folder: Folder,
    place: Place,
    log: Log,
    lines: Vec<Line>,
}

impl Scene {
    fn in_sqlite() -> Self {
        let folder = Folder::new();
        let place = Place::Sqlite(folder.file("runs.db"));
        Self::new(folder, place)
    }

    async fn in_postgres() -> Self {
        Self::new(Folder::new(), Place::Postgres(cluster::shared().database().await))
    }

    fn new(folder: Folder, place: Place) -> Self {
        let log = Log::open(&folder.file("log"));
        Self { folder, place, log, lines: Vec::new() }
    }

    fn job(&self, keeping: Keeping) -> Job {
        Job {
            place: self.place.clone(),
            keeping,
            lease: LEASE,
            items: ITEMS,
            first: 0,
            concurrency: CONCURRENCY,
            delays: 5,
            gate: None,
            log: self.folder.file("log"),
        }
    }

    /// A job that stops at this item until the gate file exists.
    fn gated(&self, keeping: Keeping, first: u64) -> Job {
        Job { gate: Some((first, self.folder.file("gate"))), ..self.job(keeping) }
    }

    fn open_gate(&self) {
        std::fs::write(self.folder.file("gate"), "").unwrap();
    }

    fn read(&mut self) {
        self.lines.extend(self.log.read());
    }

    /// Waits until enough has been logged.
    fn until(&mut self, is_enough: impl Fn(&Seen<'_>) -> bool) {
        let Self { log, lines, .. } = self;
        log.follow(|read| {
            lines.extend(read);
            is_enough(&Seen(lines))
        });
    }

    fn seen(&self) -> Seen<'_> {
        Seen(&self.lines)
    }
}

/// The contents of the log.
struct Seen<'a>(&'a [Line]);

impl Seen<'_> {
    /// The items that a process has begun, in this order.
    fn began(&self, process: u32) -> Vec<u64> {
        let of_process = self.0.iter().filter(|line| line.process == process);
        of_process
            .filter_map(|line| if let Event::Began(item) = line.event { Some(item) } else { None })
            .collect()
    }

    /// The process that began each item.
    fn beginners(&self) -> BTreeMap<u64, Vec<u32>> {
        let mut beginners: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        for line in self.0 {
            if let Event::Began(item) = line.event {
                beginners.entry(item).or_default().push(line.process);
            }
        }
        beginners
    }

    /// The outcomes that a process has given.
    fn settled(&self, process: u32) -> BTreeMap<u64, (Origin, Output)> {
        let of_process = self.0.iter().filter(|line| line.process == process);
        let settled = of_process.filter_map(|line| match line.event {
            Event::Settled(item, origin, output) => Some((item, (origin, output))),
            _ => None,
        });
        settled.collect()
    }

    /// The end of a process: the reason if its run did not succeed.
    fn end(&self, process: u32) -> Option<&str> {
        let mut of_process = self.0.iter().filter(|line| line.process == process);
        of_process
            .find_map(|line| if let Event::Ended(reason) = &line.event { Some(reason) } else { None })
            .expect("it has ended")
            .as_deref()
    }

    /// Checks that the run of this process has succeeded, and that each output is correct and from the process that has run
    /// the item last.
    fn check_all_outputs(&self, process: u32) {
        assert_eq!(self.end(process), None);
        let (settled, beginners) = (self.settled(process), self.beginners());
        assert!(settled.keys().copied().eq(0..ITEMS), "process {process} has not given all outcomes");
        for (item, (origin, given)) in settled {
            assert_eq!(given.value, output(item).value, "item {item}");
            assert_eq!(given.by, *beginners[&item].last().unwrap(), "item {item}");
            assert_eq!(origin == Origin::Ran, given.by == process, "item {item}");
        }
    }
}

/// Starts this many processes at once, each with a different item. When all of them have begun, they continue with the items
/// of one another.
fn share(mut scene: Scene, processes: usize) {
    let started: Vec<Process> = (0..processes)
        .map(|process| {
            let first = (process * CONCURRENCY) as u64;
            Process::start(&Job { first, ..scene.gated(Keeping::Cache, 0) })
        })
        .collect();
    let ids: Vec<u32> = started.iter().map(Process::id).collect();
    scene.until(|seen| ids.iter().all(|id| seen.began(*id).len() == CONCURRENCY));
    scene.open_gate();
    started.into_iter().for_each(Process::wait);
    scene.read();

    let seen = scene.seen();
    ids.iter().for_each(|id| seen.check_all_outputs(*id));
    let beginners = seen.beginners();
    assert!(beginners.keys().copied().eq(0..ITEMS));
    assert!(beginners.values().all(|beginners| beginners.len() == 1), "an item ran twice: {beginners:?}");
    let shares: Vec<usize> = ids.iter().map(|id| seen.began(*id).len()).collect();
    eprintln!(
        "{processes} processes, {ITEMS} keys: {} computations, {shares:?}",
        shares.iter().sum::<usize>()
    );
}

/// One process is killed while it computes. The others have waited for its items, and take them over.
fn take_over_keys(mut scene: Scene, others: usize) {
    let gate = ITEMS / 3;
    let begun: Range<u64> = gate..gate + CONCURRENCY as u64;
    let holder = Process::start(&scene.gated(Keeping::Cache, gate));
    let holder_id = holder.id();
    scene.until(|seen| begun.clone().all(|item| seen.began(holder_id).contains(&item)));

    // They wait for its items, and have permits for the rest. Nothing else is withheld from them.
    let job = Job { concurrency: 2 * CONCURRENCY, ..scene.job(Keeping::Cache) };
    let others: Vec<Process> = (0..others).map(|_| Process::start(&job)).collect();
    let ids: Vec<u32> = others.iter().map(Process::id).collect();
    let is_settled = |settled: &BTreeMap<u64, _>| {
        (0..ITEMS).all(|item| begun.contains(&item) || settled.contains_key(&item))
    };
    scene.until(|seen| ids.iter().all(|id| is_settled(&seen.settled(*id))));

    // The holder is running, and renews its claims.
    let now = Instant::now();
    scene.until(|_| now.elapsed() > LEASE * 3 / 2);
    let is_waited_for = |id: &u32| scene.seen().began(*id).iter().all(|item| !begun.contains(item));
    assert!(ids.iter().all(is_waited_for), "taken from a process that lives");

    assert!(holder.kill());
    others.into_iter().for_each(Process::wait);
    scene.read();

    let seen = scene.seen();
    ids.iter().for_each(|id| seen.check_all_outputs(*id));
    for (item, beginners) in seen.beginners() {
        match beginners.as_slice() {
            [_] => assert!(!begun.contains(&item), "item {item} was not taken over"),
            [first, second] => {
                assert!(begun.contains(&item), "item {item} ran twice: {beginners:?}");
                assert!(*first == holder_id && ids.contains(second), "item {item}: {beginners:?}");
            }
            _ => panic!("item {item} ran more than twice: {beginners:?}"),
        }
    }
    eprintln!("{} processes, one killed over {CONCURRENCY} keys: each taken over once", ids.len() + 1);
}

fn recovering(if_held: IfHeld) -> Keeping {
    Keeping::Recover { run_id: RUN.to_owned(), if_held }
}

/// Starts a process that runs the items before the gate and stops at those behind it. Waits until it does, and all
/// items before are committed.
fn start_holder(scene: &mut Scene, gate: u64) -> Process {
    let holder = Process::start(&scene.gated(recovering(IfHeld::Refuse), gate));
    let id = holder.id();
    scene.until(|seen| {
        seen.settled(id).len() as u64 == gate && seen.began(id).len() == gate as usize + CONCURRENCY
    });
    holder
}

/// A second process is refused. One that waits gets the run once the first was killed.
fn take_over_run(mut scene: Scene) {
    let gate = ITEMS / 3;
    let holder = start_holder(&mut scene, gate);
    let holder_id = holder.id();

    let refused = Process::start(&scene.job(recovering(IfHeld::Refuse)));
    let refused_id = refused.id();
    refused.wait();
    scene.read();
    let refusal = scene.seen().end(refused_id).expect("the run is held").to_owned();
    let is_held = refusal.starts_with("run `nightly` is held by ") && refusal.contains(" from 20");
    assert!(is_held && refusal.contains(&format!("/{holder_id}/")), "{refusal}");

    let heir = Process::start(&scene.job(recovering(IfHeld::Wait)));
    let heir_id = heir.id();
    let begun = Instant::now();
    scene.until(|_| begun.elapsed() > LEASE * 3 / 2);
    assert!(scene.lines.iter().all(|line| line.process == holder_id || line.process == refused_id));

    let died = Instant::now();
    assert!(holder.kill());
    scene.until(|seen| !seen.settled(heir_id).is_empty());
    let waited = died.elapsed();
    assert!(waited < 2 * LEASE, "taken over only after {waited:?}");
    heir.wait();
    scene.read();

    let seen = scene.seen();
    seen.check_all_outputs(heir_id);
    assert!(seen.began(heir_id).iter().all(|item| *item >= gate), "committed, and ran again");
    assert_eq!(seen.began(heir_id).len() as u64, ITEMS - gate);
    eprintln!("a run was taken over {waited:?} after its holder was killed, whose lease was {LEASE:?}");
}

/// A process is suspended for longer than its lease. Another takes the run; the first, when it is resumed, commits
/// nothing.
async fn outlive_lease(mut scene: Scene, store: &impl Store) {
    let gate = ITEMS / 3;
    let holder = start_holder(&mut scene, gate);
    let holder_id = holder.id();
    suspend_outside_write(&holder, store).await;

    let heir = Process::start(&Job { delays: 20, ..scene.job(recovering(IfHeld::Wait)) });
    let heir_id = heir.id();
    scene.until(|seen| seen.settled(heir_id).values().any(|(origin, _)| *origin == Origin::Ran));
    scene.open_gate();
    holder.resume();
    holder.wait();
    heir.wait();
    scene.read();

    let seen = scene.seen();
    let lost = seen.end(holder_id).expect("the lease is lost");
    assert!(lost.starts_with("run `nightly` is no longer held by "), "{lost}");
    assert!(lost.contains(&format!("/{holder_id}/")), "{lost}");
    let taken = lost.contains("its lease expired, and ") && lost.contains(&format!("/{heir_id}/"));
    assert!(taken && lost.ends_with(" acquired it"), "{lost}");
    assert!(seen.settled(holder_id).keys().copied().eq(0..gate), "reported, and not its own any more");
    // The second process has run the items at which the first had stopped, and its outputs are kept.
    assert_eq!(seen.end(heir_id), None);
    assert_eq!(seen.began(heir_id).len() as u64, ITEMS - gate);
    assert!(seen.settled(heir_id).keys().copied().eq(0..ITEMS));
    let run = store.run(RUN).await.unwrap().unwrap();
    assert_eq!((run.status, run.lease, run.succeeded), (RunStatus::Succeeded, None, ITEMS));
    for record in store.successes(RUN, 0, ITEMS as u32 + 1).await.unwrap() {
        let by = if record.index < gate { holder_id } else { heir_id };
        let Recorded::Succeeded { output: kept } = record.recorded else { unreachable!() };
        let kept: Output = serde_json::from_str(&kept.json).unwrap();
        assert_eq!(kept, Output { by, ..output(record.index) }, "item {}", record.index);
    }
    eprintln!("a holder suspended for longer than its lease: {lost}; it has committed nothing since");
}

/// A process that is suspended while it writes to SQLite keeps the file locked for all others. So it is resumed and
/// suspended again until the file is not locked: then a write that changes nothing succeeds.
async fn suspend_outside_write(process: &Process, store: &impl Store) {
    loop {
        process.suspend();
        let write = store.close_run(RUN, "nobody", &RunStatus::Running);
        if timeout(Duration::from_millis(500), write).await.is_ok() {
            return;
        }
        process.resume();
    }
}

#[tokio::test]
async fn two_processes_compute_each_key_once_in_sqlite() {
    share(Scene::in_sqlite(), 2);
}

#[tokio::test]
async fn four_processes_compute_each_key_once_in_sqlite() {
    share(Scene::in_sqlite(), 4);
}

#[tokio::test]
async fn two_processes_compute_each_key_once_in_postgres() {
    share(Scene::in_postgres().await, 2);
}

#[tokio::test]
async fn four_processes_compute_each_key_once_in_postgres() {
    share(Scene::in_postgres().await, 4);
}

#[tokio::test]
async fn a_killed_process_is_replaced_for_each_key_in_sqlite() {
    take_over_keys(Scene::in_sqlite(), 1);
    take_over_keys(Scene::in_sqlite(), 3);
}

#[tokio::test]
async fn a_killed_process_is_replaced_for_each_key_in_postgres() {
    take_over_keys(Scene::in_postgres().await, 1);
    take_over_keys(Scene::in_postgres().await, 3);
}

#[tokio::test]
async fn a_killed_process_is_replaced_for_its_run_in_sqlite() {
    take_over_run(Scene::in_sqlite());
}

#[tokio::test]
async fn a_killed_process_is_replaced_for_its_run_in_postgres() {
    take_over_run(Scene::in_postgres().await);
}

/// A process is suspended for longer than its lease, and no other process needs the run. It continues when it is resumed.
async fn outlive_lease_alone(mut scene: Scene, store: &impl Store) {
    let gate = ITEMS / 3;
    let holder = start_holder(&mut scene, gate);
    let id = holder.id();
    suspend_outside_write(&holder, store).await;
    let begun = Instant::now();
    scene.until(|_| begun.elapsed() > LEASE * 3 / 2);
    holder.resume();
    // It renews its lease before it has more to write.
    let is_renewed = async || {
        let lease = store.run(RUN).await.unwrap().unwrap().lease;
        lease.is_some_and(|lease| lease.expires > SystemTime::now())
    };
    while !is_renewed().await {
        assert!(begun.elapsed() < 10 * LEASE, "its lease is not renewed");
    }
    scene.open_gate();
    holder.wait();
    scene.read();
    scene.seen().check_all_outputs(id);
    let run = store.run(RUN).await.unwrap().unwrap();
    assert_eq!((run.status, run.lease, run.succeeded), (RunStatus::Succeeded, None, ITEMS));
}

#[tokio::test]
async fn a_suspended_process_keeps_an_unclaimed_run_in_sqlite() {
    let scene = Scene::in_sqlite();
    let Place::Sqlite(path) = &scene.place else { unreachable!() };
    let store = SqliteStore::open(Path::new(path)).await.unwrap();
    outlive_lease_alone(scene, &store).await;
}

#[tokio::test]
async fn a_suspended_process_keeps_an_unclaimed_run_in_postgres() {
    let scene = Scene::in_postgres().await;
    let Place::Postgres(url) = &scene.place else { unreachable!() };
    let store = PostgresStore::connect(url).await.unwrap();
    outlive_lease_alone(scene, &store).await;
}

#[tokio::test]
async fn a_suspended_process_that_lost_its_run_stops_in_sqlite() {
    let scene = Scene::in_sqlite();
    let Place::Sqlite(path) = &scene.place else { unreachable!() };
    let store = SqliteStore::open(Path::new(path)).await.unwrap();
    outlive_lease(scene, &store).await;
}

#[tokio::test]
async fn a_suspended_process_that_lost_its_run_stops_in_postgres() {
    let scene = Scene::in_postgres().await;
    let Place::Postgres(url) = &scene.place else { unreachable!() };
    let store = PostgresStore::connect(url).await.unwrap();
    outlive_lease(scene, &store).await;
}
