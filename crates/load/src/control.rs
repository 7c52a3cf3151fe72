//! A hand on a load that runs.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio::sync::watch;

/// Stops a load that runs, and tells how far it is. Its clones speak of the same load; another load needs another one.
#[derive(Debug, Clone, Default)]
pub struct Control(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    stop: watch::Sender<bool>,
    sent: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    not_sent: AtomicU64,
}

/// How far a load is; what only warms up counts too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Requests sent.
    pub sent: u64,
    /// Of these, those that have an answer, whatever its status.
    pub answered: u64,
    /// Of these, those that failed: no answer, or one of an error.
    pub failed: u64,
    /// Of these, those that were answered 401, 403 or 404: no further request would fare better.
    pub refused: u64,
    /// Requests that were not sent for a bound.
    pub not_sent: u64,
}

impl Control {
    /// Ends the load: nothing more is sent, what is under way is given up, and the report so far is made.
    pub fn stop(&self) {
        self.0.stop.send_replace(true);
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        let read = |count: &AtomicU64| count.load(Relaxed);
        let shared = &self.0;
        Progress {
            sent: read(&shared.sent),
            answered: read(&shared.answered),
            failed: read(&shared.failed),
            refused: read(&shared.refused),
            not_sent: read(&shared.not_sent),
        }
    }

    pub(crate) async fn stopped(&self) {
        // The sender lives as long as `self`.
        let _ = self.0.stop.subscribe().wait_for(|stop| *stop).await;
    }

    pub(crate) fn count_sent(&self) {
        self.0.sent.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_not_sent(&self) {
        self.0.not_sent.fetch_add(1, Relaxed);
    }

    /// Counts the end of a request with the status of its answer, if there was one.
    pub(crate) fn count_end(&self, status: Option<u16>) {
        self.0.refused.fetch_add(status.is_some_and(|status| matches!(status, 401 | 403 | 404)).into(), Relaxed);
        self.0.failed.fetch_add(status.is_none_or(|status| status >= 400).into(), Relaxed);
        self.0.answered.fetch_add(status.is_some().into(), Relaxed);
    }
}
