//! Counts of exported and lost spans and metric points.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::ExportError;

/// Numbers of spans or metric points, by result of their export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExportCounts {
    /// Accepted by the collector.
    pub exported: u64,
    /// Dropped because the queue was full.
    pub queue_full: u64,
    /// Lost because the export failed.
    pub failed: u64,
    /// Rejected by the collector.
    pub rejected: u64,
}

/// Counts exports, and logs when a collector becomes unavailable and available again.
pub(crate) struct ExportStats {
    /// Kind of the exported items, for the log.
    what: &'static str,
    exported: AtomicU64,
    queue_full: AtomicU64,
    failed: AtomicU64,
    rejected: AtomicU64,
    /// Items lost since the collector became unavailable; `None` while it is available.
    lost: Mutex<Option<u64>>,
}

impl ExportStats {
    pub(crate) fn new(what: &'static str) -> Self {
        let zero = || AtomicU64::new(0);
        Self { what, exported: zero(), queue_full: zero(), failed: zero(), rejected: zero(), lost: Mutex::new(None) }
    }

    pub(crate) fn record_dropped(&self, count: u64) {
        self.queue_full.fetch_add(count, Relaxed);
    }

    /// Records the `result` of an export of `count` items; a success has the number of rejected items.
    pub(crate) fn record_export(&self, count: u64, result: Result<u64, ExportError>) {
        let (what, mut lost) = (self.what, self.lost.lock().unwrap_or_else(PoisonError::into_inner));
        match result {
            Ok(rejected) => {
                self.rejected.fetch_add(rejected, Relaxed);
                self.exported.fetch_add(count.saturating_sub(rejected), Relaxed);
                if let Some(lost) = lost.take() {
                    tracing::info!(lost, "collector accepts {what} again");
                }
            }
            Err(error) => {
                self.failed.fetch_add(count, Relaxed);
                if lost.is_none() {
                    // The collector's URL may contain a secret, so it is not logged.
                    tracing::warn!(%error, "export of {what} failed: dropping and counting them until it succeeds");
                }
                *lost.get_or_insert(0) += count;
            }
        }
    }

    pub(crate) fn export_counts(&self) -> ExportCounts {
        ExportCounts {
            exported: self.exported.load(Relaxed),
            queue_full: self.queue_full.load(Relaxed),
            failed: self.failed.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
        }
    }
}
