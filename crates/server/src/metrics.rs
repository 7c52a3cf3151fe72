//! What Prometheus reads. Names and help texts stand here together; the figures are kept where the work is done
//! and only read when somebody asks.

mod classic;
mod flow;
mod memory;
mod otlp;
mod process;
mod record;
mod telemetry;
mod triton;

use std::{
    fmt,
    ops::RangeInclusive,
    ptr,
    sync::{
        Arc, LazyLock, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::http::{HeaderMap, header};
use caudal_observe::{Histogram, Section, Snapshot, Summary};
use caudal_sight::RouteTotals;
use caudal_tasks::QueueStats;
use caudal_telemetry::{Meter, Tracer};
use caudal_types::{ErrorKind, Stage, StageTimes};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::{Registry, Unit},
};

pub(crate) use self::otlp::told;
use crate::{app::App, route::Route};

/// Bounds of time histograms, in seconds: from a tiny model's microseconds to a patient client's limit.
const SECONDS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Bounds of batch sizes, in rows.
const ROWS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];
/// Bounds of batch sizes, in tokens.
const TOKENS: [f64; 8] = [16.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0];
/// Status codes that this server gives.
const STATUSES: [u16; 37] = [
    200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 402, 403, 404, 405, 406, 408, 409, 411, 412, 413,
    414, 415, 416, 421, 422, 429, 431, 500, 501, 502, 503, 504, 505, 507,
];
/// What a route is called where its counters were known before, beside our own names.
const FAMILIAR: [(&str, &str, &str); 2] =
    [("http_requests", "http_request_duration", "route"), ("api_requests", "api_request_duration", "endpoint")];

/// The stages of each route, as sections.
static STAGES: LazyLock<Vec<[Section; Stage::ALL.len()]>> = LazyLock::new(|| {
    let section = |route: Route, stage: Stage| match stage {
        Stage::Receive | Stage::Load | Stage::Store | Stage::Persist | Stage::Flow | Stage::Wait | Stage::Queue => {
            Section::new_waiting(stage.name(), route.title())
        }
        _ => Section::new(stage.name(), route.title()),
    };
    Route::ALL.iter().map(|route| Stage::ALL.map(|stage| section(*route, stage))).collect()
});

/// What the doors count.
#[derive(Debug)]
pub(crate) struct HttpMetrics {
    routes: Vec<RouteMetrics>,
    errors: Vec<AtomicU64>,
}

#[derive(Debug)]
struct RouteMetrics {
    duration: Histogram,
    statuses: [AtomicU64; STATUSES.len()],
}

impl Default for RouteMetrics {
    fn default() -> Self {
        Self { duration: Histogram::default(), statuses: [const { AtomicU64::new(0) }; STATUSES.len()] }
    }
}

impl HttpMetrics {
    pub(crate) fn new() -> Self {
        Self {
            routes: Route::ALL.iter().map(|_| RouteMetrics::default()).collect(),
            errors: ErrorKind::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Counts an answered request.
    pub(crate) fn count(&self, route: Route, status: u16, took: Duration) {
        let metrics = &self.routes[route as usize];
        metrics.duration.record(took.as_nanos() as u64);
        if let Some(i) = STATUSES.iter().position(|known| *known == status) {
            metrics.statuses[i].fetch_add(1, Relaxed);
        }
    }

    /// Counts where a request's time went.
    pub(crate) fn count_stages(&self, route: Route, stamps: &StageTimes) {
        for (stage, spent) in stamps.iter() {
            STAGES[route as usize][stage as usize].record(spent.as_nanos() as u64);
        }
    }

    /// What was counted of each route, for key figures.
    pub(crate) fn counted(&self) -> Vec<RouteTotals> {
        let counted = |route: &RouteMetrics| {
            let of = |range: RangeInclusive<u16>| {
                let counts = STATUSES.iter().zip(&route.statuses).filter(|(status, _)| range.contains(status));
                counts.map(|(_, count)| count.load(Relaxed)).sum()
            };
            let times = route.duration.snapshot();
            RouteTotals { times, client_errors: of(400..=499), server_errors: of(500..=599) }
        };
        self.routes.iter().map(counted).collect()
    }

    /// Counts an error told to a caller.
    pub(crate) fn count_error(&self, kind: ErrorKind) {
        self.errors[kind as usize].fetch_add(1, Relaxed);
    }
}

/// The form in which metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// OpenMetrics 1.0.0.
    Open,
    /// Prometheus's text format 0.0.4, which everything reads.
    Classic,
}

impl Form {
    /// What who sends `headers` reads: OpenMetrics where it is named.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut ranges = accepts.flat_map(|value| value.split(','));
        match ranges.any(|range| range.trim().starts_with("application/openmetrics-text")) {
            true => Self::Open,
            false => Self::Classic,
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Open => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => classic::CONTENT_TYPE,
        }
    }

    /// Everything that `app` knows.
    pub(crate) fn exposition(self, app: &Arc<App>) -> String {
        let text = exposition(app);
        match self {
            Self::Open => text,
            Self::Classic => classic::classic(&text),
        }
    }
}

/// Everything that `app` knows, in OpenMetrics text.
fn exposition(app: &Arc<App>) -> String {
    let mut text = String::new();
    encode(&mut text, &registry(app)).expect("writing to a string does not fail");
    text
}

fn registry(app: &Arc<App>) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Reader(Arc::downgrade(app))));
    registry
}

struct Reader(Weak<App>);

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reader")
    }
}

impl Collector for Reader {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(app) = self.0.upgrade() else { return Ok(()) };
        http(&mut encoder, &app)?;
        models(&mut encoder, &app)?;
        machine(&mut encoder, &app)?;
        process::encode(&mut encoder)?;
        memory::encode(&mut encoder, &app.memory)?;
        if let Some(record) = &app.record {
            record::encode(&mut encoder, &record.store().figures(), record.audit_backlog())?;
        }
        flow::encode(&mut encoder, &app.flows)?;
        // Nothing is sent where no collector is named: then they are 0.
        let spans = app.tracer.as_ref().map(Tracer::export_counts).unwrap_or_default();
        telemetry::encode(&mut encoder, "spans", spans)?;
        let points = app.meter.as_ref().map(Meter::export_counts).unwrap_or_default();
        telemetry::encode(&mut encoder, "points", points)?;
        if app.settings().triton_metrics {
            triton::encode(&mut encoder, &app.catalog.now())?;
        }
        Ok(())
    }
}

fn http(encoder: &mut DescriptorEncoder<'_>, app: &App) -> fmt::Result {
    let metrics = &app.metrics;
    let routes = || Route::ALL.iter().zip(&metrics.routes);

    for (requests, duration, name) in FAMILIAR {
        let mut family = encoder.encode_descriptor(requests, "Requests answered.", None, MetricType::Counter)?;
        for (route, counted) in routes() {
            for (status, count) in STATUSES.iter().zip(&counted.statuses) {
                if count.load(Relaxed) > 0 {
                    let labels = [("method", route.method()), (name, route.path()), ("status", &status.to_string())];
                    family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count.load(Relaxed), None)?;
                }
            }
        }
        let mut family = encoder.encode_descriptor(
            duration,
            "Time from a request's head to its answer.",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for (route, counted) in routes() {
            let snapshot = counted.duration.snapshot();
            if snapshot.count() > 0 {
                let labels = [("method", route.method()), (name, route.path())];
                seconds(&mut family, &labels, &snapshot)?;
            }
        }
    }
    let mut family = encoder.encode_descriptor(
        "caudal_stage_duration",
        "Time that requests spent at each stage of their way.",
        Some(&Unit::Seconds),
        MetricType::Histogram,
    )?;
    let summaries = caudal_observe::summaries();
    for stage in Stage::ALL {
        let of =
            |summary: &&Summary| STAGES.iter().any(|route| ptr::eq(&raw const route[stage as usize], summary.section));
        let all = summaries.iter().filter(of).map(|summary| summary.times.clone()).reduce(|a, b| a.merged_with(&b));
        seconds(&mut family, &[("stage", stage.name())], &all.unwrap_or_else(|| Histogram::new().snapshot()))?;
    }
    let settings = app.settings();
    if !settings.profiling.budgets.all().is_empty() {
        let help = "Requests that took longer than their budget allows.";
        let mut family = encoder.encode_descriptor("caudal_budget_breaches", help, None, MetricType::Counter)?;
        for budget in settings.profiling.budgets.all() {
            let labels = [("route", budget.route.path()), ("stage", budget.stage_name())];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&app.breaches.of(budget), None)?;
        }
    }
    let mut family =
        encoder.encode_descriptor("caudal_errors", "Errors told to callers.", None, MetricType::Counter)?;
    for (kind, count) in ErrorKind::ALL.iter().zip(&metrics.errors) {
        family
            .encode_family(&[("code", kind.code())])?
            .encode_counter::<NoLabelSet, _, u64>(&count.load(Relaxed), None)?;
    }
    Ok(())
}

fn models(encoder: &mut DescriptorEncoder<'_>, app: &App) -> fmt::Result {
    let now = app.catalog.now();
    let models = || now.ready().map(|model| (model, model.queue.stats()));

    let mut family = encoder.encode_descriptor(
        "model_inference_duration",
        "Time of a run of the model.",
        Some(&Unit::Seconds),
        MetricType::Histogram,
    )?;
    for (model, stats) in models() {
        seconds(&mut family, &[("model", &model.name[..])], &stats.infer.snapshot())?;
    }
    let mut family = encoder.encode_descriptor(
        "model_inference_batch_size",
        "Rows in a run of the model.",
        None,
        MetricType::Histogram,
    )?;
    for (model, stats) in models() {
        let rows = stats.batch_rows.snapshot();
        histogram(&mut family, &[("model", &model.name[..])], &rows, &ROWS, 1.0)?;
    }
    let texts = || models().filter(|(model, _)| model.plan().ragged.is_some());
    let mut family = encoder.encode_descriptor(
        "caudal_batch_tokens",
        "Tokens in a run of a model that takes texts, padding included.",
        None,
        MetricType::Histogram,
    )?;
    for (model, stats) in texts() {
        histogram(&mut family, &[("model", &model.name[..])], &stats.batch_tokens.snapshot(), &TOKENS, 1.0)?;
    }
    let mut family = encoder.encode_descriptor(
        "caudal_padding_tokens",
        "Tokens that only padded texts to the length of others.",
        None,
        MetricType::Counter,
    )?;
    for (model, stats) in texts() {
        let labels = [("model", &model.name[..])];
        family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&stats.padding.load(Relaxed), None)?;
    }
    let mut family = encoder.encode_descriptor(
        "caudal_model_provider",
        "1 for the provider that runs the model; instead_of names the one that was wanted and did not work.",
        None,
        MetricType::Gauge,
    )?;
    for (model, _) in models() {
        let wanted = model.runs_on.instead_of.map_or("", |wanted| wanted.name());
        let labels = [("model", &model.name[..]), ("provider", model.runs_on.provider.name()), ("instead_of", wanted)];
        family.encode_family(&labels)?.encode_gauge(&1u64)?;
    }
    let mut family = encoder.encode_descriptor(
        "caudal_queue_duration",
        "Time that requests waited for a run, once their rows were ready.",
        Some(&Unit::Seconds),
        MetricType::Histogram,
    )?;
    for (model, stats) in models() {
        seconds(&mut family, &[("model", &model.name[..])], &stats.waited.snapshot())?;
    }
    let mut family = encoder.encode_descriptor(
        "inference_queue_depth",
        "Requests admitted that do not run yet.",
        None,
        MetricType::Gauge,
    )?;
    for (model, _) in models() {
        let depth = model.queue.depth().entries as u64;
        family.encode_family(&[("model", &model.name[..])])?.encode_gauge(&depth)?;
    }
    let mut family = encoder.encode_descriptor(
        "caudal_model_memory_bytes",
        "What a model was found to hold when it was loaded, by measure.",
        None,
        MetricType::Gauge,
    )?;
    for (model, _) in models() {
        let memory = model.memory;
        let measures =
            [("weights", Some(memory.weights)), ("arena", memory.arena), ("resident", Some(memory.resident))];
        for (measure, bytes) in measures.into_iter().filter_map(|(measure, bytes)| Some((measure, bytes?))) {
            family.encode_family(&[("model", &model.name[..]), ("measure", measure)])?.encode_gauge(&bytes)?;
        }
    }
    encoder
        .encode_descriptor("caudal_models", "Models in memory.", None, MetricType::Gauge)?
        .encode_gauge(&(now.ready().count() as u64))?;
    let changes = app.catalog.changes();
    let mut family = encoder.encode_descriptor(
        "caudal_model_changes",
        "Models that came and went, by why.",
        None,
        MetricType::Counter,
    )?;
    for (change, count) in [("loaded", changes.loaded), ("rested", changes.rested), ("failed", changes.failed)] {
        family.encode_family(&[("change", change)])?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
    }
    let mut family = encoder.encode_descriptor(
        "caudal_batches",
        "Runs, by the reason their batch ended where it did.",
        None,
        MetricType::Counter,
    )?;
    for (model, stats) in models() {
        for (reason, count) in QueueStats::CLOSE_REASONS.iter().zip(&stats.stops) {
            let labels = [("model", &model.name[..]), ("reason", reason)];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count.load(Relaxed), None)?;
        }
    }
    let mut family = encoder.encode_descriptor(
        "caudal_queue_entries",
        "Requests that came to a model's queue, by what became of them.",
        None,
        MetricType::Counter,
    )?;
    for (model, stats) in models() {
        let outcomes = [
            ("answered", &stats.answered),
            ("failed", &stats.failed),
            ("late", &stats.late),
            ("abandoned", &stats.abandoned),
            ("expired", &stats.expired),
            ("withdrawn", &stats.withdrawn),
            ("refused_full", &stats.refused_full),
            ("refused_deadline", &stats.refused_deadline),
        ];
        for (outcome, count) in outcomes {
            let labels = [("model", &model.name[..]), ("outcome", outcome)];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count.load(Relaxed), None)?;
        }
    }
    Ok(())
}

fn machine(encoder: &mut DescriptorEncoder<'_>, app: &App) -> fmt::Result {
    encoder
        .encode_descriptor(
            "process_cpu_usage_percent",
            "CPU use during the last five seconds; 100 is one core.",
            None,
            MetricType::Gauge,
        )?
        .encode_gauge(&app.cpu.percent())?;
    encoder
        .encode_descriptor("process_memory_bytes", "Resident memory.", None, MetricType::Gauge)?
        .encode_gauge(&caudal_tasks::resident_bytes())?;
    encoder
        .encode_descriptor("caudal_body_memory_bytes", "Bytes of bodies held now.", None, MetricType::Gauge)?
        .encode_gauge(&app.bodies.taken())?;
    encoder
        .encode_descriptor("caudal_pixel_memory_bytes", "Bytes of pixels being decoded now.", None, MetricType::Gauge)?
        .encode_gauge(&app.pictures.memory().taken())?;
    encoder
        .encode_descriptor("caudal_decode_waiting", "Pictures that wait for a thread.", None, MetricType::Gauge)?
        .encode_gauge(&(app.pictures.decoders().waiting() as u64))?;
    encoder
        .encode_descriptor("caudal_connections", "Open connections.", None, MetricType::Gauge)?
        .encode_gauge(&(app.connections.open() as u64))
}

type Family<'a> = prometheus_client::encoding::MetricEncoder<'a>;

fn seconds(family: &mut Family<'_>, labels: &impl EncodeLabelSet, snapshot: &Snapshot) -> fmt::Result {
    histogram(family, labels, snapshot, &SECONDS, 1e9)
}

/// Writes a histogram whose values are `unit` times as large as what is shown.
fn histogram(
    family: &mut Family<'_>,
    labels: &impl EncodeLabelSet,
    snapshot: &Snapshot,
    bounds: &[f64],
    unit: f64,
) -> fmt::Result {
    let mut before = 0;
    let mut buckets: Vec<(f64, u64)> = Vec::with_capacity(bounds.len() + 1);
    for bound in bounds {
        let at_most = snapshot.at_most((bound * unit) as u64);
        buckets.push((*bound, at_most - before));
        before = at_most;
    }
    buckets.push((f64::INFINITY, snapshot.count() - before));
    family.encode_family(labels)?.encode_histogram::<NoLabelSet>(
        snapshot.sum() as f64 / unit,
        snapshot.count(),
        &buckets,
        None,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_is_counted_under_its_status() {
        let http = HttpMetrics::new();
        for kind in ErrorKind::ALL {
            http.count(Route::Predict, crate::problem::status(*kind).as_u16(), Duration::from_millis(1));
        }
        let counted = &http.counted()[Route::Predict as usize];
        let errors = counted.client_errors + counted.server_errors;
        assert_eq!((counted.times.count(), errors), (ErrorKind::ALL.len() as u64, ErrorKind::ALL.len() as u64));
    }
}
