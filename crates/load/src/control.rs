//! Control of a running load: stop it, read its progress.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio::sync::watch;

/// Stops a running load and reports its progress. Clones control the same load; use a new value for another load.
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

/// Progress of a load, including its warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Requests sent.
    pub sent: u64,
    /// Requests with a response of any status.
    pub answered: u64,
    /// Requests that failed: no response, or an error response.
    pub failed: u64,
    /// Requests answered with 401, 403 or 404; further requests would fail as well.
    pub refused: u64,
    /// Requests that were not sent because of a limit.
    pub not_sent: u64,
}

impl Control {
    /// Ends the load: sends nothing more, abandons the requests in flight and creates the report.
    pub fn stop(&self) {
        self.0.stop.send_replace(true);
    }

    /// The progress so far.
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

    pub(crate) async fn wait_until_stopped(&self) {
        // The sender lives as long as `self`, so this cannot fail.
        let _ = self.0.stop.subscribe().wait_for(|stop| *stop).await;
    }

    pub(crate) fn count_sent(&self) {
        self.0.sent.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_not_sent(&self) {
        self.0.not_sent.fetch_add(1, Relaxed);
    }

    /// Counts the end of a request, with the status of its response if there was one.
    pub(crate) fn count_end(&self, status: Option<u16>) {
        self.0.refused.fetch_add(status.is_some_and(|status| matches!(status, 401 | 403 | 404)).into(), Relaxed);
        self.0.failed.fetch_add(status.is_none_or(|status| status >= 400).into(), Relaxed);
        self.0.answered.fetch_add(status.is_some().into(), Relaxed);
    }
}
