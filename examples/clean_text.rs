//! Cleans a batch of documents: removes tags and surplus white space, and converts to lower case.
//!
//! ```text
//! cargo run --example clean_text [<dir>]
//! ```
//!
//! It shows a batch that tolerates some failures. One of the six documents is not UTF-8, and a `min_success_ratio` of
//! 0.8 lets the run succeed without it. The program still prints its name and its error.

#![allow(clippy::print_stdout, reason = "an example shows what it does by printing it")]

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use async_map_task::AsyncMapTask;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let dir = env::args_os().nth(1).map_or_else(default_dir, PathBuf::from);
    let documents = documents_in(&dir)?;

    let task = AsyncMapTask::builder().name("clean_text").min_success_ratio(0.8).build()?;
    let result = task.run(&documents, |path| clean_file(path)).await?;

    for (path, text) in documents.iter().zip(&result.results) {
        if let Some(text) = text {
            println!("{}: {text}", file_name(path));
        }
    }
    for (index, error) in &result.errors {
        println!("{}: {error}", documents.get(*index).map_or_else(Default::default, |path| file_name(path)));
    }
    println!("{} of {} documents are clean", result.successes(), result.total());
    Ok(())
}

async fn clean_file(path: &Path) -> io::Result<String> {
    let html = tokio::fs::read_to_string(path).await?;
    Ok(clean(&html))
}

/// Returns the text without tags and comments, with single spaces, in lower case.
fn clean(html: &str) -> String {
    let mut text = String::with_capacity(html.len());
    let mut rest = html;
    while let Some((before, from)) = rest.find('<').map(|at| rest.split_at(at)) {
        text.push_str(before);
        let length = tag_length(from);
        let (tag, after) = from.split_at(length.max(1));
        text.push_str(if length == 0 { "<" } else { separator(tag) });
        rest = after;
    }
    text.push_str(rest);
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// A heading ends a word. Emphasis may be in the middle of one.
fn separator(tag: &str) -> &'static str {
    let name = tag.trim_start_matches(['<', '/']).split(|c: char| !c.is_ascii_alphanumeric()).next();
    let name = name.unwrap_or_default().to_ascii_lowercase();
    if ["a", "b", "em", "i", "span", "strong"].contains(&name.as_str()) { "" } else { " " }
}

/// Returns the number of bytes of the tag or comment that begins with this `<`. It is zero for the `<` of `3 < 5`,
/// and the whole rest if the end is missing.
fn tag_length(from: &str) -> usize {
    if from.starts_with("<!--") {
        return from.find("-->").map_or(from.len(), |end| end + "-->".len());
    }
    if !from.chars().nth(1).is_some_and(|next| next.is_ascii_alphabetic() || "/!?".contains(next)) {
        return 0;
    }
    let mut quote = None;
    for (at, character) in from.char_indices() {
        match quote {
            None if character == '>' => return at + 1,
            None if "\"'".contains(character) => quote = Some(character),
            Some(open) if open == character => quote = None,
            _ => {}
        }
    }
    from.len()
}

fn documents_in(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn default_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/texts")
}
