//! What the server says of its health, to probes and to people.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use caudal_memory::MemoryUsage;
use caudal_tasks::{Entry, Provider, ServedModel};
use caudal_types::ErrorKind;
use serde::Serialize;

use crate::{
    app::App,
    docs::schemas,
    http::door::{self, Answer},
    metrics,
    problem::Problem,
    route::Route,
};

/// The state of the server, for people.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Health {
    /// `degraded`: a model does not serve, or nothing can be recorded; `loading`: models are still being loaded.
    #[schema(value_type = schemas::HealthStatus)]
    status: &'static str,
    /// Whether `/readyz` says that the server is ready.
    ready: bool,
    /// Models that failed to load; the log and `caudal models doctor` say why.
    failed_models: Vec<String>,
    version: &'static str,
    uptime_seconds: f64,
    performance: Performance,
    models: BTreeMap<String, ModelHealth>,
    /// What is recorded; absent where nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<RecordHealth>,
    /// The settings in effect but those that name files.
    config: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ServerPerformance)]
struct Performance {
    memory_mb: f64,
    /// 100 is one core.
    cpu_percent: f64,
    cpus: usize,
    /// How short memory is; at `critical` new work is refused.
    #[schema(value_type = schemas::MemoryLevel)]
    memory_pressure: &'static str,
    /// Of all GPUs, whoever uses them; 0 where there is none, or no driver that tells.
    gpu_memory_allocated_mb: f64,
    requests_in_progress: usize,
    connections: usize,
    optimizations: Optimizations,
}

/// What is really in use.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Optimizations {
    /// The inference backend.
    backend: String,
    /// Instructions that pixel loops run with.
    simd: String,
    /// Whether JPEGs are decoded with vector instructions.
    simd_jpeg: bool,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct ModelHealth {
    /// Whether a request for it would be served.
    ready: bool,
    /// Not in memory; it is loaded when it is asked for.
    #[serde(skip_serializing_if = "is_false")]
    resting: bool,
    /// `detect`, `classify`, `segment`, `embed` or `tensors`, which takes tensors at `/v2/models/{model}/infer` and no
    /// pictures; absent as long as the model has not been in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    serving: Option<Serving>,
    aliases: Vec<String>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ServingModel)]
struct Serving {
    version: String,
    task: &'static str,
    /// What should be known of it: why it serves tensors though it takes pictures, say.
    #[serde(skip_serializing_if = "Option::is_none")]
    notice: Option<String>,
    provider: &'static str,
    /// The provider that was wanted and did not work.
    instead_of: Option<&'static str>,
    /// Operators that the provider has no kernels for.
    left_to_cpu: usize,
    instances: usize,
    threads: usize,
    /// Threads of a run that has the machine to itself.
    wide_threads: Option<usize>,
    max_batch_size: usize,
    /// What it was found to hold when it was loaded.
    memory_mb: f64,
    queue_depth: usize,
    queue_limit: usize,
    busy_instances: usize,
    inferences: u64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

impl Serving {
    fn new(model: &ServedModel) -> Self {
        let plan = model.plan();
        let (depth, infer) = (model.queue.depth(), model.queue.stats().infer.snapshot());
        let ms = |q| infer.quantile(q).map(|nanos| (nanos / 1000) as f64 / 1e3);
        Self {
            version: model.version.to_string(),
            task: model.task.name(),
            notice: model.notice.as_ref().map(ToString::to_string),
            provider: model.runs_on.provider.name(),
            instead_of: model.runs_on.instead_of.map(Provider::name),
            left_to_cpu: model.runs_on.left_to_cpu,
            instances: plan.instances,
            threads: plan.threads,
            wide_threads: plan.wide_threads,
            max_batch_size: plan.max_batch_size,
            memory_mb: rounded(model.memory.bytes() as f64 / MB),
            queue_depth: depth.entries,
            queue_limit: model.queue.policy().max_queue_size,
            busy_instances: depth.busy_instances,
            inferences: infer.count(),
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
        }
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

const MB: f64 = 1024.0 * 1024.0;
const GB: f64 = MB * 1024.0;

fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// How recording does.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct RecordHealth {
    /// `sqlite` or `postgres`.
    store: &'static str,
    events_appended: u64,
    commits: u64,
    failures: u64,
    waiting: usize,
    /// Notes of who read what that wait until the record can be written again.
    audit_waiting: usize,
    /// Reads of which no note was kept, because the reserve for notes was full; the audit log will have their number.
    audit_unnoted: u64,
    connections: usize,
    connections_busy: usize,
    /// The ten statements that took longest, in milliseconds.
    slowest_ms: BTreeMap<String, f64>,
}

impl RecordHealth {
    fn of(record: &caudal_record::Consultations) -> Self {
        let figures = record.store().figures();
        let slowest = figures.slowest.iter();
        let backlog = record.audit_backlog();
        Self {
            store: figures.engine,
            events_appended: figures.space(caudal_record::SPACE).appended,
            commits: figures.commits,
            failures: figures.failures,
            waiting: figures.waiting,
            audit_waiting: backlog.notes,
            audit_unnoted: backlog.unnoted,
            connections: figures.connections,
            connections_busy: figures.connections_busy,
            slowest_ms: slowest
                .map(|statement| (statement.text.to_string(), rounded(statement.longest.as_secs_f64() * 1e3)))
                .collect(),
        }
    }
}

impl Health {
    fn of(app: &App) -> Self {
        let model = |(name, entry): (&str, &Entry)| {
            let aliases = app.catalog.now().aliases(name).into_iter().map(str::to_owned).collect();
            let (ready, resting, kind, serving) = match entry {
                Entry::Ready(model) => (true, false, Some(model.task.name()), Some(Serving::new(model))),
                Entry::Resting(model) => (true, true, model.task(), None),
                // Why is in the log: it names files, and anybody may read this page.
                Entry::Failed(_) => (false, false, None, None),
            };
            (name.to_owned(), ModelHealth { ready, resting, kind, serving, aliases })
        };
        let gpus = app.memory.current_reading().gpus.into_iter();
        let failed_models: Vec<String> = app.catalog.now().failed().map(str::to_owned).collect();
        let recording =
            app.record.as_ref().is_none_or(|record| record.is_writable() && record.audit_backlog().is_empty());
        let status = match failed_models.is_empty() && recording {
            _ if app.is_draining() => "draining",
            _ if app.catalog.now().is_loading() => "loading",
            true => "healthy",
            false => "degraded",
        };
        Self {
            status,
            ready: app.is_ready(),
            failed_models,
            record: app.record.as_ref().map(RecordHealth::of),
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: rounded(app.started.elapsed().as_secs_f64()),
            performance: Performance {
                memory_mb: rounded(caudal_tasks::resident_bytes() as f64 / MB),
                cpu_percent: rounded(app.cpu.percent()),
                cpus: app.facts.cpus,
                memory_pressure: app.memory.level().name(),
                gpu_memory_allocated_mb: rounded(gpus.map(|gpu| gpu.usage.used).sum::<u64>() as f64 / MB),
                requests_in_progress: app.working(),
                connections: app.connections.open(),
                optimizations: Optimizations {
                    backend: app.facts.backend.clone(),
                    simd: app.facts.simd.clone(),
                    simd_jpeg: app.facts.simd_jpeg,
                },
            },
            models: app.catalog.now().entries().map(model).collect(),
            config: app.facts.config.iter().cloned().collect(),
        }
    }
}

/// Reports the health of the server and its models.
#[utoipa::path(get, path = "/health", operation_id = "get_health", tag = "health", responses((status = 200, body = Health)))]
pub(crate) async fn health(State(app): State<Arc<App>>, request: Request) -> Response {
    door::ask(&app, Route::Health, &request, |app| Ok(Answer::json(&Health::of(app))))
}

/// The state of the node: uptime and memory.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Status {
    status: &'static str,
    healthy: bool,
    /// `3h 12m 45s`.
    #[schema(example = "3h 12m 45s")]
    uptime: String,
    uptime_seconds: u64,
    version: &'static str,
    device: &'static str,
    memory: Memory,
}

/// Memory of the machine, of its fullest GPU (null where there is none, or no driver that tells), of this process and of
/// its control group (null where none has a limit).
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = StatusMemory)]
struct Memory {
    system_memory_percent: f64,
    system_memory_used_gb: f64,
    system_memory_total_gb: f64,
    gpu_memory_percent: Option<f64>,
    gpu_memory_used_gb: Option<f64>,
    gpu_memory_total_gb: Option<f64>,
    process_memory_gb: f64,
    cgroup_memory_percent: Option<f64>,
    cgroup_memory_used_gb: Option<f64>,
    cgroup_memory_total_gb: Option<f64>,
    /// How short memory is.
    #[schema(value_type = schemas::MemoryLevel)]
    pressure: &'static str,
}

impl Memory {
    fn of(app: &App) -> Self {
        let reading = app.memory.current_reading();
        let system = reading.system.unwrap_or(MemoryUsage { used: 0, limit: 0 });
        let (gpu, cgroup) = (reading.fullest_gpu().map(|gpu| gpu.usage), reading.cgroup.as_ref().map(|own| own.usage));
        let gb = |bytes: u64| rounded(bytes as f64 / GB);
        Self {
            system_memory_percent: rounded(system.percent()),
            system_memory_used_gb: gb(system.used),
            system_memory_total_gb: gb(system.limit),
            gpu_memory_percent: gpu.map(|usage| rounded(usage.percent())),
            gpu_memory_used_gb: gpu.map(|usage| gb(usage.used)),
            gpu_memory_total_gb: gpu.map(|usage| gb(usage.limit)),
            process_memory_gb: gb(reading.process),
            cgroup_memory_percent: cgroup.map(|usage| rounded(usage.percent())),
            cgroup_memory_used_gb: cgroup.map(|usage| gb(usage.used)),
            cgroup_memory_total_gb: cgroup.map(|usage| gb(usage.limit)),
            pressure: app.memory.level().name(),
        }
    }
}

/// Reports the health of the node.
#[utoipa::path(get, path = "/status", operation_id = "get_status", tag = "health", responses((status = 200, body = Status)))]
pub(crate) async fn status(State(app): State<Arc<App>>, request: Request) -> Response {
    door::ask(&app, Route::Status, &request, |app| {
        let uptime = app.started.elapsed();
        let on_gpu = app.catalog.now().ready().any(|model| model.runs_on.provider.on_gpu());
        Ok(Answer::json(&Status {
            status: if app.is_ready() { "running" } else { "not ready" },
            healthy: app.is_ready(),
            uptime: in_words(uptime),
            uptime_seconds: uptime.as_secs(),
            version: env!("CARGO_PKG_VERSION"),
            device: if on_gpu { "cuda" } else { "cpu" },
            memory: Memory::of(app),
        }))
    })
}

fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    format!("{}h {}m {}s", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

const TEXT: &str = "text/plain; charset=utf-8";
/// The form of a probe's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Json,
}

impl Form {
    /// The form that a client accepts; `usual` where it does not care.
    fn of(headers: &HeaderMap, usual: Self) -> Self {
        let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let media =
            accepted.flat_map(|value| value.split(',')).map(|media| media.split(';').next().unwrap_or("").trim());
        let named = |media: &str| match media {
            "application/json" => Some(Self::Json),
            "text/plain" | "text/*" | "text/html" => Some(Self::Text),
            _ => None,
        };
        media.into_iter().find_map(named).unwrap_or(usual)
    }
}

/// That the process lives.
fn live(form: Form) -> Answer {
    match form {
        Form::Text => Answer::new(TEXT, "live\n"),
        Form::Json => Answer::json(&BTreeMap::from([("live", true)])),
    }
}

/// Liveness: 200 while the process runs.
#[utoipa::path(get, path = "/livez", operation_id = "check_live", tag = "health", responses((status = 200, content((schemas::Liveness = "application/json"), (String = "text/plain")), description = "the process runs")))]
pub(crate) async fn livez(State(app): State<Arc<App>>, request: Request) -> Response {
    let form = Form::of(request.headers(), Form::Text);
    door::ask(&app, Route::Livez, &request, |_| Ok(live(form)))
}

/// Readiness: 200, or 503 with the models that failed to load.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "check_ready",
    tag = "health",
    responses(
        (status = 200, content((Readiness = "application/json"), (String = "text/plain")), description = "requests are served"),
        (status = 503, content((Readiness = "application/json"), (String = "text/plain")), description = "not ready, or shutting down"),
    ),
)]
pub(crate) async fn readyz(State(app): State<Arc<App>>, request: Request) -> Response {
    let form = Form::of(request.headers(), Form::Text);
    door::ask(&app, Route::Readyz, &request, |app| Ok(ready(app, form)))
}

/// Liveness, under KServe's name.
#[utoipa::path(get, path = "/v2/health/live", operation_id = "check_server_live", tag = "health", responses((status = 200, content((schemas::Liveness = "application/json"), (String = "text/plain")), description = "the process runs")))]
pub(crate) async fn server_live(State(app): State<Arc<App>>, request: Request) -> Response {
    let form = Form::of(request.headers(), Form::Json);
    door::ask(&app, Route::ServerLive, &request, |_| Ok(live(form)))
}

/// Readiness, under KServe's name: 200, or 503 with the models that failed to load.
#[utoipa::path(
    get,
    path = "/v2/health/ready",
    operation_id = "check_server_ready",
    tag = "health",
    responses(
        (status = 200, content((Readiness = "application/json"), (String = "text/plain")), description = "requests are served"),
        (status = 503, content((Readiness = "application/json"), (String = "text/plain")), description = "not ready, or shutting down"),
    ),
)]
pub(crate) async fn server_ready(State(app): State<Arc<App>>, request: Request) -> Response {
    let form = Form::of(request.headers(), Form::Json);
    door::ask(&app, Route::ServerReady, &request, |app| Ok(ready(app, form)))
}

/// Whether work would be served, for who accepts JSON; the same in a line of text for others.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Readiness {
    ready: bool,
    /// `ready`, `loading`, `not ready` or `draining`.
    status: &'static str,
    /// Models that failed to load.
    failed_models: Vec<String>,
}

impl Readiness {
    fn of(app: &App) -> Self {
        let ready = app.is_ready();
        let status = match ready {
            true => "ready",
            false if app.is_draining() => "draining",
            false if app.catalog.now().is_loading() => "loading",
            false => "not ready",
        };
        Self { ready, status, failed_models: app.catalog.now().failed().map(str::to_owned).collect() }
    }

    fn text(&self) -> String {
        match self.failed_models.len() {
            0 => format!("{}\n", self.status),
            _ => format!("{}; failed to load: {}\n", self.status, self.failed_models.join(", ")),
        }
    }
}

fn ready(app: &App, form: Form) -> Answer {
    let readiness = Readiness::of(app);
    let answer = match form {
        Form::Text => Answer::new(TEXT, readiness.text()),
        Form::Json => Answer::json(&readiness),
    };
    answer.status(if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE })
}

/// Refuses metrics where the settings turn them off.
pub(crate) fn check_metrics(app: &App) -> Result<(), Problem> {
    match app.settings().metrics_enabled {
        true => Ok(()),
        false => Err(Problem::new(
            ErrorKind::NotFound,
            "metrics are off on this server: metrics_enabled is false",
            "set metrics_enabled: true (METRICS_ENABLED, CAUDAL_METRICS_ENABLED) to serve them",
        )),
    }
}

/// Metrics in OpenMetrics text format.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "get_metrics",
    tag = "health",
    responses((status = 200, body = String, description = "OpenMetrics where it is accepted", content_type = "text/plain")),
)]
pub(crate) async fn metrics(State(app): State<Arc<App>>, request: Request) -> Response {
    let form = metrics::Form::of(request.headers());
    door::ask(&app, Route::Metrics, &request, |app| {
        check_metrics(app)?;
        Ok(Answer::new(form.content_type(), form.exposition(app)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_answered_in_the_form_that_is_accepted() {
        let form = |accept: &str, usual| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            Form::of(&headers, usual)
        };
        for usual in [Form::Text, Form::Json] {
            assert_eq!(Form::of(&HeaderMap::new(), usual), usual);
            assert_eq!(form("*/*", usual), usual);
            assert_eq!(form("application/json", usual), Form::Json);
            assert_eq!(form("application/json, text/plain;q=0.5, */*", usual), Form::Json);
            assert_eq!(form("text/plain", usual), Form::Text);
        }
    }

    #[test]
    fn uptime_is_told_as_people_tell_it() {
        assert_eq!(in_words(Duration::from_secs(3 * 3600 + 12 * 60 + 45)), "3h 12m 45s");
        assert_eq!(in_words(Duration::from_millis(900)), "0h 0m 0s");
    }
}
