//! Accepts connections and serves them, with limits. `axum::serve` has none: it holds half a request for ever, and as
//! many connections as the process may open files.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::body::Bodies;
use crate::connections::{Connection, Connections};
use crate::reply::while_sent;

/// The time from the opening of a connection, or from the end of its last answer, to the end of the next header. So it
/// limits slow headers, and also idle connections.
const HEADER_LIMIT: Duration = Duration::from_secs(5);

/// The maximum number of bytes of a header. The buffers of a connection have this size, too.
const MAX_HEADER: usize = 32 * 1024;

/// The pause after a failed `accept`. The reason is usually that too many files are open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop` is cancelled and the last answer has been sent. An idle connection is closed at once.
pub(crate) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let (connections, bodies) = (Arc::new(Connections::default()), Arc::new(Bodies::default()));
    let tasks = TaskTracker::new();
    let accept_all = async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let connection = Arc::new(connections.admit().await);
                    let server = Server {
                        router: TowerToHyperService::new(router.clone()),
                        bodies: Arc::clone(&bodies),
                        connection,
                    };
                    tasks.spawn(server.serve(stream, stop.clone()));
                }
                // The client has already gone.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    connections.displace();
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    stop.run_until_cancelled(accept_all).await;
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

/// The server of one connection.
#[derive(Clone)]
struct Server {
    router: TowerToHyperService<Router>,
    bodies: Arc<Bodies>,
    connection: Arc<Connection>,
}

impl Server {
    async fn serve(self, stream: TcpStream, stop: CancellationToken) {
        let connection = Arc::clone(&self.connection);
        let service = service_fn(move |request| self.clone().answer(request));
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEADER_LIMIT).max_buf_size(MAX_HEADER);
        let mut serving = pin!(http.serve_connection(TokioIo::new(stream), service));
        let mut is_stopping = false;
        loop {
            tokio::select! {
                biased;
                () = connection.displaced() => return,
                () = stop.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    serving.as_mut().graceful_shutdown();
                }
                ended = serving.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection broke off");
                    }
                    return;
                }
            }
        }
    }

    /// The handlers see whole requests only, so none of them waits for a slow client.
    async fn answer(self, request: Request<Incoming>) -> Result<Response, Infallible> {
        let (request, _memory) = match self.bodies.read(request).await {
            Ok(whole) => whole,
            Err(error) => return Ok(error.into_response()),
        };
        let working = self.connection.work();
        let response = self.router.call(request).await?;
        Ok(while_sent(response, working))
    }
}
