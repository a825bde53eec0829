//! Reads the results of a job as a client would: line by line, as they arrive.

use std::collections::BTreeSet;

use reqwest::{Response, StatusCode};
use serde_json::Value;

/// The lines of a response that have come so far.
pub(crate) struct Results {
    response: Response,
    rest: Vec<u8>,
    pub(crate) lines: Vec<Value>,
}

impl Results {
    pub(crate) fn new(response: Response) -> Self {
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        Self { response, rest: Vec::new(), lines: Vec::new() }
    }

    /// Waits for some more. Returns `false` at the end.
    pub(crate) async fn more(&mut self) -> bool {
        let Some(chunk) = self.response.chunk().await.unwrap() else {
            assert!(self.rest.is_empty(), "the last line is whole");
            return false;
        };
        self.rest.extend_from_slice(&chunk);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            self.lines.push(serde_json::from_slice(&line).unwrap());
        }
        true
    }

    /// Reads to the end: one line for each item that settled, each of them once, and one for the run.
    pub(crate) async fn all(mut self) -> Account {
        while self.more().await {}
        let last = self.lines.pop().expect("a line for the run");
        let items = self.lines.len();
        let indices: BTreeSet<_> = self.lines.iter().map(|line| line["index"].as_u64().unwrap()).collect();
        assert_eq!(indices.len(), items, "an item has settled twice");
        Account { items, end: last["end"].as_str().expect("the end of the run").to_owned() }
    }
}

#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) items: usize,
    pub(crate) end: String,
}
