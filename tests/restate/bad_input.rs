//! Bad input is reported, and loses nothing.

use std::time::Duration;

use async_map_task::restate::{Handler, Restate, RestateBuilder, RestateError};
use async_map_task::{AsyncMapTask, ItemError, MapTaskError};

use crate::proxy::Proxy;
use crate::relay::Relay;
use crate::scene::{Scene, engine, outputs};
use crate::server::{self, Server};
use crate::work::{Event, Output, output};

const TOKEN: &str = "correct-horse";

/// Runs four items. The third is for this handler, and the others are for one that works. Returns the error of that item,
/// after checking that the account has all four items and that the first two have their outputs.
async fn third_of_four(scene: &Scene, server: &Server, bad: Handler<Output>) -> RestateError {
    let good = engine(server).handler::<Output>("Work", "work").run_id(scene.run_id);
    let task = AsyncMapTask::builder().concurrency(1).retries(2).build().unwrap();
    let run = task.over(scene.items(4)).map_with_context(|cx, item| {
        let handler = if item.index == 2 { &bad } else { &good };
        handler.call(cx, item)
    });
    let error: MapTaskError<_, _> = run.retry_if(RestateError::is_retryable).await.unwrap_err();
    let text = error.to_string();
    let partial = error.into_partial();
    assert_eq!(partial.results, [Some(output(0)), Some(output(1)), None, None]);
    assert_eq!((partial.failures(), partial.not_started(), partial.summary.retries), (1, 1, 0));
    let Some(ItemError::Failed { error, attempts: 1 }) = partial.errors.into_values().next() else {
        panic!("{text}");
    };
    assert!(text.ends_with(&error.to_string()), "the run says it, too: {text}");
    assert!(!error.is_retryable());
    error
}

#[tokio::test]
async fn restate_bad_input_a_name_that_is_not_registered_is_not_found() {
    let (server, scene) = (server::shared().await, Scene::new("bad-name"));
    for (service, handler, unknown) in [("Wrok", "work", "Wrok"), ("Work", "wrok", "wrok")] {
        let bad = engine(server).handler(service, handler).run_id(scene.run_id);
        let error = third_of_four(&scene, server, bad).await;
        let text = error.to_string();
        let RestateError::NotFound { message } = error else { panic!("{error:?}") };
        assert!(message.contains(unknown) && message.contains("not found"), "{message}");
        assert_eq!(text, format!("unknown service or handler: {message}"));
    }
    assert_eq!(scene.keys(server).await, ["0.1", "1.1"]);
}

#[tokio::test]
async fn restate_bad_input_a_name_that_cannot_be_sent_is_an_error_of_the_configuration() {
    let (server, scene) = (server::shared().await, Scene::new("bad-characters"));
    let way = Relay::to_url(&server.ingress()).await;
    let engine = Restate::builder(way.url()).build().unwrap();
    let name = "one or more ASCII letters, digits, `_`, `-` or `.`, but not `.` or `..`";
    let visible = "one or more visible ASCII characters";
    let mut cases = Vec::new();
    for (bad, found) in [
        ("", "``"),
        ("a/b", "`a/b`"),
        ("..", "`..`"),
        ("a b", "`a b`"),
        ("a?b", "`a?b`"),
        ("ä", "`ä`"),
        ("a%2f", "`a%2f`"),
    ] {
        cases.push((engine.handler(bad, "work").run_id("bad"), "service", found, name));
        cases.push((engine.handler("Work", bad).run_id("bad"), "handler", found, name));
    }
    for (bad, found) in [("", "``"), ("a b", "`a b`"), ("ä", "`ä`"), ("a\n", r"`a\n`"), ("a\tb", r"`a\tb`")]
    {
        cases.push((engine.handler("Work", "work").run_id(bad), "run_id", found, visible));
    }
    for (handler, field, found, allowed) in cases {
        let error = third_of_four(&scene, server, handler).await;
        let text = error.to_string();
        let RestateError::Config(error) = error else { panic!("{error:?}") };
        assert_eq!((error.field(), error.found(), error.allowed()), (field, found, allowed));
        assert_eq!(text, format!("{field} must be {allowed}, got {found}"));
    }
    assert_eq!(way.accepted(), 0, "nothing was sent");
}

#[tokio::test]
async fn restate_bad_input_an_output_of_another_type_names_both() {
    let (server, scene) = (server::shared().await, Scene::new("bad-output"));
    let work = engine(server).handler::<Vec<u32>>("Work", "work").run_id(scene.run_id);
    let task = AsyncMapTask::builder().retries(2).min_success_ratio(0.0).build().unwrap();
    let run = task.over(scene.items(2)).map_with_context(|cx, item| work.call(cx, item));
    let result = run.retry_if(RestateError::is_retryable).await.unwrap();
    assert_eq!((result.failures(), result.summary.retries), (2, 0));
    let ItemError::Failed { error, attempts: 1 } = &result.errors[&1] else { panic!("{:?}", result.errors) };
    let RestateError::Output { expected, found, invocation_id, source } = error else { panic!("{error:?}") };
    assert_eq!((*expected, found.as_str()), ("alloc::vec::Vec<u32>", r#"`{\"index\":1,\"square\":1}`"#));
    assert_eq!(*invocation_id, scene.invocation_id(server, "1.1").await);
    assert!(source.to_string().starts_with("invalid type: map, expected a sequence"), "{source}");
    let text = format!(
        "the output of invocation {invocation_id} does not have the type {expected}: {source}, in {found}"
    );
    assert_eq!(error.to_string(), text);

    // The computed outputs are in the engine, for a run that asks for the right type.
    let work = engine(server).handler::<Output>("Work", "work").run_id(scene.run_id);
    let result = task.over(scene.items(2)).map_with_context(|cx, item| work.call(cx, item)).await.unwrap();
    assert_eq!(result.results, [Some(output(0)), Some(output(1))]);
    assert_eq!(scene.began(2), [1, 1]);
}

#[tokio::test]
async fn restate_bad_input_a_token_that_is_refused_is_unauthorized() {
    let (server, scene) = (server::shared().await, Scene::new("bad-token"));
    let proxy = Proxy::before(server.ingress().rsplit(':').next().unwrap().parse().unwrap(), TOKEN).await;
    let builder = || Restate::builder(proxy.url());
    for builder in [builder(), builder().bearer_token("wrong-horse")] {
        let bad = builder.build().unwrap().handler("Work", "work").run_id(scene.run_id);
        let error = third_of_four(&scene, server, bad).await;
        let text = error.to_string();
        let RestateError::Unauthorized { status: 401, message, .. } = error else { panic!("{error:?}") };
        assert!(message.contains("401 Unauthorized"), "{message}");
        assert_eq!(text, format!("the ingress refused the bearer token with status 401: {message}"));
        assert!(!text.contains("horse"), "{text}");
    }
    assert_eq!(scene.keys(server).await, ["0.1", "1.1"]);

    let right = builder().bearer_token(TOKEN).build().unwrap();
    let work = right.handler::<Output>("Work", "work").run_id(scene.run_id);
    let task = AsyncMapTask::default();
    let result = task.over(scene.items(4)).map_with_context(|cx, item| work.call(cx, item)).await.unwrap();
    assert_eq!(result.successes(), 4);
    assert_eq!(scene.began(4), [1; 4]);
}

#[tokio::test]
async fn restate_bad_input_an_ingress_that_is_down_loses_nothing() {
    let (server, scene) = (server::shared().await, Scene::new("bad-ingress"));
    let mut way = Relay::to_url(&server.ingress()).await;
    let engine = Restate::builder(way.url()).retry_time(Duration::from_millis(100)).build().unwrap();
    let work = engine.handler::<Output>("Work", "work").run_id(scene.run_id);
    let task = AsyncMapTask::builder().concurrency(1).build().unwrap();
    let mut items = scene.items(4);
    items[2] = scene.held(2);

    let handler = work.clone();
    let run = task.over(items.clone()).map_with_context(move |cx, item| handler.call(cx, item));
    let running = tokio::spawn(run);
    scene.until(Event::Began, 3).await;
    way.cut().await;
    scene.open();
    let partial = running.await.unwrap().unwrap_err().into_partial();
    assert_eq!(partial.results, [Some(output(0)), Some(output(1)), None, None]);
    assert_eq!((partial.failures(), partial.not_started()), (1, 1));
    let error = &partial.errors[&2];
    assert!(matches!(error, ItemError::Failed { error: RestateError::Unavailable { .. }, .. }), "{error:?}");

    way.restore().await;
    let result = task.over(items).map_with_context(|cx, item| work.call(cx, item)).await.unwrap();
    assert_eq!(result.results, outputs(4));
    assert_eq!(scene.began(4), [1; 4], "what the dead line hid was there");
}

#[tokio::test]
async fn restate_bad_input_the_admin_api_is_sent_the_token_too() {
    let (server, scene) = (server::shared().await, Scene::new("bad-admin-token"));
    let [ingress, admin] = [server.ingress(), server.admin()];
    let port = |url: &str| url.rsplit(':').next().unwrap().parse().unwrap();
    let ingress = Proxy::before(port(&ingress), TOKEN).await;
    let admin = Proxy::before(port(&admin), TOKEN).await;
    let builder = Restate::builder(ingress.url()).admin(admin.url()).bearer_token(TOKEN);
    let engine = builder.kill_after(Duration::ZERO).build().unwrap();
    let work = engine.handler::<Output>("Work", "work").run_id(scene.run_id);
    let task = AsyncMapTask::default();
    let item = scene.held(0);
    let run = task.over([item]).map_with_context(move |cx, item| work.call(cx, item));
    let running = tokio::spawn(run);
    scene.until(Event::Began, 1).await;
    running.abort();
    assert!(running.await.is_err());
    assert_eq!(engine.settled().await, 0);
    assert_eq!(server.in_flight(scene.run_id).await.len(), 0);
}

#[test]
fn restate_bad_input_the_builder_says_what_it_cannot_use() {
    let good = || Restate::builder("http://localhost:8080");
    let url = "a URL with http:// or https:// and a host";
    let visible = "one or more visible ASCII characters";
    let odd = "a token with a character that is not allowed";
    let cases: [(RestateBuilder, _, _, _); 20] = [
        (Restate::builder(""), "ingress", "``", url),
        (Restate::builder("localhost"), "ingress", "`localhost`", url),
        (Restate::builder("localhost:8080"), "ingress", "`localhost:8080`", url),
        (Restate::builder("ws://localhost"), "ingress", "`ws://localhost`", url),
        (Restate::builder("http://"), "ingress", "`http://`", url),
        (Restate::builder("http://a b"), "ingress", "`http://a b`", url),
        (Restate::builder("http://a\n"), "ingress", r"`http://a\n`", url),
        (Restate::builder("http://a?b=c"), "ingress", "`http://a?b=c`", url),
        (Restate::builder("http://a:"), "ingress", "`http://a:`", url),
        (Restate::builder("http://a:b"), "ingress", "`http://a:b`", url),
        (Restate::builder("http://:80"), "ingress", "`http://:80`", url),
        (good().bearer_token("a b"), "bearer_token", odd, visible),
        (good().bearer_token("a\tb"), "bearer_token", odd, visible),
        (Restate::builder("http://a:99999"), "ingress", "`http://a:99999`", url),
        (Restate::builder("http://me:secret@a"), "ingress", "`a URL with a user`", url),
        (good().admin("9070"), "admin", "`9070`", url),
        (good().message_limit(0), "message_limit", "0", "at least 1 byte"),
        (good().bearer_token(""), "bearer_token", "an empty token", visible),
        (good().bearer_token("correct\nhorse"), "bearer_token", odd, visible),
        (good().bearer_token("corréct-horse"), "bearer_token", odd, visible),
    ];
    for (builder, field, found, allowed) in cases {
        let shown = format!("{builder:?}");
        let error = builder.build().expect_err(&shown);
        assert_eq!((error.field(), error.found(), error.allowed()), (field, found, allowed), "{shown}");
    }
    for url in
        ["http://localhost", "http://localhost:8080/", "http://[::1]:8080/restate/", "http://10.0.0.1:1"]
    {
        Restate::builder(url).admin(url).build().unwrap();
    }
}

#[test]
fn restate_bad_input_the_token_is_shown_nowhere() {
    let builder = Restate::builder("http://localhost:8080").admin("http://localhost:9070");
    let builder = builder.bearer_token("correct-horse");
    let engine = builder.clone().build().unwrap();
    let handler = engine.handler::<Output>("Work", "work");
    for shown in [format!("{builder:#?}"), format!("{engine:#?}"), format!("{handler:#?}")] {
        assert!(!shown.contains("horse"), "{shown}");
    }
    assert!(format!("{builder:?}").contains("localhost:8080"), "the rest is shown");
}
