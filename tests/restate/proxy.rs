//! A real proxy, as it may be in front of an ingress.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tokio::net::TcpStream;

use crate::guarded::Guarded;
use crate::ports;
use crate::scene::until;

/// A running proxy. It is killed if a test drops it, or dies.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    _process: Guarded,
}

impl Proxy {
    /// Starts a proxy that rejects requests without the token.
    pub(crate) async fn before(target: u16, token: &str) -> Self {
        let rule =
            format!("deny deny_status 401 unless {{ req.hdr(authorization) -m str 'Bearer {token}' }}");
        Self::start(target, "", &format!("timeout server 60s\nhttp-request {rule}")).await
    }

    /// Starts a proxy with this configuration of the way, and with these words after its own address.
    pub(crate) async fn start(target: u16, bind: &str, way: &str) -> Self {
        let port = ports::free();
        let config = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("proxy-{port}.cfg"));
        let text = format!(
            "defaults
                mode http
                retries 0
                timeout connect 1s
                timeout client 60s
            listen way
                bind 127.0.0.1:{port} {bind}
                {way}
                server far 127.0.0.1:{target}\n"
        );
        fs::write(&config, text).unwrap();
        let mut program = Command::new(program());
        program.arg("-db").arg("-f").arg(&config);
        let proxy = Self { port, _process: Guarded::start(&program) };
        let connects = async || TcpStream::connect(("127.0.0.1", port)).await.is_ok();
        until("the proxy, whose words stand above", connects).await;
        fs::remove_file(config).unwrap();
        proxy
    }

    /// Starts a proxy in front of a server's ingress or admin API, by its URL.
    pub(crate) async fn before_url(url: &str, way: &str) -> Self {
        Self::start(url.rsplit(':').next().unwrap().parse().unwrap(), "", way).await
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// The usual place of the program, which is not always in the search path.
pub(crate) fn program() -> &'static Path {
    let places = ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy", "/opt/homebrew/bin/haproxy"];
    let program = places.into_iter().map(Path::new).find(|place| place.exists());
    program.unwrap_or(Path::new("haproxy"))
}
