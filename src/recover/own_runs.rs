//! The runs that this process holds, and their phases.
//!
//! The task of a dropped run gives the run back a little later. In the meantime, another run of this process with the same
//! id finds the holder here. It waits for the holder, or closes the run in its place.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::store::RunStatus;

/// By holder. A holder is in this map from before it requests the run until it has given the run back.
static HELD: Mutex<Option<HashMap<String, Arc<watch::Sender<Phase>>>>> = Mutex::new(None);

/// The phase of a run of this process.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Phase {
    /// The run is in progress.
    Running,
    /// The run has ended or was dropped, and its task is about to give it back.
    Ending,
    /// The run has ended with this status, and could not be given back.
    NotGivenBack(RunStatus),
    /// The run was given back, or its task was dropped.
    Over,
}

/// A run that this process holds. Dropping it removes the run from the map.
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

    /// Returns the phase, so that the journal can set it.
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

/// Returns the phase of the run of a holder in this process.
pub(super) fn phase_of(holder: &str) -> Option<watch::Receiver<Phase>> {
    held(|held| held.get(holder).map(|phase| phase.subscribe()))
}

fn held<T>(then: impl FnOnce(&mut HashMap<String, Arc<watch::Sender<Phase>>>) -> T) -> T {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    then(held.get_or_insert_with(HashMap::new))
}
