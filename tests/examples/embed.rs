//! The example `embed`.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::harness::{Ended, Sandbox};

/// The limits of the server.
const MAX_INPUTS: usize = 96;
const MAX_TOKENS: usize = 8_000;
const MAX_TEXT: usize = 512;

/// Runs the example with these texts, and returns the embeddings by the index of their text.
fn embed(sandbox: &Sandbox, texts: &[String]) -> (Ended, BTreeMap<usize, Vec<f32>>) {
    let (file, out) = (sandbox.file("texts", texts.join("\n")), sandbox.path("embeddings.jsonl"));
    let ended = sandbox.example("embed").arg("--texts").arg(file).arg("--out").arg(&out).run();
    let mut embeddings = BTreeMap::new();
    for line in fs::read_to_string(out).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let index = line["index"].as_u64().unwrap() as usize;
        let embedding = serde_json::from_value(line["embedding"].clone()).unwrap();
        assert_eq!(embeddings.insert(index, embedding), None, "text {index} has two embeddings");
    }
    (ended, embeddings)
}

/// The model of the server.
fn embedding(text: &str) -> Vec<f32> {
    let bit = |byte: u8, dimension: u8| f32::from(byte >> dimension & 1);
    let sum = |dimension| {
        text.bytes().enumerate().map(|(at, byte)| bit(byte, dimension) * (1 + at % 7) as f32).sum::<f32>()
    };
    let sums: Vec<f32> = (0..8).map(sum).collect();
    let length = sums.iter().map(|sum| sum * sum).sum::<f32>().sqrt().max(1.0);
    sums.iter().map(|sum| sum / length).collect()
}

/// A text with this number of words.
fn text(index: usize, words: usize) -> String {
    (1..words).fold(index.to_string(), |text, word| format!("{text} word{}", index * word % 997))
}

fn words(text: &str) -> usize {
    text.split(' ').count()
}

/// The requests for texts that are not too long, if nothing fails.
fn least(texts: &[String]) -> usize {
    let (mut requests, mut room) = (0, (0, 0));
    for words in texts.iter().map(|text| words(text)).filter(|words| *words <= MAX_TEXT) {
        room = match room {
            (inputs, tokens) if inputs > 0 && tokens >= words => (inputs - 1, tokens - words),
            _ => {
                requests += 1;
                (MAX_INPUTS - 1, MAX_TOKENS - words)
            }
        };
    }
    requests
}

/// The number before this text in the output.
fn count(ended: &Ended, what: &str) -> usize {
    let text = ended.text().into_owned();
    let before = text.split(what).next().filter(|before| before.len() < text.len()).unwrap();
    before.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Returns how many requests the server saw, besides those that it refused or failed for no reason of theirs.
fn answered(ended: &Ended) -> usize {
    let (refused, failed) = (count(ended, " refused (429)"), count(ended, " failed (500)"));
    ended.check(refused > 0, "some requests are refused").check(failed > 0, "some requests fail");
    ended.out_has(" 0 too large (400); ").out_has(", 0 requests during a hold\n");
    count(ended, " requests, ") - refused - failed
}

#[test]
fn embed_embeds_all_texts_in_few_requests() {
    let sandbox = Sandbox::new();
    // Some requests are full by their number of texts, others by their tokens.
    let texts: Vec<String> = (0..3_000).map(|index| text(index, 1 + index * 37 % 160)).collect();
    let (ended, embeddings) = embed(&sandbox, &texts);
    ended.exits(0).out_has("3000 succeeded, 0 failed");
    assert_eq!(embeddings.len(), texts.len());
    for (text, (_, found)) in texts.iter().zip(embeddings) {
        assert_eq!(found, embedding(text));
    }
    let (answered, least) = (answered(&ended), least(&texts));
    ended.out_has(&format!("too long: {least} requests\n"));
    assert!(answered * 10 <= least * 11, "{answered} requests, at least {least} are necessary");
}

#[test]
fn embed_finds_the_texts_that_are_too_long() {
    let sandbox = Sandbox::new();
    let long = [95, 1_000, 1_001, 2_222];
    let words = |index| if long.contains(&index) { MAX_TEXT + 1 } else { 1 + index * 37 % 160 };
    let texts: Vec<String> = (0..3_000).map(|index| text(index, words(index))).collect();
    let (ended, embeddings) = embed(&sandbox, &texts);
    ended.exits(1).out_has("2996 succeeded, 4 failed").out_has("; 2996 texts embedded, ");
    let missing: Vec<_> = (0..texts.len()).filter(|index| !embeddings.contains_key(index)).collect();
    assert_eq!(missing, long);
    for index in long {
        let line =
            ended.text().lines().find(|line| line.starts_with(&format!("text {index}, "))).map(str::to_owned);
        let reason = "400 Bad Request: an input has 513 tokens, at most 512 are allowed";
        ended.check(
            line.is_some_and(|line| line.ends_with(reason)),
            format_args!("text {index} has its reason"),
        );
    }
    for (index, found) in embeddings {
        assert_eq!(found, embedding(&texts[index]));
    }
    answered(&ended);
}

#[test]
fn embed_refuses_what_it_cannot_use() {
    let sandbox = Sandbox::new();
    let missing = sandbox.path("missing");
    let ended = sandbox.example("embed").arg("--texts").arg(&missing).run();
    ended.exits(1).out_is("").err_has(&format!("cannot read {}", missing.display()));
    sandbox.example("embed").arg("--text").run().is_refused("unexpected argument '--text'");
    let file = sandbox.file("texts", "snow\n");
    let ended = sandbox.example("embed").arg("--texts").arg(file).args(["--out", "/not there/out"]).run();
    ended.exits(1).out_is("").err_has("cannot write /not there/out");
}
