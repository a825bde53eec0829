//! The client: all texts, in as few requests as possible.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Result;
use async_map_task::{AsyncMapTask, Limiter, MapTaskError, MapTaskResult, retry_after_header};
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use serde_json::json;

use crate::texts::{MAX_INPUTS, MAX_TOKENS, tokens};

pub(crate) type Embedded = Result<MapTaskResult<Vec<f32>, ApiError>, MapTaskError<Vec<f32>, ApiError>>;

/// Embeds each text. The result has an embedding or an error for each of them.
pub(crate) async fn embed_all(url: &str, texts: &[String]) -> Result<Embedded> {
    // A proxy could not reach the server of the example.
    let client = Client::builder().no_proxy().build()?;
    let quota = Limiter::builder().permits(4).rate(25, Duration::from_secs(1)).build()?;
    let task = AsyncMapTask::builder()
        .name("embed")
        .limiter(&quota)
        .timeout_per_attempt(Duration::from_secs(10))
        .retries(5)
        .retry_delay(Duration::from_millis(100))
        .allow_failures()
        .build()?;
    Ok(task
        .over(texts)
        .map_batches(MAX_INPUTS, |texts| embed(&client, url, texts))
        .batch_weight(|text| tokens(text), MAX_TOKENS)
        .retry_if(ApiError::is_transient)
        .hold_back(ApiError::hold)
        .cancel_on_ctrl_c()
        .await)
}

async fn embed(
    client: &Client,
    url: &str,
    texts: Vec<&String>,
) -> Result<Vec<Result<Vec<f32>, ApiError>>, ApiError> {
    let response = client.post(url).json(&json!({ "model": "example", "input": &texts })).send().await?;
    let (status, retry_after) = (response.status(), retry_after_header(response.headers()));
    if !status.is_success() {
        return Err(ApiError::Refused { status, retry_after, message: response.text().await? });
    }
    // The answer states which embedding belongs to which text. Their order is not promised.
    let data = response.json::<Answer>().await?.data;
    let mut embeddings: HashMap<_, _> = data.into_iter().map(|one| (one.index, one.embedding)).collect();
    Ok((0..texts.len()).map(|index| embeddings.remove(&index).ok_or(ApiError::Missing)).collect())
}

#[derive(Debug, Deserialize)]
struct Answer {
    data: Vec<Embedding>,
}

#[derive(Debug, Deserialize)]
struct Embedding {
    index: usize,
    embedding: Vec<f32>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("{status}: {message}")]
    Refused { status: StatusCode, retry_after: Option<Duration>, message: String },
    #[error("no answer: {0}")]
    Connection(#[from] reqwest::Error),
    #[error("the answer has no embedding for it")]
    Missing,
}

impl ApiError {
    /// Returns `true` if the same request may succeed later.
    fn is_transient(&self) -> bool {
        match self {
            Self::Refused { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Connection(_) | Self::Missing => true,
        }
    }

    /// Returns the time for which the server asks to be left alone.
    fn hold(&self) -> Option<Duration> {
        match self {
            Self::Refused { status: StatusCode::TOO_MANY_REQUESTS, retry_after, .. } => {
                Some(retry_after.unwrap_or(Duration::from_secs(1)))
            }
            _ => None,
        }
    }
}
