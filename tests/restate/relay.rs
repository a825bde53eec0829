//! A relay of TCP connections, which a test can cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::ports;

/// If the target does not listen, it accepts connections and closes them.
#[derive(Debug)]
pub(crate) struct Relay {
    port: u16,
    target: u16,
    accepted: Arc<AtomicUsize>,
    /// `None` while it is cut.
    serving: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Relay {
    pub(crate) async fn to(target: u16) -> Self {
        let mut relay = Self { port: ports::free(), target, accepted: Arc::default(), serving: None };
        relay.restore().await;
        relay
    }

    /// Starts a relay to a server's ingress or admin API, by its URL.
    pub(crate) async fn to_url(url: &str) -> Self {
        Self::to(url.rsplit(':').next().unwrap().parse().unwrap()).await
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns the number of connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Breaks all connections. New ones are refused.
    pub(crate) async fn cut(&mut self) {
        let (stop, serving) = self.serving.take().expect("it is not cut");
        stop.cancel();
        serving.await.unwrap();
    }

    pub(crate) async fn restore(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        let stop = CancellationToken::new();
        let (stopped, accepted, target) =
            (stop.clone().cancelled_owned(), Arc::clone(&self.accepted), self.target);
        let serving = tokio::spawn(async move {
            let mut pairs = JoinSet::new();
            let serve = async {
                loop {
                    let (mut near, _) = listener.accept().await.unwrap();
                    accepted.fetch_add(1, Ordering::Relaxed);
                    pairs.spawn(async move {
                        if let Ok(mut far) = TcpStream::connect(("127.0.0.1", target)).await {
                            let _ = copy_bidirectional(&mut near, &mut far).await;
                        }
                    });
                }
            };
            tokio::select! {
                biased;
                () = stopped => {}
                () = serve => {}
            }
            drop(listener);
            pairs.shutdown().await;
        });
        self.serving = Some((stop, serving));
    }
}
