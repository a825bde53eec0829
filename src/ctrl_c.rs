//! Ctrl-C: the first drains a run, the second cancels it.

use std::io;
use std::sync::Arc;

use tokio::signal::ctrl_c;
use tracing::{info, warn};

use crate::signals::{SignalSource, Signals};

/// Returns a future that passes Ctrl-C on to the signals of a run.
pub(crate) fn listen(signals: Arc<Signals>, task: String) -> SignalSource {
    Box::pin(async move {
        if let Err(error) = pass_on(&signals, &task).await {
            warn!(target: "async_map_task", task, %error, "cannot listen to Ctrl-C, the run continues without it");
        }
    })
}

async fn pass_on(signals: &Signals, task: &str) -> io::Result<()> {
    ctrl_c().await?;
    info!(target: "async_map_task", task, "Ctrl-C: running items finish, a second Ctrl-C cancels them");
    signals.drain();
    ctrl_c().await?;
    info!(target: "async_map_task", task, "second Ctrl-C: running items are cancelled");
    signals.cancel();
    Ok(())
}
