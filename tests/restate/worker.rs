//! A worker: the service that the tests call, with the engine's own SDK.

use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use restate_sdk::prelude::*;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::time::sleep;

use crate::work::{self, Event, Item, Log};

pub(crate) struct Work;

#[service]
impl Work {
    /// Does the work that the item describes.
    #[handler]
    async fn work(&self, ctx: Context<'_>, item: Json<Item>) -> HandlerResult<Json<work::Output>> {
        let Json(item) = item;
        let log = Log::of(&item);
        // Only if it matters, because the log of many items is long.
        let before = match item.fails.max(item.stumbles) {
            0 => 0,
            _ => log.events().iter().filter(|event| **event == (Event::Began, item.index)).count() as u64,
        };
        log.write(Event::Began, item.index);
        let mut course = Course { log: &log, index: item.index, has_ended: false };
        if item.heeds {
            ctx.sleep(Duration::from_millis(item.millis)).await?;
        } else {
            sleep(Duration::from_millis(item.millis)).await;
        }
        while item.gate.as_ref().is_some_and(|gate| !gate.exists()) {
            sleep(Duration::from_millis(2)).await;
        }
        course.has_ended = true;
        if before < item.fails {
            return Err(TerminalError::new_with_code(418, format!("item {} is bad", item.index)).into());
        }
        if before < item.stumbles {
            return Err(std::io::Error::other("the disk stumbled").into());
        }
        Ok(Json(work::output(item.index)))
    }

    /// Returns its input.
    #[handler]
    async fn echo(
        &self,
        _ctx: Context<'_>,
        value: Json<serde_json::Value>,
    ) -> HandlerResult<Json<serde_json::Value>> {
        Ok(value)
    }

    /// Returns nothing.
    #[handler]
    async fn nothing(&self, _ctx: Context<'_>, _value: Json<serde_json::Value>) -> HandlerResult<()> {
        Ok(())
    }
}

/// Logs how the handler ended.
struct Course<'a> {
    log: &'a Log,
    index: u64,
    has_ended: bool,
}

impl Drop for Course<'_> {
    fn drop(&mut self) {
        let event = if self.has_ended { Event::Ended } else { Event::Dropped };
        self.log.write(event, self.index);
    }
}

/// Serves on a port for ever.
pub(crate) async fn serve(listener: TcpListener) {
    HttpServer::new(Endpoint::builder().bind(Work).build()).serve(listener).await;
}

/// Returns the port of a worker in this process, on a separate thread and runtime, because those of tests do not last.
pub(crate) fn here() -> u16 {
    static PORT: LazyLock<u16> = LazyLock::new(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        thread::spawn(move || {
            Runtime::new().unwrap().block_on(async { serve(TcpListener::from_std(listener).unwrap()).await });
        });
        port
    });
    *PORT
}
