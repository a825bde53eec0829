//! The texts, their tokens, and the limits of the server for them.

use std::fs;
use std::io;
use std::path::Path;

pub(crate) const MAX_INPUTS: usize = 96;
/// The maximum number of tokens in a request.
pub(crate) const MAX_TOKENS: u32 = 8_000;
/// The maximum number of tokens in a text.
pub(crate) const MAX_TEXT: u32 = 512;

const WORDS: [&str; 12] =
    ["snow", "falls", "on", "the", "old", "bridge", "and", "a", "train", "waits", "for", "rain"];

/// Counts the tokens of a text. Here these are its words; a real model has a tokenizer.
pub(crate) fn tokens(text: &str) -> u32 {
    text.split_whitespace().count().try_into().unwrap_or(u32::MAX)
}

pub(crate) fn read_texts(path: &Path) -> io::Result<Vec<String>> {
    Ok(fs::read_to_string(path)?.lines().map(str::to_owned).collect())
}

/// Returns texts of 5 to 150 words, some of which are too long.
pub(crate) fn sample_texts() -> Vec<String> {
    let words = |index: usize| if index % 1_000 == 700 { 600 } else { 5 + index * 37 % 146 };
    (0..4_000).map(|index| text(index, words(index))).collect()
}

fn text(index: usize, words: usize) -> String {
    let words = WORDS.iter().cycle().skip(index % WORDS.len()).take(words - 1);
    words.fold(index.to_string(), |text, word| text + " " + word)
}

/// Returns how many requests the texts need in their order, without those that are too long.
pub(crate) fn least_requests(texts: &[String]) -> usize {
    let (mut requests, mut inputs, mut sum) = (0, MAX_INPUTS, 0);
    for tokens in texts.iter().map(|text| tokens(text)).filter(|tokens| *tokens <= MAX_TEXT) {
        if inputs == MAX_INPUTS || sum + tokens > MAX_TOKENS {
            (requests, inputs, sum) = (requests + 1, 0, 0);
        }
        inputs += 1;
        sum += tokens;
    }
    requests
}
