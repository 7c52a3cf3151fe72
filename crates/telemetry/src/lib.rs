//! Traces and metrics for whoever collects them, by OpenTelemetry's protocol (OTLP).
//!
//! In come requests that are done, with the stamps that they carried anyway; out go spans, made of those stamps on a
//! thread of its own, by HTTP or gRPC. While a request is on its way nothing is recorded here: all that is done at its
//! start is to decide, by the caller's `traceparent` and the sampler, whether it will be told of. A collector that is slow
//! or away costs spans, which are counted, and nobody else anything. Metrics come in as they stand, every so often, and go
//! the same way.
//!
//! This room does not know the doors, nor what a request means, nor who counted.

mod attributes;
mod context;
mod counts;
mod meter;
mod metrics;
mod sampler;
mod send;
mod settings;
mod spans;
mod tracer;

use std::{thread, time::Duration};

pub use context::{Context, Parent, SpanId};
pub use counts::Counts;
pub use meter::Meter;
pub use metrics::{Histogram, Metric, Point, Values};
pub use sampler::Sampler;
pub use send::SendError;
pub use settings::{
    Collector, Encoding, METRICS, MetricSettings, Protocol, Settings, TRACES, TraceSettings, address, pairs,
};
pub use spans::Finished;
pub use tracer::{StartError, Tracer};

/// Who tells collectors, where there are any.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// Of requests.
    pub tracer: Option<Tracer>,
    /// Of metrics.
    pub meter: Option<Meter>,
}

impl Telemetry {
    /// Whoever is needed to keep to `settings`.
    pub fn start(settings: Settings) -> Result<Self, StartError> {
        let Settings { traces, metrics } = settings;
        Ok(Self { tracer: traces.map(Tracer::start).transpose()?, meter: metrics.map(Meter::start).transpose()? })
    }

    /// Sends what waits and takes no more, within `patience`. What was not taken by then is said in the log.
    pub fn finish(&self, patience: Duration) {
        let late = |what: &str| tracing::warn!("the collector did not take the last {what} in time");
        thread::scope(|scope| {
            scope.spawn(|| {
                if self.meter.as_ref().is_some_and(|meter| !meter.finish(patience)) {
                    late("metrics");
                }
            });
            if self.tracer.as_ref().is_some_and(|tracer| !tracer.finish(patience)) {
                late("spans");
            }
        });
    }
}
