//! Rule 43 on a real socket: the batch call of a queue or a table, which does not process all entries of a request.

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_map_task::{ItemError, ItemOutcome};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::{Client, at_once, check_summary, millis};

const ITEMS: u64 = 2_500;
const CONCURRENCY: usize = 4;

/// The most entries of a request.
const MOST_ENTRIES: usize = 25;

/// The requests at the end of a run that are not full: one that ends the list for each that is running, and two more for entries
/// that it leaves unprocessed twice.
const LAST_REQUESTS: usize = 3 * CONCURRENCY;

/// The retries of an entry: more than the service makes necessary, except for the one that it never processes.
const RETRIES: u32 = 9;

/// The entry that the service never processes.
const STUCK: u64 = 23;

/// Returns `true` if the service refuses an entry, because it is invalid.
fn is_invalid(id: u64) -> bool {
    id % 100 == 50
}

/// How often the service leaves an entry unprocessed.
fn times_unprocessed(id: u64) -> u32 {
    match id {
        STUCK => u32::MAX,
        id if id % 10 == 3 => 1 + (id / 10 % 2) as u32,
        _ => 0,
    }
}

/// Returns `true` if the first request with an entry exceeds the throughput of the service.
fn is_too_fast(id: u64) -> bool {
    id % 625 == 607
}

/// A request or the part of an answer that lists entries, in the style of SQS and DynamoDB.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    id: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<Failure>,
}

/// The reason why an entry was not stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Failure {
    code: String,
    /// Sending the entry again does not help.
    sender_fault: bool,
}

#[derive(Debug, Deserialize)]
struct Answer {
    failed: Vec<Entry>,
}

/// The state of the service.
#[derive(Debug, Default)]
struct Service {
    requests: usize,
    throttled: usize,
    /// The requests that had each entry.
    sent: BTreeMap<u64, u32>,
    /// The times that each entry was left unprocessed.
    unprocessed: BTreeMap<u64, u32>,
    /// The times that each entry was stored.
    stored: BTreeMap<u64, u32>,
}

impl Service {
    fn answer(&mut self, ids: &[u64]) -> Response {
        let distinct: BTreeSet<_> = ids.iter().collect();
        if ids.is_empty() || ids.len() > MOST_ENTRIES || distinct.len() < ids.len() {
            return (StatusCode::BAD_REQUEST, Json(json!({ "type": "ValidationException" }))).into_response();
        }
        self.requests += 1;
        for id in ids {
            *self.sent.entry(*id).or_default() += 1;
        }
        let is_first = |id: &u64| self.sent[id] == 1;
        // A call that fails as a whole at the last attempt of an item is split, and a call for a part is no attempt.
        let throttled = ids.iter().find(|id| is_too_fast(**id) && is_first(id) && !ids.contains(&STUCK));
        if let Some(id) = throttled {
            self.throttled += 1;
            let body = Json(json!({ "type": "ProvisionedThroughputExceededException" }));
            let status = if id % 2 == 0 { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::BAD_REQUEST };
            return (status, body).into_response();
        }
        let failed: Vec<Entry> = ids.iter().filter_map(|id| self.store(*id)).collect();
        Json(json!({ "failed": failed })).into_response()
    }

    /// Stores an entry. Returns it with the reason if it does not.
    fn store(&mut self, id: u64) -> Option<Entry> {
        let failed = |code: &str, sender_fault| {
            Some(Entry { id, failure: Some(Failure { code: code.to_owned(), sender_fault }) })
        };
        if is_invalid(id) {
            return failed("InvalidEntry", true);
        }
        let unprocessed = self.unprocessed.entry(id).or_default();
        if *unprocessed < times_unprocessed(id) {
            *unprocessed += 1;
            return failed("Unprocessed", false);
        }
        *self.stored.entry(id).or_default() += 1;
        None
    }
}

/// Starts a service. Returns its URL.
async fn start(service: Arc<Mutex<Service>>) -> String {
    let answer = async |State(service): State<Arc<Mutex<Service>>>, Json(entries): Json<Vec<Entry>>| {
        let ids: Vec<u64> = entries.iter().map(|entry| entry.id).collect();
        service.lock().unwrap().answer(&ids)
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/batch", listener.local_addr().unwrap());
    let app = Router::new().route("/batch", post(answer)).with_state(service);
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

#[derive(Debug, Clone, PartialEq)]
enum SendError {
    /// The whole request was refused, and nothing of it stored.
    Throttled,
    Entry(Failure),
}

/// Sends entries with one request.
async fn send(client: Client, url: String, ids: Vec<u64>) -> Result<Vec<Result<u64, SendError>>, SendError> {
    let entries: Vec<Entry> = ids.iter().map(|id| Entry { id: *id, failure: None }).collect();
    let (status, _, answer) = client.post(&url, serde_json::to_vec(&entries).unwrap()).await;
    if !status.is_success() {
        let text = String::from_utf8_lossy(&answer);
        assert!(text.contains("ProvisionedThroughputExceeded"), "the request is invalid: {text}");
        return Err(SendError::Throttled);
    }
    let failed = serde_json::from_slice::<Answer>(&answer).unwrap().failed.into_iter();
    let mut failed: BTreeMap<u64, Failure> = failed.map(|entry| (entry.id, entry.failure.unwrap())).collect();
    let result = |id| failed.remove(&id).map_or(Ok(id), |failure| Err(SendError::Entry(failure)));
    Ok(ids.into_iter().map(result).collect())
}

/// Checks the calls of a run, in their order: retries lead a call, and it is full until there are no new items.
fn check_calls(calls: &[Vec<u64>]) {
    let (mut seen, mut mixed) = (BTreeSet::new(), 0);
    for call in calls {
        let is_new: Vec<bool> = call.iter().map(|id| seen.insert(*id)).collect();
        assert!(is_new.is_sorted(), "a retry is behind a new item: {call:?}");
        if is_new[call.len() - 1] {
            assert!(call.len() == MOST_ENTRIES || seen.len() as u64 == ITEMS, "not full: {call:?}");
            mixed += usize::from(!is_new[0]);
        }
    }
    assert!(mixed > 50, "only {mixed} calls have retries and new items");
}

#[tokio::test]
async fn rule_43_a_service_with_unprocessed_entries_gets_each_until_it_is_stored_or_refused() {
    let (service, calls) = (Arc::new(Mutex::new(Service::default())), Mutex::new(Vec::new()));
    let (url, client) = (start(Arc::clone(&service)).await, Client::new());
    let task = at_once(CONCURRENCY).retries(RETRIES).retry_delay(Duration::ZERO).allow_failures();
    let (mut outcomes, mut errors) = (BTreeMap::new(), BTreeMap::new());
    let summary = task
        .build()
        .unwrap()
        .over(0..ITEMS)
        .map_batches(MOST_ENTRIES, |ids: Vec<u64>| {
            calls.lock().unwrap().push(ids.clone());
            send(client.clone(), url.clone(), ids)
        })
        .retry_if(|error| match error {
            SendError::Throttled => true,
            SendError::Entry(failure) => !failure.sender_fault,
        })
        .hold_back(|error| (*error == SendError::Throttled).then_some(millis(10)))
        .for_each(|outcome: ItemOutcome<u64, SendError>| {
            outcomes.insert(outcome.index as u64, outcome.attempts);
            if let Err(error) = outcome.result {
                errors.insert(outcome.index as u64, error);
            }
            ready(())
        })
        .await
        .unwrap();

    // Each entry is stored once, or has the reason of the service.
    let service = service.lock().unwrap();
    let failed = |id: u64| id == STUCK || is_invalid(id);
    let stored: BTreeMap<u64, u32> = (0..ITEMS).filter(|id| !failed(*id)).map(|id| (id, 1)).collect();
    assert_eq!(service.stored, stored);
    let error = |id: u64| {
        let code = if id == STUCK { "Unprocessed" } else { "InvalidEntry" };
        let failure = Failure { code: code.to_owned(), sender_fault: id != STUCK };
        ItemError::Failed { error: SendError::Entry(failure), attempts: outcomes[&id] }
    };
    let expected: BTreeMap<_, _> = (0..ITEMS).filter(|id| failed(*id)).map(|id| (id, error(id))).collect();
    assert_eq!(errors, expected);

    // Each entry has its own attempts, and they are the requests that had it.
    assert_eq!(outcomes, service.sent);
    assert_eq!(outcomes[&STUCK], 1 + RETRIES);
    for (id, unprocessed) in service.unprocessed.iter().filter(|(id, _)| **id != STUCK) {
        let attempts = outcomes[id] as usize;
        assert_eq!(*unprocessed, times_unprocessed(*id), "entry {id}");
        let most = 1 + *unprocessed as usize + service.throttled;
        assert!((1 + *unprocessed as usize..=most).contains(&attempts), "entry {id}: {attempts} attempts");
    }
    check_summary(&summary);
    let sent: usize = service.sent.values().map(|times| *times as usize).sum();
    assert_eq!((summary.successes, summary.failures), (stored.len(), expected.len()));
    assert_eq!(summary.retries, sent - ITEMS as usize);

    // The requests are as few as these entries need, but for the last ones: nothing new can fill them.
    let (calls, least) = (calls.into_inner().unwrap(), sent.div_ceil(MOST_ENTRIES));
    check_calls(&calls);
    let Service { requests, throttled, .. } = *service;
    eprintln!("{sent} entries in {requests} requests, {throttled} throttled; at least {least} are necessary");
    assert!(throttled > 0 && requests == calls.len());
    assert!(requests <= least + LAST_REQUESTS, "{requests} requests, at least {least} are necessary");
}
