//! A load balancer in front of several workers: the engine sends all calls of a service to one address.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::guarded::Guarded;
use crate::process::wait_for;
use crate::{ports, proxy};

/// Speaks HTTP/2 without TLS to both sides, checks the health of each worker often, and sends a call that could not be
/// delivered to another worker.
const CONFIG: &str = "
defaults
    mode http
    timeout connect 1s
    timeout client 60s
    timeout server 60s
    retries 3
    option redispatch 1
listen workers
    balance roundrobin
    option httpchk GET /health
    default-server proto h2 check inter 50ms fall 1 rise 1
";

/// A running HAProxy. It is killed if a test drops it, or dies.
pub(crate) struct Balancer {
    port: u16,
    _process: Guarded,
}

impl Balancer {
    /// Starts it in front of listening workers, and waits until it has found one of them healthy.
    pub(crate) async fn start(folder: &Path, workers: &[u16]) -> Self {
        let port = ports::free();
        let mut config = format!("{CONFIG}    bind 127.0.0.1:{port}\n");
        for worker in workers {
            writeln!(config, "    server worker-{worker} 127.0.0.1:{worker}").unwrap();
        }
        let path = folder.join("haproxy.cfg");
        fs::write(&path, config).unwrap();
        let process = Guarded::start(Command::new(proxy::program()).args(["-q", "-db", "-f"]).arg(path));
        let url = format!("http://127.0.0.1:{port}/health");
        let is_well = async || reqwest::get(&url).await.ok()?.status().is_success().then_some(());
        wait_for("the balancer", is_well).await;
        Self { port, _process: process }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}
