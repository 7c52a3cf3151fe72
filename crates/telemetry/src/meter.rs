//! Takes metrics as they stand, and sends them on a thread of its own.

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
    Counts, Metric, MetricSettings, StartError,
    counts::Tally,
    metrics::{Time, export},
    send::Sender,
};

/// Tells a collector of metrics. All copies are one.
#[derive(Clone)]
pub struct Meter(Arc<Shared>);

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Meter").field(&self.counts()).finish()
    }
}

/// How many points, and they.
type Reading = (u64, ExportMetricsServiceRequest);

struct Shared {
    resource: Vec<(String, String)>,
    interval: Duration,
    /// In nanoseconds since 1970.
    started: u64,
    /// One reading may wait while another is sent; none any more once the end has come.
    waiting: Mutex<Option<SyncSender<Reading>>>,
    /// Nothing comes out of it: it is let go when the thread has ended.
    ended: Mutex<Receiver<()>>,
    tally: Arc<Tally>,
}

impl Meter {
    /// A meter that keeps to `settings`; what is told was counted from now on. Whether the collector is there shows when it is
    /// told.
    pub fn start(settings: MetricSettings) -> Result<Self, StartError> {
        let MetricSettings { collector, resource, interval } = settings;
        let mut sender = Sender::new(&collector)?;
        let (waiting, readings) = sync_channel::<Reading>(1);
        let (alive, ended) = channel();
        let tally = Arc::new(Tally::of("metrics"));
        let own = Arc::clone(&tally);
        thread::Builder::new().name("otlp-metrics".to_owned()).spawn(move || {
            let _alive = alive;
            // One that fails is not sent again: the next says all that it said.
            for (points, reading) in readings {
                own.note(points, sender.send(&reading));
            }
        })?;
        let (waiting, ended) = (Mutex::new(Some(waiting)), Mutex::new(ended));
        Ok(Self(Arc::new(Shared { resource, interval, started: now(), waiting, ended, tally })))
    }

    /// How often it wants to be told.
    pub fn interval(&self) -> Duration {
        self.0.interval
    }

    /// Takes `metrics` as they stand now. It never waits: where the collector is too slow, they are dropped and counted.
    pub fn tell(&self, metrics: Vec<Metric>) {
        let points = metrics.iter().map(Metric::points).sum();
        let reading = export(&self.0.resource, metrics, Time { started: self.0.started, now: now() });
        let taken = self.waiting().as_ref().is_some_and(|waiting| waiting.try_send((points, reading)).is_ok());
        if !taken {
            self.0.tally.no_room(points);
        }
    }

    /// What became of points so far.
    pub fn counts(&self) -> Counts {
        self.0.tally.counts()
    }

    /// Sends what waits and takes no more, within `patience`: whether all of it was done with by then.
    pub fn finish(&self, patience: Duration) -> bool {
        drop(self.waiting().take());
        let ended = self.0.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.recv_timeout(patience) != Err(RecvTimeoutError::Timeout)
    }

    fn waiting(&self) -> MutexGuard<'_, Option<SyncSender<Reading>>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nanoseconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}
