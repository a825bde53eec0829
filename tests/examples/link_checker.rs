//! The example `link_checker`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;

use axum::Router;
use axum::http::StatusCode;
use axum::response::Html;
use rustix::process::Signal;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::harness::{Ended, Sandbox};

/// Starts a host with this router, and returns its first page.
fn serve(runtime: &Runtime, router: Router) -> String {
    let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    runtime.spawn(axum::serve(listener, router).into_future());
    url
}

/// The counts in a report, and the number of links below each: "12  404 Not Found" and 10.
fn counts(ended: &Ended) -> Vec<(String, usize)> {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for line in ended.text().lines().skip(2) {
        match line.strip_prefix("          ") {
            Some(link) if link.starts_with("http://") => counts.last_mut().unwrap().1 += 1,
            _ => counts.push((line.trim().to_owned(), 0)),
        }
    }
    counts
}

#[test]
fn link_checker_reports_every_failure_of_its_own_site() {
    let sandbox = Sandbox::new();
    let ended = sandbox.example("link_checker").run();
    let expected = [
        ("47  200 OK", 0),
        ("1  301 Moved Permanently", 0),
        ("broken links: 18", 0),
        ("12  404 Not Found", 10),
        ("and 2 more", 0),
        ("1  429 Too Many Requests", 1),
        ("1  500 Internal Server Error", 1),
        ("1  cannot connect", 1),
        ("2  connection closed", 2),
        ("1  timed out", 1),
        ("not checked, because they are not http: 2", 0),
        (
            "the site saw: 79 requests, 4 of them refused, at most 2 at once per host, 0 requests during a hold",
            0,
        ),
    ];
    let expected = expected.map(|(line, links)| (line.to_owned(), links));
    let counts = counts(&ended);
    ended.exits(1).check(counts == expected, format_args!("the counts are {expected:#?}"));
    // 3 more requests than the site saw were for the host that is down.
    ended
        .out_has("pages checked: 66 in ")
        .out_has("\nrequests: 82, ")
        .out_has(" per second, 16 of them retries\n");
    ended.check(ended.err.is_empty(), "it draws no bar into a file");
}

#[test]
fn link_checker_writes_a_page_about_its_run() {
    let sandbox = Sandbox::new();
    let page = sandbox.path("run.html");
    sandbox.example("link_checker").arg("--report").arg(&page).run().exits(1);
    let page = std::fs::read_to_string(page).unwrap();
    let counts = ["<dt>items</dt><dd>66</dd>", "<dt>failed</dt><dd>18</dd>", "<dt>retries</dt><dd>16</dd>"];
    for text in counts.iter().chain(&["404 Not Found", "Failures", "Items that wait for their retry"]) {
        assert!(page.contains(text), "the page has no {text}");
    }
}

#[test]
fn link_checker_keeps_to_a_limit_of_pages() {
    let sandbox = Sandbox::new();
    let ended = sandbox.example("link_checker").args(["--max-pages", "3"]).run();
    ended.exits(0).out_has("pages checked: 3 in ").out_has("\n     3  200 OK\nbroken links: 0\n");
    ended.out_has("not checked, more than --max-pages: 51\n").out_has("the site saw: 3 requests, ");
}

#[test]
fn link_checker_follows_links_on_the_given_hosts_only() {
    let (sandbox, runtime) = (Sandbox::new(), Runtime::new().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let other = Router::new().fallback(move || async move {
        count.fetch_add(1, Relaxed);
        Html("<a href='/deeper'>")
    });
    let other = serve(&runtime, other);
    let links =
        format!("<a href=\"{other}x\"><a href=\"{other}x#part\"><a href='/?a=1&amp;b=2'><img src='/'>");
    let url = serve(&runtime, Router::new().fallback(move || async move { Html(links) }));
    let ended = sandbox.example("link_checker").arg(&url).run();
    ended.exits(0).out_has("pages checked: 3 in ").out_has("\n     3  200 OK\nbroken links: 0\n");
    ended.check(!ended.text().contains("the site saw"), "its own site is not started");
    assert_eq!(requests.load(Relaxed), 1, "the page of the other host is requested once");
}

#[test]
fn link_checker_reports_what_it_has_checked_at_ctrl_c() {
    let (sandbox, runtime) = (Sandbox::new(), Runtime::new().unwrap());
    let (sender, arrived) = mpsc::channel();
    let hangs = move || async move {
        sender.send(()).unwrap();
        std::future::pending::<()>().await;
    };
    let first = async || Html("<a href='/hangs'>");
    let routes = Router::new().route("/", axum::routing::get(first)).fallback(hangs);
    let url = serve(&runtime, routes);
    let run = sandbox.example("link_checker").args([&url, "--timeout", "600"]).start();
    sandbox.until("the second page is requested", || arrived.try_recv().is_ok());
    let ended = run.interrupt_until_it_ends();
    ended
        .exits(130)
        .out_has("pages checked: 1 in ")
        .out_has("not checked, because the check was stopped: 1\n");
}

/// A page that fails once while the check is being stopped may be found by the next try, so it is not broken.
#[test]
fn link_checker_does_not_call_a_page_broken_that_it_could_not_try_again() {
    let (sandbox, runtime) = (Sandbox::new(), Runtime::new().unwrap());
    let (sender, arrived) = mpsc::channel();
    let (release, released) = watch::channel(false);
    let busy = move || async move {
        let mut released = released;
        sender.send(()).unwrap();
        drop(released.wait_for(|released| *released).await);
        StatusCode::SERVICE_UNAVAILABLE
    };
    let first = async || Html("<a href='/busy'>");
    let routes = Router::new().route("/", axum::routing::get(first)).fallback(busy);
    let url = serve(&runtime, routes);
    let mut run = sandbox.example("link_checker").args([&url, "--timeout", "600"]).start();
    sandbox.until("the second page is requested", || arrived.try_recv().is_ok());
    run.signal(Signal::INT);
    run.until_err_has("stopping, 1 still being checked");
    release.send(true).unwrap();
    let ended = run.end();
    ended.exits(130).out_has("broken links: 0\n").out_has("not checked, because the check was stopped: 1\n");
    assert!(arrived.try_recv().is_err(), "it was not requested again");
}

#[test]
fn link_checker_refuses_what_it_cannot_use() {
    let sandbox = Sandbox::new();
    let refused = [
        (["--rate", "0"], "invalid value '0' for '--rate <NUMBER>'"),
        (["--host-rate", "0"], "invalid value '0' for '--host-rate <NUMBER>'"),
        (["--per-host", "0"], "invalid value '0' for '--per-host <NUMBER>'"),
        (["--max-pages", "0"], "invalid value '0' for '--max-pages <NUMBER>'"),
        (["--timeout", "0"], "invalid value '0' for '--timeout <SECONDS>': must be above 0"),
        (["--timeout", "x"], "invalid value 'x' for '--timeout <SECONDS>': not a number of seconds"),
        (["--timeout", "1e20"], "invalid value '1e20' for '--timeout <SECONDS>'"),
        (["http://a/", "b"], "invalid value 'b' for '[URL]...': relative URL without a base"),
        (
            ["http://a/", "https://b/"],
            "invalid value 'https://b/' for '[URL]...': the scheme must be http, got https",
        ),
    ];
    for (arguments, why) in refused {
        sandbox.example("link_checker").args(arguments).run().is_refused(why);
    }
}

#[test]
fn link_checker_fails_if_its_report_cannot_be_printed() {
    let sandbox = Sandbox::new();
    let ended = sandbox.example("link_checker").args(["--max-pages", "3"]).with_full_disk().run();
    ended.exits(1).err_has("cannot print the report");
}
