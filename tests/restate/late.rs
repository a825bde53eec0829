//! A way to the ingress that delays calls, as a slow proxy with buffers does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::scene::until;

/// Holds each call, or another kind of request, until a test lets it through, even if its caller has hung up since. All
/// other requests pass immediately.
pub(crate) struct Late {
    port: u16,
    held: Arc<AtomicUsize>,
    passed: Arc<AtomicUsize>,
    gate: watch::Sender<bool>,
}

impl Late {
    pub(crate) async fn before(url: &str) -> Self {
        Self::holding(url, "call/").await
    }

    /// Holds the requests for this path.
    pub(crate) async fn holding(url: &str, path: &str) -> Self {
        let held_path = format!("POST /restate/{path}");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target: u16 = url.rsplit(':').next().unwrap().parse().unwrap();
        let late = Self {
            port: listener.local_addr().unwrap().port(),
            held: Arc::default(),
            passed: Arc::default(),
            gate: watch::Sender::new(false),
        };
        let (held, passed, gate) = (Arc::clone(&late.held), Arc::clone(&late.passed), late.gate.subscribe());
        tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let (held, passed, gate) = (Arc::clone(&held), Arc::clone(&passed), gate.clone());
                let held_path = held_path.clone();
                tokio::spawn(pass(near, target, held_path, held, passed, gate));
            }
        });
        late
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns the number of calls that it has held.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }

    /// Lets the calls through, and waits until the engine has answered each, or waits for its handler.
    pub(crate) async fn let_through(&self) {
        self.gate.send_replace(true);
        let held = self.held();
        until("the calls are passed on", async || self.passed.load(Ordering::SeqCst) >= held).await;
    }
}

async fn pass(
    mut near: TcpStream,
    target: u16,
    held_path: String,
    held: Arc<AtomicUsize>,
    passed: Arc<AtomicUsize>,
    mut gate: watch::Receiver<bool>,
) {
    let mut far = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
    let mut begun = vec![0; 1 << 16];
    let length = near.read(&mut begun).await.unwrap();
    let is_held = begun[..length].starts_with(held_path.as_bytes());
    if is_held {
        held.fetch_add(1, Ordering::SeqCst);
        gate.wait_for(|is_open| *is_open).await.unwrap();
    }
    far.write_all(&begun[..length]).await.unwrap();
    if is_held {
        passed.fetch_add(1, Ordering::SeqCst);
    }
    let _ = copy_bidirectional(&mut near, &mut far).await;
}
