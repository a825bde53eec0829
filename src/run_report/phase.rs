//! How the recorded run stands.

use crate::result::{Completion, Summary};

/// How the recorded run stands.
#[derive(Debug, Clone, Default)]
pub(super) enum Phase {
    #[default]
    NotStarted,
    Running,
    /// The run was dropped before its end.
    Dropped,
    Ended {
        summary: Summary,
        /// The reason of a failed run, as text.
        reason: Option<String>,
        is_cancelled: bool,
    },
}

impl Phase {
    /// Returns `true` if the run has succeeded, also with an accepted partial result.
    pub(super) fn is_success(&self) -> bool {
        matches!(self, Self::Ended { reason: None, .. })
    }

    /// Describes the end of a run in a few words.
    pub(super) fn verdict(&self) -> String {
        match self {
            Self::NotStarted => "no run has started".to_owned(),
            Self::Running => "running".to_owned(),
            Self::Dropped => "dropped before its end".to_owned(),
            Self::Ended { reason: Some(reason), is_cancelled: false, .. } => format!("failed: {reason}"),
            Self::Ended { reason: Some(reason), .. } => reason.clone(),
            Self::Ended { summary, reason: None, .. } => match summary.completion {
                Completion::All | Completion::Failed => "succeeded".to_owned(),
                Completion::EarlySuccess => "succeeded early: enough items had succeeded".to_owned(),
                Completion::Cancelled => "cancelled, with a partial result that is accepted".to_owned(),
                Completion::TimedOut => {
                    "ended at its run_timeout, with a partial result that is accepted".to_owned()
                }
            },
        }
    }
}
