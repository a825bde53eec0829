//! Several lists as one, if they have the same length.

use std::cell::Cell;
use std::collections::BTreeSet;

use async_map_task::{AsyncMapTask, FailureReason, LengthMismatch, zip_exact, zip3_exact};

/// A list that counts the items that are taken from it.
struct Counted<'a> {
    left: usize,
    taken: &'a Cell<usize>,
}

impl Iterator for Counted<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        self.taken.set(self.taken.get() + 1);
        Some(self.left)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Counted<'_> {}

fn exact<I: ExactSizeIterator>(list: I) -> I {
    list
}

#[test]
fn lists_of_one_length_are_zipped() -> Result<(), LengthMismatch> {
    let pairs: Vec<_> = zip_exact(vec!["ada", "grace"], [36, 85])?.collect();
    assert_eq!(pairs, [("ada", 36), ("grace", 85)]);
    let rows: Vec<_> = zip3_exact(["a", "b"], 1..3_u8, &[true, false])?.collect();
    assert_eq!(rows, [("a", 1, &true), ("b", 2, &false)]);
    let sorted: BTreeSet<_> = ["b", "a"].into();
    assert!(zip_exact(sorted, [1, 2])?.eq([("a", 1), ("b", 2)]), "any list that knows its length");
    assert_eq!(zip_exact([0; 0], [""; 0])?.count(), 0);
    assert_eq!(zip3_exact([0; 0], [""; 0], [(); 0])?.count(), 0);
    Ok(())
}

#[test]
fn the_zipped_list_knows_its_length() -> Result<(), LengthMismatch> {
    let mut pairs = exact(zip_exact([1, 2, 3], ['a', 'b', 'c'])?);
    assert_eq!((pairs.len(), pairs.size_hint()), (3, (3, Some(3))));
    pairs.next();
    assert_eq!(pairs.len(), 2);
    let mut rows = exact(zip3_exact([1, 2, 3], ['a', 'b', 'c'], [(); 3])?);
    assert_eq!((rows.len(), rows.size_hint()), (3, (3, Some(3))));
    rows.next();
    assert_eq!(rows.len(), 2);
    Ok(())
}

#[test]
fn lists_of_different_lengths_are_refused() {
    let taken = Cell::new(0);
    let list = |left| Counted { left, taken: &taken };
    let mismatch = |list, found, required| {
        let items = if found == 1 { "item" } else { "items" };
        format!(
            "the lists to zip must have the same length, but list {list} has {found} {items} and list 1 has {required}"
        )
    };

    for (a, b) in [(2, 1), (1, 2), (0, 3), (3, 0)] {
        let (mut first, mut second) = (list(a), list(b));
        let error = zip_exact(first.by_ref(), second.by_ref()).err().unwrap();
        assert_eq!(error.to_string(), mismatch(2, b, a));
        assert_eq!((first.len(), second.len(), taken.get()), (a, b, 0));
    }
    for (a, b, c, wrong) in [(2, 1, 2, 2), (2, 2, 1, 3), (1, 2, 2, 2), (0, 0, 1, 3), (1, 2, 3, 2)] {
        let (mut first, mut second, mut third) = (list(a), list(b), list(c));
        let error = zip3_exact(first.by_ref(), second.by_ref(), third.by_ref()).err().unwrap();
        assert_eq!(error.to_string(), mismatch(wrong, if wrong == 2 { b } else { c }, a));
        assert_eq!((first.len(), second.len(), third.len(), taken.get()), (a, b, c, 0));
    }
}

#[test]
fn lists_are_read_one_item_at_a_time() -> Result<(), LengthMismatch> {
    let (first, second, third) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let list = |taken| Counted { left: 5, taken };
    let counts = || [first.get(), second.get(), third.get()];

    let mut pairs = zip_exact(list(&first), list(&second))?;
    assert_eq!(counts(), [0, 0, 0], "zipping takes nothing");
    assert_eq!(pairs.next(), Some((4, 4)));
    assert_eq!(counts(), [1, 1, 0]);
    drop(pairs);
    first.set(0);
    second.set(0);

    let mut rows = zip3_exact(list(&first), list(&second), list(&third))?;
    assert_eq!(counts(), [0, 0, 0], "zipping takes nothing");
    assert_eq!((rows.next(), rows.next()), (Some((4, 4, 4)), Some((3, 3, 3))));
    assert_eq!(counts(), [2, 2, 2]);
    Ok(())
}

#[tokio::test]
async fn zipped_lists_have_a_known_total() {
    let task = AsyncMapTask::builder().concurrency(1).min_success_ratio(0.9).build().unwrap();
    let taken = Cell::new(0);
    let lists = zip_exact(Counted { left: 100, taken: &taken }, 0..100).unwrap();
    let error = task
        .over(lists)
        .map(|(down, up)| async move { if up % 2 == 1 { Err("odd") } else { Ok(down + up) } })
        .await
        .unwrap_err();
    // With a known total the run stops at the eleventh failure, item 21, and reports the items that did not start.
    assert!(matches!(error.reason(), FailureReason::TooManyFailures { failures: 11, allowed: 10 }));
    let partial = error.partial();
    assert_eq!((partial.total(), partial.successes(), partial.not_started()), (100, 11, 78));
    assert!(partial.successful_results().all(|sum| *sum == 99));
    assert!(taken.get() <= 23, "no more is taken than may start: {}", taken.get());

    let rows = zip3_exact(["a", "b"], [1, 2], [Some(0.5), None]).unwrap();
    let error = AsyncMapTask::builder()
        .concurrency(1)
        .build()
        .unwrap()
        .over(rows)
        .map(|(name, _, weight)| async move { weight.filter(|_| name != "a").ok_or(name) })
        .await
        .unwrap_err();
    assert_eq!((error.summary().total, error.summary().not_started), (2, 1));
}

#[tokio::test]
async fn zipped_lists_are_mapped_element_by_element() -> anyhow::Result<()> {
    async fn greet(name: &str, age: u8) -> Result<String, String> {
        Ok(format!("{name} is {age}"))
    }

    let task = AsyncMapTask::default();
    let (names, ages) = (["ada", "grace"], vec![36, 85]);
    let greetings = task.over(zip_exact(names, ages)?).map(|(name, age)| greet(name, age)).await?;
    assert_eq!(greetings.into_successful_results(), ["ada is 36", "grace is 85"]);

    let started = Cell::new(false);
    let run = async {
        task.over(zip_exact(names, [36])?)
            .map(|(name, age)| {
                started.set(true);
                greet(name, age)
            })
            .await?;
        anyhow::Ok(())
    };
    let error = run.await.unwrap_err();
    assert!(error.is::<LengthMismatch>());
    assert!(!started.get(), "unequal lengths are an error before anything starts");
    Ok(())
}
