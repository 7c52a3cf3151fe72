//! Exports snapshots of metrics on a thread of its own.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel},
    },
    thread,
    time::{Duration, SystemTime},
};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;

use crate::{
    ExportCounts, Metric, MetricSettings, StartError,
    export_counts::ExportStats,
    exporter::Exporter,
    metrics::{TimeRange, metrics_request},
};

/// Exports metrics to a collector. Clones share one exporter.
#[derive(Clone)]
pub struct Meter(Arc<Shared>);

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Meter").field(&self.export_counts()).finish()
    }
}

/// Number of points, and the export request with them.
type Snapshot = (u64, ExportMetricsServiceRequest);

struct Shared {
    resource: Vec<(String, String)>,
    interval: Duration,
    /// Start of counting, in nanoseconds since 1970.
    started: u64,
    /// One snapshot may wait while another one is sent; `None` after shutdown.
    queue: Mutex<Option<SyncSender<Snapshot>>>,
    /// Disconnected when the thread has ended; no value is ever sent.
    ended: Mutex<Receiver<()>>,
    stats: Arc<ExportStats>,
}

impl Meter {
    /// Starts a meter, whose counters start now. An unavailable collector shows at the first export.
    pub fn start(settings: MetricSettings) -> Result<Self, StartError> {
        let MetricSettings { collector, resource, interval } = settings;
        let mut exporter = Exporter::new(&collector)?;
        let (queue, snapshots) = sync_channel::<Snapshot>(1);
        let (alive, ended) = channel();
        let stats = Arc::new(ExportStats::new("metrics"));
        let own = Arc::clone(&stats);
        thread::Builder::new().name("otlp-metrics".to_owned()).spawn(move || {
            let _alive = alive;
            // A failed export is not repeated, because the next snapshot contains its values.
            for (points, snapshot) in snapshots {
                own.record_export(points, exporter.export(&snapshot));
            }
        })?;
        let (queue, ended) = (Mutex::new(Some(queue)), Mutex::new(ended));
        Ok(Self(Arc::new(Shared { resource, interval, started: unix_nanos(), queue, ended, stats })))
    }

    /// Interval between exports.
    pub fn export_interval(&self) -> Duration {
        self.0.interval
    }

    /// Queues a snapshot of `metrics`. Does not block: if the collector is too slow, it is dropped and counted.
    pub fn export(&self, metrics: Vec<Metric>) {
        let points = metrics.iter().map(Metric::point_count).sum();
        let snapshot =
            metrics_request(&self.0.resource, metrics, TimeRange { started: self.0.started, now: unix_nanos() });
        let taken = self.lock_queue().as_ref().is_some_and(|queue| queue.try_send((points, snapshot)).is_ok());
        if !taken {
            self.0.stats.record_dropped(points);
        }
    }

    /// Number of points so far, by result of their export.
    pub fn export_counts(&self) -> ExportCounts {
        self.0.stats.export_counts()
    }

    /// Exports what is queued and accepts no more, within `timeout`. Returns whether all of it was done in time.
    pub fn shut_down(&self, timeout: Duration) -> bool {
        drop(self.lock_queue().take());
        let ended = self.0.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.recv_timeout(timeout) != Err(RecvTimeoutError::Timeout)
    }

    fn lock_queue(&self) -> MutexGuard<'_, Option<SyncSender<Snapshot>>> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nanoseconds since 1970.
fn unix_nanos() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}
