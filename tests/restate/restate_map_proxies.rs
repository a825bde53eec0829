//! The examples `restate_map` and `restate_worker` behind the proxies of the guide's page, with its configurations.

use std::fs;

use rustix::process::Signal;

use crate::checksums::{Checksums, interrupt};
use crate::harness::Sandbox;
use crate::scene::until;
use crate::{page, ports, proxy};

/// Returns the port in a URL.
fn port_of(url: &str) -> &str {
    url.rsplit(':').next().unwrap()
}

#[tokio::test]
async fn restate_map_uses_the_tls_and_the_token_of_the_page() {
    let sandbox = Sandbox::new();
    let (mut checksums, worker) = Checksums::start(&sandbox).await;
    let folder = sandbox.folder("tls");
    let (ingress, admin) = (ports::free(), ports::free());
    let config = page::code("## TLS and a token", "text")
        .replace(":8443", &format!(":{ingress}"))
        .replace(":9443", &format!(":{admin}"))
        .replace(":8080", &format!(":{}", port_of(&checksums.server.ingress())))
        .replace(":9070", &format!(":{}", port_of(&checksums.server.admin())));
    sandbox.file("tls/haproxy.cfg", config);
    let commands = page::code("## TLS and a token", "sh");
    let (make_certificate, _) = commands.split_once("haproxy -f").unwrap();
    sandbox.program("sh").folder(&folder).args(["-ec", make_certificate]).run().exits(0);
    let proxy = sandbox.program(proxy::program()).folder(&folder).args(["-db", "-f", "haproxy.cfg"]);
    let _proxy = proxy.start();
    let certificate = folder.join("certificate.pem").to_str().unwrap().to_owned();
    for (port, path) in [(ingress, "restate/health"), (admin, "health")] {
        let url = format!("https://localhost:{port}/{path}");
        let curl = ["-sf", "--cacert", &certificate, "-H", "authorization: Bearer SECRET", &url];
        let answers = async || sandbox.program("curl").args(curl).run().succeeds();
        until("the proxy of the page answers", answers).await;
    }

    checksums.ways.ingress = format!("https://localhost:{ingress}");
    checksums.ways.admin = format!("https://localhost:{admin}");
    let untrusted = checksums.map("untrusted").run();
    untrusted.err_has("the certificate of the ingress is not trusted: ");
    checksums.ways.variables.push(("SSL_CERT_FILE", certificate));
    let unauthorized = checksums.map("unauthorized").run();
    unauthorized.err_has("the ingress refused the bearer token with status 401: ");
    assert_eq!(checksums.count("un%", "true").await, 0, "nothing was called");
    checksums.ways.variables.push(("RESTATE_AUTH_TOKEN", "SECRET".to_owned()));
    checksums.map("secured").run().exits(0).out_is(checksums.sums());

    let (run, endless) = checksums.start_endless("secured-stop").await;
    let worker = worker.process.pid();
    until("the worker reads", async || endless.is_read_by(worker)).await;
    interrupt(run).exits(1);
    // So the admin API was reached, too.
    checksums.nothing_is_left_of("secured-stop").await;
}

#[tokio::test]
async fn restate_map_runs_on_several_workers_with_the_balancer_of_the_page() {
    let sandbox = Sandbox::new();
    let (checksums, one) = Checksums::start(&sandbox).await;
    let two = checksums.worker(0);
    let port = ports::free();
    let config = page::code("# Several workers", "text")
        .replace(":9079", &format!(":{port}"))
        .replace(":9080", &format!(":{}", one.port))
        .replace(":9081", &format!(":{}", two.port));
    let config = sandbox.file("haproxy.cfg", config);
    let balancer = sandbox.program(proxy::program()).args(["-db", "-f"]).arg(config).start();
    let health = format!("http://127.0.0.1:{port}/health");
    let answers = async || reqwest::get(&health).await.is_ok_and(|reply| reply.status().is_success());
    until("the balancer answers", answers).await;
    checksums.server.register(port).await;

    // Each worker prints one line for a file that only the coordinator sees.
    let tree = sandbox.folder("tree");
    (100..200).for_each(|number| fs::write(tree.join(number.to_string()), "missing\n").unwrap());
    checksums.map_over(&tree).args(["--run-id", "balanced", "--max-failures", "200"]).run().exits(0);
    for worker in [&one, &two] {
        assert!(worker.process.err().contains(": No such file"), "both workers have calls");
    }

    let (mut run, endless) = checksums.start_endless("moved").await;
    let reads = |pid| endless.is_read_by(pid);
    until("a worker reads", async || reads(one.process.pid()) || reads(two.process.pid())).await;
    let (busy, other) = if reads(one.process.pid()) { (one, two) } else { (two, one) };
    busy.process.signal(Signal::STOP);
    until("the other worker has the call of a frozen one", async || reads(other.process.pid())).await;
    busy.process.signal(Signal::CONT);
    until("the worker that is back reads no further", async || !reads(busy.process.pid())).await;
    // The balancer prints a line for each worker that it gives up or takes back.
    let is_up = async || balancer.err().lines().next_back().is_some_and(|line| line.contains(" is UP"));
    until("both workers are up for the balancer", is_up).await;
    other.process.signal(Signal::TERM);
    until("the first worker has the call of one that is told to end", async || reads(busy.process.pid()))
        .await;
    other.process.end().exits(0);
    run.until("the coordinator waits", |_| true);
    interrupt(run).exits(1);
    checksums.nothing_is_left_of("moved").await;
    endless.has_an_end();
    checksums.map("moved").run().exits(0).out_is(endless.expected);
}
