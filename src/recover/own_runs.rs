//! The runs that this process holds, and those of them that it is about to give back.
//!
//! A run whose future was dropped is given back by its task, a little later. If it is wanted again meanwhile, its holder is
//! known here, and is waited for or helped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::store::RunStatus;

/// By holder. A holder is here from before it asks for the run until it has given it back.
static HELD: Mutex<Option<HashMap<String, Arc<watch::Sender<Phase>>>>> = Mutex::new(None);

/// How far a run of this process is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Phase {
    /// It goes on.
    Running,
    /// It has ended or was dropped, and is about to be given back.
    Ending,
    /// It has ended so, and could not be given back.
    NotGivenBack(RunStatus),
    /// It was given back, or its task was dropped.
    Over,
}

/// A run that this process holds. It leaves the list when this is dropped.
#[derive(Debug)]
pub(super) struct OwnRun {
    holder: String,
    phase: Arc<watch::Sender<Phase>>,
}

impl OwnRun {
    pub(super) fn new(holder: &str) -> Self {
        let phase = Arc::new(watch::Sender::new(Phase::Running));
        held(|held| held.insert(holder.to_owned(), Arc::clone(&phase)));
        Self { holder: holder.to_owned(), phase }
    }

    /// The phase, to be set from elsewhere.
    pub(super) fn phase(&self) -> Arc<watch::Sender<Phase>> {
        Arc::clone(&self.phase)
    }

    pub(super) fn set(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }
}

impl Drop for OwnRun {
    fn drop(&mut self) {
        held(|held| held.remove(&self.holder));
        self.set(Phase::Over);
    }
}

/// The phase of the run that a holder of this process has.
pub(super) fn phase_of(holder: &str) -> Option<watch::Receiver<Phase>> {
    held(|held| held.get(holder).map(|phase| phase.subscribe()))
}

fn held<T>(then: impl FnOnce(&mut HashMap<String, Arc<watch::Sender<Phase>>>) -> T) -> T {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    then(held.get_or_insert_with(HashMap::new))
}
