//! W4: a GET over a socket, through one client for all contenders of a runtime, to a server on its own core.

use std::net::SocketAddr;
use std::sync::{LazyLock, mpsc};
use std::thread;

use axum::extract::Path;
use axum::routing::get;
use axum::serve::ListenerExt;
use axum::{Router, serve};
use reqwest::Client;
use tokio::net::TcpListener;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::contenders::ItemResult;
use crate::frame::current_thread_on;

static SERVER: LazyLock<SocketAddr> = LazyLock::new(start);
/// One for each runtime: a pooled connection makes progress only while the runtime that opened it runs.
static CLIENTS: [LazyLock<Client>; 2] = [const { LazyLock::new(client) }; 2];

/// Requests twice the number from the server.
pub(crate) async fn fetches(n: u64) -> ItemResult {
    let client = &CLIENTS[usize::from(Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread)];
    let response = client.get(format!("http://{}/{n}", *SERVER)).send().await.map_err(|_| 1_u32)?;
    let body = response.text().await.map_err(|_| 2_u32)?;
    body.parse().map_err(|_| 3)
}

fn client() -> Client {
    Client::builder().no_proxy().build().expect("the client is valid")
}

async fn double(Path(n): Path<u64>) -> String {
    (n * 2).to_string()
}

fn start() -> SocketAddr {
    let (address, started) = mpsc::channel();
    thread::spawn(move || {
        current_thread_on(1).block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            address.send(listener.local_addr().expect("it is bound")).expect("the benchmark waits for it");
            let listener = listener.tap_io(|stream| stream.set_nodelay(true).expect("a TCP socket"));
            serve(listener, Router::new().route("/{n}", get(double))).await.expect("it never ends");
        });
    });
    started.recv().expect("the server has started")
}
