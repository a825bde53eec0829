//! Rule 2: an answer is an outcome only if the engine says so, regardless of its status.

use std::fmt::Debug;
use std::time::Duration;

use async_map_task::restate::{Handler, Restate, RestateError};
use async_map_task::{AsyncMapTask, ItemError};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::any;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::odd;
use crate::proxy::Proxy;
use crate::scene::Scene;
use crate::server::Server;

/// Returns an engine that sends nothing twice.
fn impatient(url: String) -> Restate {
    Restate::builder(url).retry_time(Duration::ZERO).build().unwrap()
}

/// Returns the errors of a run in which no item succeeds.
async fn errors<I, T>(items: impl IntoIterator<Item = I>, handler: &Handler<T>) -> Vec<RestateError>
where
    I: Serialize + Clone,
    T: DeserializeOwned + Debug,
{
    let items: Vec<_> = items.into_iter().collect();
    let count = items.len();
    let task = AsyncMapTask::builder().min_success_ratio(0.0).build().unwrap();
    let result = task.over(items).map_with_context(|cx, item| handler.call(cx, item)).await.unwrap();
    let error = |error| match error {
        ItemError::Failed { error, attempts: 1 } => error,
        other => panic!("{other:?}"),
    };
    let errors: Vec<_> = result.errors.into_values().map(error).collect();
    assert_eq!(errors.len(), count, "{:?}", result.results);
    errors
}

#[tokio::test]
async fn restate_rule_2_a_terminal_error_with_the_code_of_a_success_is_a_failure() {
    let (server, scene) = (odd::shared().await, Scene::new("answers-success"));
    let engine = impatient(server.ingress());
    let codes = [200, 201, 204, 299, 304];
    let nothing = engine.handler::<()>("Odd", "refuse").run_id(scene.run_id);
    let anything = engine.handler::<Value>("Odd", "refuse").run_id(scene.run_id);
    let (nothing, anything) = (errors(codes, &nothing).await, errors(codes, &anything).await);
    for (code, error) in codes.into_iter().chain(codes).zip(nothing.into_iter().chain(anything)) {
        let RestateError::Handler { code: found, message, .. } = error else { panic!("{code}: {error:?}") };
        // With these two statuses, an HTTP response has no body.
        let expected = if [204, 304].contains(&code) { "``" } else { "not today" };
        assert_eq!((found, message.as_str()), (code, expected));
    }
}

/// Returns the URL of a server that is not Restate.
async fn stranger(status: StatusCode) -> String {
    let app = Router::new().fallback(any(move || async move { status }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

#[tokio::test]
async fn restate_rule_2_the_success_of_a_stranger_is_none() {
    for status in [StatusCode::OK, StatusCode::ACCEPTED, StatusCode::NO_CONTENT] {
        let engine = impatient(stranger(status).await);
        let nothing = errors([1, 2], &engine.handler::<()>("Work", "nothing")).await;
        let option = errors([1, 2], &engine.handler::<Option<u32>>("Work", "echo")).await;
        for error in nothing.into_iter().chain(option) {
            let text = format!(
                "the answer of the ingress, with status {}, is not from Restate: ``",
                status.as_u16()
            );
            assert_eq!(error.to_string(), text);
            assert!(!error.is_retryable());
        }
    }
}

/// Starts a proxy that makes the server answer as an older one does, which does not name the source of an error.
async fn as_an_older_one(server: &Server) -> Proxy {
    Proxy::before_url(
        &server.ingress(),
        "timeout server 60s\nhttp-response del-header x-restate-error-source",
    )
    .await
}

#[tokio::test]
async fn restate_rule_2_a_failure_whose_source_the_engine_does_not_name_is_the_handlers() {
    let (server, scene) = (odd::shared().await, Scene::new("answers-older"));
    let older = as_an_older_one(server).await;
    let refuse = impatient(older.url()).handler::<()>("Odd", "refuse").run_id(scene.run_id);
    let codes = [500, 503, 404, 409, 429];
    for (code, error) in codes.into_iter().zip(errors(codes, &refuse).await) {
        let RestateError::Handler { code: found, message, .. } = error else { panic!("{code}: {error:?}") };
        assert_eq!((found, message.as_str()), (code, "not today"));
    }
}

#[tokio::test]
async fn restate_rule_2_what_a_handler_says_is_one_line_of_a_message() {
    let (server, scene) = (odd::shared().await, Scene::new("answers-line"));
    let complain = impatient(server.ingress()).handler::<()>("Odd", "complain").run_id(scene.run_id);
    let said = ["two\nlines".to_owned(), "long ".repeat(600_000)];
    let errors = errors(said.clone(), &complain).await;
    for (said, error) in said.iter().zip(&errors) {
        let text = error.to_string();
        assert!(text.len() < 500 && !text.contains('\n'), "{} bytes", text.len());
        let RestateError::Handler { message, .. } = error else { panic!("{text}") };
        assert!(message == said, "the field has all of it");
    }
    assert_eq!(errors[0].to_string(), r"the handler failed with code 418: two\nlines");
}
