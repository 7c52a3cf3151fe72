//! OpenTelemetry export of traces and metrics (OTLP over HTTP or gRPC).
//!
//! Spans are built from the stage timings of finished requests, on a separate thread. While a request runs, nothing is
//! recorded here: at its start, the client's `traceparent` and the sampler only decide if it is sampled. If a collector
//! is slow or unavailable, spans are dropped and counted; requests are not affected. Metrics are exported as snapshots
//! at an interval.
//!
//! This crate does not know HTTP handlers, the meaning of requests, or the origin of metrics.

mod attributes;
mod export_counts;
mod exporter;
mod meter;
mod metrics;
mod sampler;
mod settings;
mod spans;
mod trace_context;
mod tracer;

use std::{thread, time::Duration};

pub use export_counts::ExportCounts;
pub use exporter::ExportError;
pub use meter::Meter;
pub use metrics::{Histogram, Metric, Point, Values};
pub use sampler::Sampler;
pub use settings::{
    Collector, Encoding, METRICS_PATH, MetricSettings, Protocol, Settings, TRACES_PATH, TraceSettings, export_endpoint,
    parse_key_values,
};
pub use spans::FinishedRequest;
pub use trace_context::{SpanId, TraceContext, TraceParent};
pub use tracer::{StartError, Tracer};

/// The exporters that are configured.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// Exporter of traces.
    pub tracer: Option<Tracer>,
    /// Exporter of metrics.
    pub meter: Option<Meter>,
}

impl Telemetry {
    /// Starts the exporters of `settings`.
    pub fn start_exporters(settings: Settings) -> Result<Self, StartError> {
        let Settings { traces, metrics } = settings;
        Ok(Self { tracer: traces.map(Tracer::start).transpose()?, meter: metrics.map(Meter::start).transpose()? })
    }

    /// Exports what is queued and accepts no more, within `timeout`. Logs if that was not enough.
    pub fn shut_down(&self, timeout: Duration) {
        let late = |what: &str| tracing::warn!("export of the last {what} timed out");
        thread::scope(|scope| {
            scope.spawn(|| {
                if self.meter.as_ref().is_some_and(|meter| !meter.shut_down(timeout)) {
                    late("metrics");
                }
            });
            if self.tracer.as_ref().is_some_and(|tracer| !tracer.shut_down(timeout)) {
                late("spans");
            }
        });
    }
}
