//! Names that are no arguments: the nearest argument, or where the option belongs.

/// Settings of a task that take a value of the program.
const OF_THE_BUILDER: &[&str] = &["limiter", "observer", "retry_budget"];

/// Options of one run.
const OF_A_RUN: &[&str] = &[
    "batch_wait",
    "batch_weight",
    "cache",
    "cancel_on_ctrl_c",
    "cancellation_token",
    "drain_token",
    "error_text",
    "give_back",
    "hold_back",
    "label",
    "limit_per",
    "observe",
    "ordered",
    "overload",
    "parallel",
    "progress_with",
    "recover",
    "redo",
    "retry_after",
    "retry_if",
    "split_failed",
    "weight",
    "with_total",
];

/// Describes the mistake and its cure.
pub(crate) fn explain(name: &str, function: &str, known: &[&str]) -> String {
    if OF_THE_BUILDER.contains(&name) {
        return format!(
            "`{name}` takes a value of the program, which an attribute cannot name: \
             `{function}::task().to_builder().{name}(..).build()` returns such a task"
        );
    }
    if OF_A_RUN.contains(&name) {
        return format!(
            "`{name}` is an option of a run, not of a task: `{function}::over(items).map({function})` takes it"
        );
    }
    let list = known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match nearest(name, known) {
        Some(near) => format!("unknown argument `{name}`, did you mean `{near}`? Allowed are {list}"),
        None => format!("unknown argument `{name}`; allowed are {list}"),
    }
}

/// Returns the name with the fewest differences. It has at most 3, and at most one for every three characters.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let most = (name.chars().count() / 3).clamp(1, 3);
    let (distance, near) = known.iter().map(|known| (distance(name, known), *known)).min()?;
    (distance <= most).then_some(near)
}

/// Returns how many characters must be added, removed or replaced to turn one text into the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    // The distances from the characters so far to each beginning of `to`.
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, from) in from.chars().enumerate() {
        let mut next = vec![index + 1];
        for ((to, pair), left) in to.iter().zip(row.windows(2)).zip(1..) {
            let &[replaced, removed] = pair else { continue };
            let added = next.get(left - 1).copied().unwrap_or(usize::MAX);
            next.push((replaced + usize::from(from != *to)).min(removed + 1).min(added.saturating_add(1)));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{names, setters_in};

    #[test]
    fn distances() {
        let table = [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("retries", "retrys", 2), ("ab", "ba", 2)];
        for (from, to, expected) in table {
            assert_eq!((distance(from, to), distance(to, from)), (expected, expected), "{from} {to}");
        }
    }

    #[test]
    fn the_nearest_name_is_suggested_if_it_is_near() {
        let known = names();
        let table = [
            ("concurency", Some("concurrency")),
            ("retry", None),
            ("retrys", Some("retries")),
            ("retires", Some("retries")),
            ("timeout_per_atempt", Some("timeout_per_attempt")),
            ("item_timeout", None),
            ("min_sucess_ratio", Some("min_success_ratio")),
            ("Fail_fast", Some("fail_fast")),
            ("x", None),
        ];
        for (name, near) in table {
            assert_eq!(nearest(name, &known), near, "{name}");
        }
    }

    #[test]
    fn every_option_of_a_run_is_known_here() {
        let of_runs = setters_in(&["run/options.rs", "run/limits.rs", "run/stopping.rs", "run/batches.rs"]);
        assert!(of_runs.len() > 10, "{of_runs:?}");
        for option in of_runs {
            assert!(OF_A_RUN.contains(&option.as_str()), "{option} is missing in OF_A_RUN");
        }
    }
}
