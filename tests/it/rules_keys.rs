//! Rule 41: a limit for each key, and which keys are remembered.

use std::cell::Cell;
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use async_map_task::{ConfigError, KeyedLimiter, Permit};
use futures::future::join_all;
use futures::{FutureExt, poll};
use tokio::time::{Instant, advance, sleep, timeout};

use crate::support::{Alive, Gauge, HOUR, Log, Random, let_others_run, millis, paused, secs};

/// A key that counts how many of it are alive.
#[derive(Clone)]
struct Counted {
    number: u64,
    _alive: Alive,
}

impl Counted {
    fn new(number: u64, gauge: &Gauge) -> Self {
        Self { number, _alive: gauge.enter() }
    }
}

impl PartialEq for Counted {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Counted {}

impl Hash for Counted {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

/// Takes a permit of the key for some time, and notes its number when it has it.
fn user(
    limiter: &KeyedLimiter<&'static str>,
    log: &Log<(&'static str, u32)>,
    key: &'static str,
    number: u32,
    time: Duration,
) -> impl Future<Output = ()> + Send + 'static {
    let (limiter, log) = (limiter.clone(), log.clone());
    async move {
        let permit = limiter.acquire(key).await.unwrap();
        log.note((key, number));
        sleep(time).await;
        drop(permit);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_41_at_most_n_at_once_for_each_key_and_in_order() {
    let limiter = KeyedLimiter::new(2);
    let log = Log::open();
    let users: Vec<_> =
        (0..5).map(|number| tokio::spawn(user(&limiter, &log, "a", number, secs(10)))).collect();
    let_others_run().await;
    assert_eq!((limiter.in_use(&"a"), limiter.waiting(&"a"), limiter.keys()), (2, 3, 1));
    join_all(users).await;
    let of_a = |number| ("a", number);
    let expected = [(0, of_a(0)), (0, of_a(1)), (10_000, of_a(2)), (10_000, of_a(3)), (20_000, of_a(4))];
    assert_eq!(log.timed(), expected);
    assert_eq!((limiter.in_use(&"a"), limiter.waiting(&"a"), limiter.keys()), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn rule_41_a_full_key_does_not_delay_another() {
    let limiter = KeyedLimiter::new(1);
    let log = Log::open();
    let users = [("a", 0), ("a", 1), ("b", 0), ("a", 2), ("c", 0), ("b", 1)];
    join_all(
        users.map(|(key, number)| user(&limiter, &log, key, number, secs(if key == "a" { 100 } else { 1 }))),
    )
    .await;
    let expected = [
        (0, ("a", 0)),
        (0, ("b", 0)),
        (0, ("c", 0)),
        (1_000, ("b", 1)),
        (100_000, ("a", 1)),
        (200_000, ("a", 2)),
    ];
    assert_eq!(log.timed(), expected);
}

#[tokio::test(start_paused = true)]
async fn rule_41_each_key_has_a_rate_of_its_own() {
    let limiter = KeyedLimiter::builder().rate(10, secs(1)).burst(2).build().unwrap();
    let log = Log::open();
    let users = (0..4).flat_map(|number| ["a", "b"].map(|key| user(&limiter, &log, key, number, secs(0))));
    join_all(users).await;
    let mut times = log.timed();
    times.sort_by_key(|(_, line)| *line);
    for (key, times) in ["a", "b"].iter().zip(times.chunks(4)) {
        let expected = [0, 0, 100, 200].iter().zip(0..).map(|(time, number)| (*time, (*key, number)));
        assert!(times.iter().copied().eq(expected), "{times:?}");
    }
    // Two starts of the burst are still counted.
    assert_eq!(limiter.keys(), 2);
    sleep(millis(199)).await;
    assert_eq!(limiter.keys(), 2);
    sleep(millis(1)).await;
    assert_eq!(limiter.keys(), 0);
}

#[tokio::test(start_paused = true)]
async fn rule_41_a_hold_is_of_one_key() {
    let limiter = KeyedLimiter::new(2);
    let log = Log::open();
    assert!(limiter.hold_back(&"a", secs(100)));
    assert_eq!((limiter.keys(), limiter.in_use(&"a")), (1, 0));
    assert!(limiter.try_acquire("a").is_none());
    let users = [("a", 0), ("b", 0), ("a", 1), ("b", 1)];
    join_all(users.map(|(key, number)| user(&limiter, &log, key, number, millis(1)))).await;
    // The second start of `a` comes after half of the tenth.
    let expected = [(0, ("b", 0)), (0, ("b", 1)), (100_000, ("a", 0)), (105_000, ("a", 1))];
    assert_eq!(log.timed(), expected);
    // The tenth belongs to the hold: it began at 100 s, and ends at 110 s.
    sleep(millis(4_990)).await;
    assert_eq!(limiter.keys(), 1);
    sleep(millis(10)).await;
    assert_eq!(limiter.keys(), 0);
}

#[tokio::test(start_paused = true)]
async fn rule_41_a_hold_is_capped_and_kept_beyond_the_most_keys() {
    let limiter = KeyedLimiter::builder().permits(1).max_keys(1).max_hold(secs(10)).build().unwrap();
    let permit = limiter.acquire(0).await.unwrap();
    // The key in use can be held at any time. A new one is kept beyond the bound, and a third one is not.
    assert!(limiter.hold_back(&0, HOUR) && limiter.hold_back(&1, HOUR) && !limiter.hold_back(&2, HOUR));
    assert!(limiter.hold_back(&1, HOUR));
    assert_eq!(limiter.keys(), 2);
    drop(permit);
    let begun = Instant::now();
    drop(limiter.acquire(1).await.unwrap());
    assert_eq!(begun.elapsed(), secs(10), "a remembered key does not wait for room");
    drop(limiter.acquire(2).await.unwrap());
    assert_eq!(begun.elapsed(), secs(11), "two keys had to recover, and both did so then");
    assert_eq!(limiter.keys(), 0);
}

/// Each key differs, so forgetting is all that keeps the map small.
#[test]
fn rule_41_a_million_keys_in_sequence_leave_a_small_map() {
    const KEYS: u64 = 1_000_000;
    let gauge = Gauge::default();
    let limiter = KeyedLimiter::new(1);
    for number in 0..KEYS {
        let permit = limiter.acquire(Counted::new(number, &gauge)).now_or_never();
        drop(permit.expect("there is room").unwrap());
    }
    assert_eq!(gauge.ever() as u64, 2 * KEYS, "each key is cloned once");
    assert!(gauge.peak() <= 4, "{} keys at once", gauge.peak());
    assert_eq!((limiter.keys(), gauge.now()), (0, 0));
}

/// As many keys as possible are in use at once, and then each is used alone.
#[test]
fn rule_41_memory_follows_the_keys_in_use() {
    let gauge = Gauge::default();
    let limiter = KeyedLimiter::new(1);
    let take = |number| limiter.try_acquire(Counted::new(number, &gauge)).unwrap();
    let permits: Vec<_> = (0..KeyedLimiter::<u64>::DEFAULT_MAX_KEYS as u64).map(take).collect();
    assert!(limiter.try_acquire(Counted::new(u64::MAX, &gauge)).is_none());
    assert_eq!(limiter.keys(), permits.len());
    let count = permits.len();
    drop(permits);
    assert_eq!(gauge.now(), count, "no call has forgotten one since");
    (0..count as u64 / 6).for_each(|number| drop(take(number)));
    assert!(gauge.now() <= 8, "{} are remembered", gauge.now());
}

#[tokio::test(start_paused = true)]
async fn rule_41_a_new_key_waits_for_a_permit_of_another() {
    let limiter = KeyedLimiter::builder().permits(2).max_keys(2).build().unwrap();
    let permits = [limiter.try_acquire("a").unwrap(), limiter.try_acquire("a").unwrap()];
    let other = limiter.try_acquire("b").unwrap();
    let log = Log::open();
    // Without a rate or a hold, only a permit can make room. So no timer is needed.
    let new: Vec<_> = ["c", "d", "e"].map(|key| tokio::spawn(user(&limiter, &log, key, 0, secs(5)))).into();
    sleep(secs(1)).await;
    assert!(limiter.try_acquire("b").is_some(), "a key that is remembered does not wait");
    assert!(limiter.try_acquire("c").is_none());
    let [first, second] = permits;
    drop(first);
    sleep(secs(1)).await;
    assert_eq!(log.lines(), [], "the key has another permit in use");
    drop(second);
    assert!(limiter.try_acquire("f").is_none(), "another waits");
    sleep(secs(1)).await;
    assert_eq!(log.timed(), [(2_000, ("c", 0))]);
    drop(other);
    join_all(new).await;
    assert_eq!(log.timed()[1..], [(3_000, ("d", 0)), (7_000, ("e", 0))]);
    assert_eq!(limiter.keys(), 0);
}

#[tokio::test(start_paused = true)]
async fn rule_41_a_new_key_waits_until_a_rate_has_recovered() {
    let limiter = KeyedLimiter::builder().rate(1, secs(10)).max_keys(1).build().unwrap();
    let log = Log::open();
    let users =
        (0..2).flat_map(|number| ["a", "b", "c"].map(|key| user(&limiter, &log, key, number, secs(1))));
    let users: Vec<_> = users.map(tokio::spawn).collect();
    for user in users {
        timeout(HOUR, user).await.expect("no timer is set for that time").unwrap();
    }
    // The key that is remembered goes first.
    let expected = [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("c", 0), ("c", 1)];
    assert_eq!(
        log.timed(),
        expected.iter().zip([0, 10, 20, 30, 40, 50]).map(|(line, s)| (s * 1_000, *line)).collect::<Vec<_>>()
    );
    assert_eq!(limiter.keys(), 1);
    sleep(secs(10)).await;
    assert_eq!(limiter.keys(), 0);
}

#[tokio::test(start_paused = true)]
async fn rule_41_a_new_key_waits_until_a_hold_has_ended() {
    let limiter = KeyedLimiter::builder().permits(1).max_keys(1).build().unwrap();
    limiter.hold_back(&"a", secs(100));
    let log = Log::open();
    let waiting = tokio::spawn(user(&limiter, &log, "b", 0, secs(0)));
    sleep(secs(90)).await;
    // It extends the first one while another task waits for its end.
    limiter.hold_back(&"a", secs(50));
    timeout(HOUR, waiting).await.expect("no timer is set for that time").unwrap();
    assert_eq!(log.times(), [145_000]);
    // A short hold that replaces a long one is over earlier than that would have been.
    limiter.hold_back(&"a", secs(100));
    assert_eq!(limiter.keys(), 1);
    sleep(millis(99_500)).await;
    limiter.hold_back(&"a", secs(1));
    timeout(HOUR, user(&limiter, &log, "b", 1, secs(0))).await.unwrap();
    assert_eq!(log.times()[1], 145_000 + 100_600);
}

#[tokio::test(start_paused = true)]
async fn rule_41_a_waiting_request_that_is_dropped_leaves_nothing_behind() {
    let gauge = Gauge::default();
    let limiter = KeyedLimiter::builder().permits(1).max_keys(1).build().unwrap();
    let permit = limiter.acquire(Counted::new(0, &gauge)).await.unwrap();
    let key = |number| Counted::new(number, &gauge);
    // One that waits for its key, and four that wait for room.
    let mut same = Box::pin(limiter.acquire(key(0)));
    let mut waiting: Vec<_> = [1, 2, 2, 3].map(|number| Box::pin(limiter.acquire(key(number)))).into();
    assert!(poll!(&mut same).is_pending());
    for waiting in &mut waiting {
        assert!(poll!(waiting).is_pending());
    }
    assert_eq!((limiter.waiting(&key(0)), limiter.waiting(&key(1)), limiter.keys()), (1, 0, 1));
    drop(same);
    drop(waiting.remove(0));
    drop(waiting.remove(1));
    assert_eq!((gauge.now(), limiter.waiting(&key(0))), (3, 0));
    drop(permit);
    // The first one is woken, and leaves without its turn. So the last one has it.
    drop(waiting.remove(0));
    let permit = timeout(HOUR, waiting.remove(0)).await.expect("its turn is lost").unwrap();
    assert_eq!((limiter.in_use(&key(3)), limiter.keys()), (1, 1));
    drop((permit, waiting));
    assert_eq!((limiter.keys(), gauge.now()), (0, 0));
    // Also a future that was never polled.
    drop(limiter.acquire(key(4)));
    assert_eq!((limiter.keys(), gauge.now()), (0, 0));
}

type Waiting<'a> = Pin<Box<dyn Future<Output = Result<Permit, ConfigError>> + 'a>>;

/// Requests come, are polled, get their permits and are dropped at random. Then all that are left get their permits.
#[test]
fn rule_41_a_request_can_be_dropped_at_any_point() {
    for round in 0..1_000 {
        paused().block_on(async {
            let random = &mut Random(round);
            let gauge = Gauge::default();
            let mut builder = KeyedLimiter::builder().permits(1).max_keys(1 + random.below(2) as usize);
            if random.below(2) == 0 {
                builder = builder.rate(1, millis(1 + random.below(20))).burst(1 + random.below(2) as u32);
            }
            let limiter = builder.build().unwrap();
            let mut waiting: Vec<Waiting<'_>> = Vec::new();
            let mut permits = Vec::new();
            for _ in 0..30 {
                let at = random.below(waiting.len().max(1) as u64) as usize;
                match random.below(8) {
                    0..=2 => waiting.push(Box::pin(limiter.acquire(Counted::new(random.below(4), &gauge)))),
                    3..=4 if at < waiting.len() => {
                        if let Some(permit) = poll_once(&mut waiting[at]) {
                            permits.push(permit.unwrap());
                            drop(waiting.swap_remove(at));
                        }
                    }
                    5 if at < waiting.len() => drop(waiting.swap_remove(at)),
                    6 => drop(permits.pop()),
                    _ if random.below(4) == 0 => {
                        limiter.hold_back(&Counted::new(random.below(4), &gauge), millis(random.below(30)));
                    }
                    _ => advance(millis(random.below(10))).await,
                }
            }
            drop(permits);
            let rest = join_all(waiting.into_iter().map(|waiting| async { drop(waiting.await.unwrap()) }));
            timeout(HOUR, rest).await.unwrap_or_else(|_| panic!("round {round} hangs"));
            sleep(secs(1)).await;
            assert_eq!((limiter.keys(), gauge.now()), (0, 0), "round {round}");
        });
    }
}

fn poll_once<T>(future: &mut Pin<Box<dyn Future<Output = T> + '_>>) -> Option<T> {
    future.as_mut().now_or_never()
}

/// The threads use more keys than are remembered. Each permit is needed by another thread soon.
#[test]
fn rule_41_threads_share_the_keys() {
    const KEYS: usize = 6;
    let limiter = KeyedLimiter::builder().permits(2).max_keys(3).build().unwrap();
    let used: Arc<[AtomicUsize; KEYS]> = Arc::default();
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let (limiter, used) = (limiter.clone(), Arc::clone(&used));
            thread::spawn(move || {
                let mut random = Random(thread);
                let mut most = 0;
                for _ in 0..2_000 {
                    let key = random.below(KEYS as u64) as usize;
                    if random.below(4) == 0 {
                        // It is dropped while it waits, or its permit is.
                        drop(limiter.acquire(key).now_or_never());
                        continue;
                    }
                    let permit = futures_executor::block_on(limiter.acquire(key)).unwrap();
                    most = most.max(used[key].fetch_add(1, SeqCst) + 1);
                    used[key].fetch_sub(1, SeqCst);
                    drop(permit);
                }
                most
            })
        })
        .collect();
    let most = threads.into_iter().map(|thread| thread.join().unwrap()).max();
    assert!(most <= Some(2), "{most:?} at once");
    assert_eq!(limiter.keys(), 0);
}

#[tokio::test]
async fn the_builder_of_a_keyed_limiter_names_what_is_wrong() {
    let error = |builder: async_map_task::KeyedLimiterBuilder<u32>| builder.build().unwrap_err().to_string();
    let new = KeyedLimiter::<u32>::builder;
    assert_eq!(error(new().max_keys(0)), "max_keys must be at least 1, got 0");
    assert_eq!(error(new().permits(0)), "permits must be at least 1, got 0");
    assert_eq!(error(new().burst(5)), "burst must be set together with a rate, got 5");
    assert_eq!(error(new().rate(0, secs(1))), "rate must be at least 1 per period, got 0");
    assert_eq!(error(new().max_hold(secs(0))), "max_hold must be above 0 and at most 24 hours, got 0ns");
    let none = KeyedLimiter::new(0);
    let error = none.acquire("a").await.unwrap_err();
    assert_eq!(error.to_string(), "limiter must be created with at least 1 permit, got KeyedLimiter::new(0)");
    assert!(none.try_acquire("a").is_none());
    assert_eq!(none.keys(), 0);
}

#[test]
fn a_keyed_limiter_is_shared_freely() {
    fn shared<T: Clone + Send + Sync + Unpin + std::fmt::Debug + 'static>(_: &T) {}
    fn sent<T: Send>(future: T) -> T {
        future
    }

    /// Neither `Debug` nor `Sync`.
    #[derive(Clone, PartialEq, Eq)]
    struct Key(Cell<u8>);

    impl Hash for Key {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.0.get().hash(state);
        }
    }

    let limiter = KeyedLimiter::new(1);
    shared(&limiter);
    shared(&KeyedLimiter::<Key>::builder().permits(1));
    drop(sent(limiter.acquire(Key(1.into()))));
    assert_eq!(format!("{limiter:?}"), "KeyedLimiter { max_keys: 100000, keys: 0 }");
    // Without a runtime.
    let permit = limiter.acquire(Key(1.into())).now_or_never().unwrap().unwrap();
    assert!(limiter.acquire(Key(1.into())).now_or_never().is_none());
    assert_eq!(format!("{limiter:?}"), "KeyedLimiter { max_keys: 100000, keys: 1 }");
    drop(permit);
}
