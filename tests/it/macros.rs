//! `#[map_task]`: the settings of the task, the forms of functions, and the functions beside them.

use std::cell::Cell;
use std::convert::Infallible;
use std::error::Error;
use std::fmt::{Debug, Display};
use std::num::ParseIntError;
use std::rc::Rc;
use std::str::FromStr;

use async_map_task::{AsyncMapTask, FailureReason, ItemContext, map_task};
use tokio::time::Instant;

use crate::support::{Set, millis, secs};

/// Declares one function for each setting, and a table of the tasks and their builders.
macro_rules! each_setting {
    ($($function:ident($($setting:tt)*) = $set:expr;)*) => {
        $(
            #[map_task(name = "each", $($setting)*)]
            async fn $function(item: u32) -> Result<u32, Infallible> {
                Ok(item)
            }
        )*

        #[test]
        fn each_setting_is_its_setter() {
            let table: &[(&str, &AsyncMapTask, Set)] =
                &[$((stringify!($($setting)*), $function::task(), $set)),*];
            for (setting, task, set) in table {
                let built = set(AsyncMapTask::builder().name("each")).build().unwrap();
                assert_eq!(format!("{task:?}"), format!("{built:?}"), "{setting}");
            }
            // Most values are not the default, so most tasks differ.
            let different: std::collections::BTreeSet<_> =
                table.iter().map(|(_, task, _)| format!("{task:?}")).collect();
            assert_eq!((table.len(), different.len()), (29, 26));
        }
    };
}

each_setting! {
    a() = |b| b;
    b(concurrency = 64) = |b| b.concurrency(64);
    c(unbounded_concurrency) = |b| b.unbounded_concurrency();
    d(unbounded_concurrency = true, look_ahead = 7) = |b| b.unbounded_concurrency().look_ahead(7);
    e(look_ahead = 1_000) = |b| b.look_ahead(1_000);
    f(retries = 3) = |b| b.retries(3);
    g(retries = 0xffff_ffff) = |b| b.retries(u32::MAX);
    h(retry_delay = "200ms") = |b| b.retry_delay(millis(200));
    i(max_retry_delay = "1m 30s") = |b| b.max_retry_delay(secs(90));
    j(retry_multiplier = 3) = |b| b.retry_multiplier(3.0);
    k(retry_jitter = 0.1) = |b| b.retry_jitter(0.1);
    l(retry_timeouts = false) = |b| b.retry_timeouts(false);
    m(retry_timeouts) = |b| b.retry_timeouts(true);
    n(timeout_per_attempt = "5s") = |b| b.timeout_per_attempt(secs(5));
    o(timeout_per_item = "30s") = |b| b.timeout_per_item(secs(30));
    p(run_timeout = "10m") = |b| b.run_timeout(secs(600));
    q(min_success_ratio = 0.07) = |b| b.min_success_ratio(0.07);
    r(allow_failures) = |b| b.allow_failures();
    s(allow_failures = false) = |b| b;
    t(min_successes = 10) = |b| b.min_successes(10);
    u(max_failures = 100) = |b| b.max_failures(100);
    v(early_success, min_successes = 1) = |b| b.min_successes(1).early_success(true);
    w(early_success = false) = |b| b.early_success(false);
    x(fail_fast) = |b| b.fail_fast(true);
    y(fail_fast = true, max_failures = 1) = |b| b.fail_fast(true).max_failures(1);
    z(accept_partial) = |b| b.accept_partial(true);
    aa(cancel_grace = "2s") = |b| b.cancel_grace(secs(2));
    bb(retries = 2, retry_delay = "1s500ms", timeout_per_item = "30s", min_success_ratio = 0.95) =
        |b| b.retries(2).retry_delay(millis(1_500)).timeout_per_item(secs(30)).min_success_ratio(0.95);
    // A comma after the last one, and an order of one's own.
    cc(cancel_grace = "1s", run_timeout = "1s", concurrency = 1,) =
        |b| b.concurrency(1).run_timeout(secs(1)).cancel_grace(secs(1));
}

#[map_task(concurrency = 8, min_success_ratio = 0.5)]
async fn clean_text(text: String) -> Result<String, ParseIntError> {
    text.trim().parse::<u32>().map(|number| number.to_string())
}

#[tokio::test]
async fn a_function_is_still_a_function_and_a_task_beside_it() {
    let texts = ["1 ", " 2", "x"].map(str::to_owned);
    assert_eq!(clean_text("  7".to_owned()).await.unwrap(), "7");

    let result = clean_text::run(texts.clone()).await.unwrap();
    assert_eq!(result.results, [Some("1".to_owned()), Some("2".to_owned()), None]);

    let seen = Cell::new(0);
    let run = clean_text::over(texts).map(clean_text).retry_if(|_: &ParseIntError| {
        seen.set(seen.get() + 1);
        true
    });
    assert_eq!(run.await.unwrap().successes(), 2);
    assert_eq!(seen.get(), 0, "the task has no retries");

    let other = clean_text::over([1, 2]).map(|n| async move { clean_text(format!(" {n}")).await });
    assert_eq!(other.await.unwrap().successes(), 2);
}

#[tokio::test]
async fn the_name_is_the_path_of_the_function() {
    let error = clean_text::run(["x".to_owned()]).await.unwrap_err();
    assert!(
        error.to_string().starts_with(concat!(module_path!(), "::clean_text: 1 of 1 item failed")),
        "{error}"
    );

    #[map_task]
    async fn r#try(item: u8) -> Result<u8, u8> {
        Err(item)
    }
    let error = r#try::run([1]).await.unwrap_err();
    assert!(error.to_string().starts_with(concat!(module_path!(), "::try: ")), "{error}");

    #[map_task(name = "resize")]
    async fn named(item: u8) -> Result<u8, u8> {
        Err(item)
    }
    assert!(named::run([1]).await.unwrap_err().to_string().starts_with("resize: "));
}

#[test]
fn a_task_is_built_once() {
    assert!(std::ptr::eq(clean_text::task(), clean_text::task()));
    let careful: AsyncMapTask = clean_text::task().to_builder().concurrency(1).build().unwrap();
    assert_ne!(format!("{careful:?}"), format!("{:?}", clean_text::task()));
}

#[tokio::test(start_paused = true)]
async fn the_settings_apply_to_runs() {
    #[map_task(retries = 2, retry_delay = "10s", retry_multiplier = 1, retry_jitter = 0, concurrency = 1)]
    async fn fail(item: u32) -> Result<(), u32> {
        Err(item)
    }
    let begin = Instant::now();
    let error = fail::run([7]).await.unwrap_err();
    assert_eq!((begin.elapsed(), error.partial().errors[&0].attempts()), (secs(20), 3));
}

#[tokio::test]
async fn the_items_may_borrow() {
    #[map_task(retries = 1, retry_delay = "0s")]
    async fn first_word(text: &str) -> Result<&str, String> {
        text.split(' ').next().filter(|word| !word.is_empty()).ok_or_else(|| "empty".to_owned())
    }

    #[map_task]
    async fn widths<'a, 'b: 'a>(pair: (&'a str, &'b [u8])) -> Result<(&'a str, &'b u8), Infallible> {
        Ok((pair.0, &pair.1[0]))
    }

    #[map_task]
    async fn lengths((left, right): (&str, &str)) -> Result<usize, Infallible> {
        Ok(left.len() + right.len())
    }

    #[map_task]
    async fn twice_borrowed(text: &&str) -> Result<usize, Infallible> {
        Ok(text.len())
    }

    let texts = ["a b".to_owned(), "c".to_owned()];
    let words = first_word::run(texts.iter().map(String::as_str)).await.unwrap();
    assert_eq!(words.results, [Some("a"), Some("c")]);
    let bytes = [1, 2];
    let pairs = widths::run([(texts[0].as_str(), bytes.as_slice())]).await.unwrap();
    assert_eq!(pairs.results, [Some(("a b", &1))]);
    assert_eq!(twice_borrowed::run(["ab", "c"].iter()).await.unwrap().results, [Some(2), Some(1)]);
    assert_eq!(lengths::run([("a", texts[0].as_str())]).await.unwrap().results, [Some(4)]);
}

#[tokio::test]
async fn functions_may_be_generic() {
    #[map_task]
    async fn parse<T: FromStr>(text: &str) -> Result<T, T::Err> {
        text.parse()
    }

    /// The bounds are in a `where` clause, and a constant is a parameter.
    #[map_task(retries = 1)]
    async fn show<T, const WIDTH: usize>(item: T) -> Result<String, Infallible>
    where
        T: Display + Clone,
    {
        Ok(format!("{item:>WIDTH$}"))
    }

    let numbers = parse::run::<u32>(["1", "2"]).await.unwrap();
    assert_eq!(numbers.into_successful_results(), [1, 2]);
    let floats: Vec<f64> = parse::run(["1.5"]).await.unwrap().into_successful_results();
    assert_eq!(floats, [1.5]);
    let shown = show::run::<_, 3>([7]).await.unwrap();
    assert_eq!(shown.results, [Some("  7".to_owned())]);
    let mapped = parse::over(["3"]).map(parse::<u8>).await.unwrap();
    assert_eq!(mapped.results, [Some(3)]);
}

#[tokio::test]
async fn a_context_comes_before_the_item() {
    #[map_task(concurrency = 2)]
    async fn numbered(cx: ItemContext, (name, _): (&str, u8)) -> Result<String, Infallible> {
        Ok(format!("{} {name}", cx.index()))
    }

    #[map_task]
    async fn with_path(context: async_map_task::ItemContext, item: u32) -> Result<u32, Infallible> {
        Ok(item + context.attempt())
    }

    let names = numbered::run([("a", 0), ("b", 0)]).await.unwrap();
    assert_eq!(names.into_successful_results(), ["0 a", "1 b"]);
    assert_eq!(with_path::run([1]).await.unwrap().results, [Some(2)]);
    let over = numbered::over([("a", 0)]).map_with_context(numbered);
    assert_eq!(over.await.unwrap().results, [Some("0 a".to_owned())]);
}

#[tokio::test]
async fn neither_items_nor_futures_need_more_than_the_task_does() {
    struct Ticket(u32); // not `Clone`

    #[map_task]
    async fn once(ticket: Ticket) -> Result<u32, Infallible> {
        Ok(ticket.0)
    }

    #[map_task]
    async fn local(shared: Rc<Cell<u32>>) -> Result<u32, Infallible> {
        let twin = Rc::clone(&shared);
        tokio::task::yield_now().await;
        twin.set(twin.get() + 1);
        Ok(shared.get())
    }

    #[map_task(retries = 0)]
    async fn in_place(number: &mut u32) -> Result<(), Infallible> {
        *number += 1;
        Ok(())
    }

    assert_eq!(once::run([Ticket(1)]).await.unwrap().results, [Some(1)]);
    assert_eq!(local::run([Rc::new(Cell::new(1))]).await.unwrap().results, [Some(2)]);
    let mut numbers = [1, 2];
    in_place::run(&mut numbers).await.unwrap();
    assert_eq!(numbers, [2, 3]);
}

#[tokio::test]
async fn a_run_can_be_spawned() {
    #[map_task]
    async fn double(number: u32) -> Result<u32, Infallible> {
        Ok(number * 2)
    }
    let run = tokio::spawn(double::run(vec![1, 2]));
    assert_eq!(run.await.unwrap().unwrap().into_successful_results(), [2, 4]);
}

mod elsewhere {
    use async_map_task::map_task;

    type Result<T, E = String> = std::result::Result<T, E>;

    /// A type that only this module sees.
    struct Hidden(u32);

    /// The documentation of the function.
    #[map_task(fail_fast)]
    #[must_use = "it is a future"]
    #[tracing::instrument]
    pub(super) async fn visible(number: u32) -> Result<u32> {
        Ok(number)
    }

    #[deprecated = "for a test"]
    #[map_task]
    async fn hidden(item: Hidden) -> std::io::Result<u32> {
        Ok(item.0)
    }

    pub(super) async fn both() -> (usize, usize) {
        #[expect(deprecated, reason = "the attribute is at the struct, too")]
        let hidden = hidden::run([Hidden(1)]);
        (hidden.await.unwrap().successes(), visible::run([1, 2]).await.unwrap().successes())
    }
}

#[tokio::test]
async fn attributes_visibility_and_aliases_survive() {
    assert_eq!(elsewhere::both().await, (1, 2));
    assert_eq!(elsewhere::visible(3).await.unwrap(), 3);
    assert_eq!(elsewhere::visible::run([3]).await.unwrap().results, [Some(3)]);
}

#[tokio::test]
async fn names_of_the_function_do_not_clash() {
    #[map_task]
    async fn items(items: u8) -> Result<u8, Infallible> {
        Ok(items)
    }

    #[map_task]
    async fn run(task: u8) -> Result<u8, Infallible> {
        Ok(task)
    }

    #[map_task]
    async fn over<'item, I: Debug>(pair: (&'item I, &str)) -> Result<&'item I, Infallible> {
        Ok(pair.0)
    }

    assert_eq!(items::run([1]).await.unwrap().results, [Some(1)]);
    assert_eq!(run::run([1]).await.unwrap().results, [Some(1)]);
    assert_eq!(over::run([(&1, "")]).await.unwrap().results, [Some(&1)]);
}

mod reexport {
    pub(crate) mod inner {
        pub(crate) use async_map_task::*;
    }
}

#[tokio::test]
async fn the_path_to_the_crate_can_be_given() {
    #[map_task(crate = crate::macros::reexport::inner, max_failures = 0)]
    async fn boxed(text: &str) -> Result<u32, Box<dyn Error + Send + Sync>> {
        Ok(text.parse()?)
    }
    let error = boxed::run(["1", "x"]).await.unwrap_err();
    assert!(matches!(error.reason(), FailureReason::TooManyFailures { failures: 1, allowed: 0 }));
}
