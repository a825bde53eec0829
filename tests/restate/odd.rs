//! A second service, with the handlers that the first one lacks.

use std::thread;

use restate_sdk::prelude::*;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use crate::server::{self, Server};

struct Odd;

#[service]
impl Odd {
    /// Ends with a terminal error with the code that it gets.
    #[handler]
    async fn refuse(&self, _ctx: Context<'_>, code: Json<u16>) -> HandlerResult<()> {
        Err(TerminalError::new_with_code(code.into_inner(), "not today").into())
    }

    /// Ends with a terminal error with this message.
    #[handler]
    async fn complain(&self, _ctx: Context<'_>, message: Json<String>) -> HandlerResult<()> {
        Err(TerminalError::new_with_code(418, message.into_inner()).into())
    }

    /// Returns a text of this many bytes.
    #[handler]
    async fn text(&self, _ctx: Context<'_>, bytes: Json<usize>) -> HandlerResult<Json<String>> {
        Ok(Json("x".repeat(bytes.into_inner())))
    }
}

/// The shared server, at which this service is registered, too.
pub(crate) async fn shared() -> &'static Server {
    static REGISTERED: OnceCell<()> = OnceCell::const_new();
    let server = server::shared().await;
    let register = async || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        // On a separate runtime, because those of tests do not last.
        thread::spawn(move || {
            Runtime::new().unwrap().block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                HttpServer::new(Endpoint::builder().bind(Odd).build()).serve(listener).await;
            });
        });
        server.register(port).await;
    };
    REGISTERED.get_or_init(register).await;
    server
}
