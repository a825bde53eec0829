//! The places in which a run can be awaited: a task, a handler, a static, another run, beside another, a loop.

use std::sync::LazyLock;
use std::time::Duration;

use async_map_task::{AsyncMapTask, MapTaskError};
use axum::extract::State;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{double, task};

#[tokio::test]
async fn a_run_is_awaited_inside_spawn() {
    let doubled = tokio::spawn(async { task().run(vec![1, 2, 3], double).await });
    assert_eq!(doubled.await.unwrap().unwrap().results, [Some(2), Some(4), Some(6)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_spawned_on_many_threads() {
    let runs: Vec<_> = (0..8).map(|n| tokio::spawn(task().run(n..n + 4, double))).collect();
    for (n, run) in (0..).zip(runs) {
        let expected: Vec<u32> = (n..n + 4).map(|n| n * 2).collect();
        assert_eq!(run.await.unwrap().unwrap().into_successful_results(), expected);
    }
}

#[tokio::test]
async fn borrowed_items_with_static_data_run_inside_spawn() {
    static NAMES: [&str; 3] = ["ada", "grace", "edsger"];

    async fn length(name: &str) -> Result<usize, String> {
        tokio::task::yield_now().await;
        Ok(name.len())
    }

    let by_value = tokio::spawn(async { task().run(NAMES, |name| async move { length(name).await }).await });
    assert_eq!(by_value.await.unwrap().unwrap().results, [Some(3), Some(5), Some(6)]);
    let by_function = tokio::spawn(async { task().run(NAMES, length).await });
    assert_eq!(by_function.await.unwrap().unwrap().results, [Some(3), Some(5), Some(6)]);
    let by_reference = tokio::spawn(async {
        task().run(&NAMES, |name| async move { length(name).await }).retry_if(|error| error.is_empty()).await
    });
    assert_eq!(by_reference.await.unwrap().unwrap().results, [Some(3), Some(5), Some(6)]);
    let mapped = tokio::spawn(async {
        task().run(NAMES.iter().map(|name| name.trim()), |name| async move { length(name).await }).await
    });
    assert_eq!(mapped.await.unwrap().unwrap().results, [Some(3), Some(5), Some(6)]);
}

#[tokio::test]
async fn items_borrowed_within_a_spawned_task_run_inside_it() {
    let lengths = tokio::spawn(async {
        let names = [String::from("ada"), String::from("grace")];
        let extra = 1;
        let result = task()
            .run(names.iter(), |name| {
                let extra = &extra;
                async move {
                    tokio::task::yield_now().await;
                    Ok::<_, String>(name.len() + extra)
                }
            })
            .await
            .unwrap();
        result.into_successful_results()
    });
    assert_eq!(lengths.await.unwrap(), [4, 6]);
}

#[tokio::test]
async fn a_run_is_awaited_inside_an_axum_handler() {
    async fn total(State(task): State<AsyncMapTask>) -> Result<String, String> {
        let words = vec![String::from("snow"), String::from("rain"), String::from("wind")];
        let result = task
            .over(&words)
            .map(|word| async move {
                tokio::task::yield_now().await;
                u32::try_from(word.len())
            })
            .retry_if(|_| false)
            .await
            .map_err(|error| error.to_string())?;
        Ok(format!("{} letters in {} words", result.successful_results().sum::<u32>(), result.successes()))
    }

    async fn fails(State(task): State<AsyncMapTask>) -> Result<String, String> {
        let run = task.run(0..3, |n| async move { if n == 1 { Err("no route") } else { Ok(n) } });
        run.await.map(|_| String::new()).map_err(|error| error.to_string())
    }

    let task = AsyncMapTask::builder().name("count").concurrency(1).build().unwrap();
    let app = axum::Router::new().route("/total", get(total)).route("/fails", get(fails)).with_state(task);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, app).await });

    for (path, expected) in [
        ("/total", "12 letters in 3 words"),
        ("/fails", "count: 1 of 3 items failed, 0 allowed; item 1 failed first, after 1 attempt: no route"),
    ] {
        let mut connection = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert_eq!(body, expected);
    }
    server.abort();
}

#[tokio::test]
async fn a_task_lives_in_a_static() {
    static TASK: LazyLock<AsyncMapTask> = LazyLock::new(|| {
        AsyncMapTask::builder().name("shared").concurrency(2).build().expect("the settings are allowed")
    });

    let both = [tokio::spawn(TASK.run([1, 2], double)), tokio::spawn(TASK.run([3], double))];
    let mut results = Vec::new();
    for run in both {
        results.extend(run.await.unwrap().unwrap().into_successful_results());
    }
    assert_eq!(results, [2, 4, 6]);
}

#[tokio::test]
async fn a_run_outlives_its_task() {
    let run = {
        let task = AsyncMapTask::builder().concurrency(1).build().unwrap();
        task.run([1, 2], double)
    };
    assert_eq!(run.await.unwrap().results, [Some(2), Some(4)]);
}

#[tokio::test]
async fn runs_nest() {
    let outer = AsyncMapTask::builder().name("rows").concurrency(2).build().unwrap();
    let inner = AsyncMapTask::builder().name("cells").concurrency(2).build().unwrap();
    let rows = vec![vec![1, 2], vec![], vec![3, 4, 5]];
    let sums = outer
        .run(rows, |row| {
            let inner = &inner;
            async move {
                let doubled = inner.run(row, double).await?;
                Ok::<_, MapTaskError<u32, String>>(doubled.successful_results().sum::<u32>())
            }
        })
        .await
        .unwrap();
    assert_eq!(sums.results, [Some(6), Some(0), Some(24)]);

    let task = outer.clone();
    let error = outer
        .run([1, 2], |n| {
            let task = &task;
            async move { task.run([n], |n| async move { Err::<(), _>(format!("bad {n}")) }).await }
        })
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "rows: 1 of 2 items failed, 0 allowed; item 0 failed first, after 1 attempt: \
         rows: 1 of 1 item failed, 0 allowed; item 0 failed first, after 1 attempt: bad 1"
    );
}

#[tokio::test]
async fn two_runs_are_joined() {
    let task = task();
    let (numbers, words) =
        tokio::join!(task.run([1, 2], double), task.run(["a"], |word| async move { Ok::<_, ()>(word) }));
    assert_eq!(numbers.unwrap().results, [Some(2), Some(4)]);
    assert_eq!(words.unwrap().results, [Some("a")]);

    let (more, none) = tokio::try_join!(task.run([4], double), task.run([], double)).unwrap();
    assert_eq!((more.total(), none.total()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_run_is_awaited_by_reference_in_a_loop_of_select() {
    let mut run = task().run(1..=3, |n| async move {
        tokio::time::sleep(Duration::from_secs(n)).await;
        Ok::<_, String>(n)
    });
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut count = 0;
    let result = loop {
        tokio::select! {
            biased;
            result = &mut run => break result.unwrap(),
            _ = ticks.tick() => count += 1,
        }
    };
    assert_eq!(result.results, [Some(1), Some(2), Some(3)]);
    assert_eq!(count, 3);
}
