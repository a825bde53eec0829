//! Failures, grouped by their kind and text.

use std::collections::HashMap;

use crate::outcome::FailureKind;

/// How many groups there are at most. Other texts are counted together for each kind.
const GROUPS: usize = 200;

/// How many items of a group are named.
const EXAMPLES: usize = 5;

/// How much of a text is kept, in characters.
const LENGTH: usize = 300;

/// The groups of the failed attempts. Texts that differ only in their numbers are one group.
#[derive(Debug, Clone, Default)]
pub(super) struct Failures {
    groups: HashMap<(FailureKind, String), Group>,
}

/// The failed attempts of one kind and text.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) kind: FailureKind,
    /// The text of the first one. `None` if there is no text, or if the texts are those of which there are too many.
    pub(super) text: Option<String>,
    /// `true` for the group of all texts beyond those that are counted apart.
    pub(super) is_rest: bool,
    pub(super) attempts: u64,
    /// How many items failed with it for good.
    pub(super) items: u64,
    /// Indices and labels of items, those that failed for good first.
    pub(super) examples: Vec<Example>,
}

#[derive(Debug, Clone)]
pub(super) struct Example {
    pub(super) index: usize,
    pub(super) label: Option<String>,
    is_final: bool,
}

/// A failed attempt.
pub(super) struct Failed<'a> {
    pub(super) index: usize,
    pub(super) kind: FailureKind,
    pub(super) text: Option<&'a str>,
    pub(super) label: Option<&'a str>,
    pub(super) is_final: bool,
}

impl Failures {
    pub(super) fn record(&mut self, failed: &Failed<'_>) {
        let text = failed.text.map(shorten);
        let mut key = (failed.kind, text.as_deref().map(without_numbers).unwrap_or_default());
        let is_rest = self.groups.len() >= GROUPS && !self.groups.contains_key(&key);
        if is_rest {
            // No text without numbers contains one.
            key.1 = "0".to_owned();
        }
        let group = self.groups.entry(key).or_insert_with(|| Group {
            kind: failed.kind,
            text: text.filter(|_| !is_rest),
            is_rest,
            attempts: 0,
            items: 0,
            examples: Vec::new(),
        });
        group.add(failed);
    }

    /// Returns the groups, the most frequent first.
    pub(super) fn groups(&self) -> Vec<Group> {
        let mut groups: Vec<_> = self.groups.values().cloned().collect();
        groups.sort_by(|one, other| {
            let order = |group: &Group| (group.items, group.attempts);
            order(other).cmp(&order(one)).then_with(|| one.text.cmp(&other.text))
        });
        groups
    }
}

impl Group {
    fn add(&mut self, failed: &Failed<'_>) {
        self.attempts += 1;
        self.items += u64::from(failed.is_final);
        if let Some(known) = self.examples.iter_mut().find(|example| example.index == failed.index) {
            known.is_final |= failed.is_final;
            return;
        }
        if self.examples.len() == EXAMPLES {
            // An item that was retried says less than one that failed.
            let Some(at) = self.examples.iter().position(|example| !example.is_final) else { return };
            if !failed.is_final {
                return;
            }
            self.examples.remove(at);
        }
        let (index, is_final) = (failed.index, failed.is_final);
        let example = Example { index, label: failed.label.map(shorten), is_final };
        let at = if is_final {
            self.examples.iter().filter(|example| example.is_final).count()
        } else {
            usize::MAX
        };
        self.examples.insert(at.min(self.examples.len()), example);
    }
}

/// Returns a text that is short enough to be kept.
pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(LENGTH) {
        Some(_) => text.chars().take(LENGTH).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

/// Returns a text in which each number is one sign, so that texts that differ only in numbers are equal.
fn without_numbers(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut in_number = false;
    for char in text.chars() {
        let is_digit = char.is_ascii_digit();
        if !is_digit {
            result.push(char);
        } else if !in_number {
            result.push('#');
        }
        in_number = is_digit;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(index: usize, text: &str, is_final: bool) -> Failed<'_> {
        Failed { index, kind: FailureKind::Failed, text: Some(text), label: None, is_final }
    }

    #[test]
    fn texts_that_differ_in_numbers_are_one_group() {
        let mut failures = Failures::default();
        failures.record(&failed(3, "status 503 after 12 ms", false));
        failures.record(&failed(3, "status 502 after 7 ms", true));
        failures.record(&failed(4, "refused", false));
        let groups = failures.groups();
        let counts: Vec<_> =
            groups.iter().map(|group| (group.text.as_deref(), group.attempts, group.items)).collect();
        assert_eq!(counts, [(Some("status 503 after 12 ms"), 2, 1), (Some("refused"), 1, 0)]);
        assert_eq!(groups[0].examples.len(), 1);
    }

    #[test]
    fn the_examples_are_items_that_failed_for_good() {
        let mut failures = Failures::default();
        for index in 0..20 {
            failures.record(&failed(index, "refused", index >= 10));
        }
        let groups = failures.groups();
        let indices: Vec<_> = groups[0].examples.iter().map(|example| example.index).collect();
        assert_eq!(indices, [10, 11, 12, 13, 14]);
    }

    #[test]
    fn memory_is_bounded_by_the_number_of_groups_and_the_length_of_texts() {
        let mut failures = Failures::default();
        for index in 0..10_000 {
            let letters: String = index.to_string().bytes().map(|digit| char::from(digit + 50)).collect();
            failures.record(&failed(index, &letters, true));
        }
        let groups = failures.groups();
        assert_eq!(groups.len(), GROUPS + 1);
        assert_eq!(groups[0].items, 10_000 - GROUPS as u64);
        assert!(groups[0].is_rest && groups[0].text.is_none());
        assert_eq!(shorten(&"é".repeat(1_000)).chars().count(), LENGTH + 1);
        assert_eq!(shorten("é"), "é");
    }
}
