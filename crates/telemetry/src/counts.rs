//! What became of what was to be told.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::SendError;

/// Spans, or points of metrics, by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// The collector has them.
    pub exported: u64,
    /// There was no room for them.
    pub queue_full: u64,
    /// They could not be sent.
    pub failed: u64,
    /// The collector did not want them.
    pub rejected: u64,
}

/// Counts, and tells the log when a collector goes and when it comes back.
pub(crate) struct Tally {
    /// What is told, in words.
    what: &'static str,
    exported: AtomicU64,
    queue_full: AtomicU64,
    failed: AtomicU64,
    rejected: AtomicU64,
    /// How many were lost since the collector was there the last time, once that has been said.
    lost: Mutex<Option<u64>>,
}

impl Tally {
    pub(crate) fn of(what: &'static str) -> Self {
        let zero = || AtomicU64::new(0);
        Self { what, exported: zero(), queue_full: zero(), failed: zero(), rejected: zero(), lost: Mutex::new(None) }
    }

    pub(crate) fn no_room(&self, count: u64) {
        self.queue_full.fetch_add(count, Relaxed);
    }

    /// Notes what `became` of an export of so many: sent, but for those that were not wanted, or not.
    pub(crate) fn note(&self, count: u64, became: Result<u64, SendError>) {
        let (what, mut lost) = (self.what, self.lost.lock().unwrap_or_else(PoisonError::into_inner));
        match became {
            Ok(rejected) => {
                self.rejected.fetch_add(rejected, Relaxed);
                self.exported.fetch_add(count.saturating_sub(rejected), Relaxed);
                if let Some(lost) = lost.take() {
                    tracing::info!(lost, "the collector takes {what} again");
                }
            }
            Err(error) => {
                self.failed.fetch_add(count, Relaxed);
                if lost.is_none() {
                    // Its address may hold a secret: it stays out of the log.
                    tracing::warn!(%error, "the collector takes no {what}: they are dropped and counted until it does");
                }
                *lost.get_or_insert(0) += count;
            }
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            exported: self.exported.load(Relaxed),
            queue_full: self.queue_full.load(Relaxed),
            failed: self.failed.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
        }
    }
}
