//! The machine's memory as its administrator sees it, and what can be given back now.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    response::Response,
};
use caudal_memory::{
    CgroupUsage, CleanupReason, CleanupReport, Gpu, HookStats, Level, MemorySample, MemoryUsage, Policy,
};
use caudal_types::ErrorKind;
use serde::{Deserialize, Serialize};

use super::models::MemoryState;
use crate::{
    app::App,
    docs::schemas,
    http::{
        apart,
        door::{self, Answer},
    },
    json::without_bom,
    problem::{ErrorAnswer, Problem},
    route::Route,
};

/// Memory, how short it is, and what can be done about it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct MemoryAnswer {
    /// `normal`, `elevated`, `high` or `critical`.
    #[schema(value_type = schemas::MemoryLevel)]
    level: Level,
    /// Whether new work is refused now.
    shedding: bool,
    readings: Readings,
    thresholds: Thresholds,
    /// How often each level was reached from below.
    alerts: BTreeMap<&'static str, u64>,
    /// What each model in memory was found to hold when it was loaded.
    models: BTreeMap<String, MemoryState>,
    /// Who can give memory back, in the order in which they are asked.
    #[schema(value_type = Vec<schemas::MemoryHook>)]
    hooks: Vec<HookStats>,
    /// What they did last.
    #[schema(value_type = Option<schemas::MemoryCleanup>)]
    last_cleanup: Option<CleanupReport>,
    /// What can be done, most helpful first.
    recommendations: Vec<String>,
    /// A reading for each interval, oldest first.
    #[schema(value_type = Vec<schemas::MemoryReading>)]
    history: Vec<MemorySample>,
}

/// Bytes used of those there are.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = MemoryReadings)]
struct Readings {
    /// The machine's.
    system: Option<Usage>,
    /// Resident bytes of this process.
    process_bytes: u64,
    /// The control group's that is nearest to its limit, without what the kernel would take back before it kills.
    cgroup: Option<Usage>,
    gpus: Vec<Usage>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = MemoryUsage)]
struct Usage {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    used_bytes: u64,
    limit_bytes: u64,
    percent: f64,
}

impl Usage {
    fn new(name: Option<String>, usage: MemoryUsage) -> Self {
        let percent = (usage.percent() * 100.0).round() / 100.0;
        Self { name, used_bytes: usage.used, limit_bytes: usage.limit, percent }
    }

    fn of_group(CgroupUsage { path, usage }: CgroupUsage) -> Self {
        Self::new(Some(path), usage)
    }

    fn of_gpu(Gpu { name, usage }: Gpu) -> Self {
        Self::new(Some(name), usage)
    }
}

/// What is set, by the settings' names.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = MemoryThresholds)]
struct Thresholds {
    memory_monitoring: bool,
    memory_monitoring_interval_secs: f64,
    memory_threshold_percent: f64,
    gpu_memory_threshold_percent: f64,
    memory_auto_cleanup: bool,
    memory_cleanup_threshold_percent: f64,
    /// None if work is never refused for want of memory.
    memory_shed_percent: Option<f64>,
    memory_rest_idle_secs: f64,
}

impl From<Policy> for Thresholds {
    fn from(policy: Policy) -> Self {
        Self {
            memory_monitoring: policy.monitoring,
            memory_monitoring_interval_secs: policy.interval.as_secs_f64(),
            memory_threshold_percent: policy.alert,
            gpu_memory_threshold_percent: policy.gpu_alert,
            memory_auto_cleanup: policy.auto_cleanup,
            memory_cleanup_threshold_percent: policy.cleanup,
            memory_shed_percent: policy.shed,
            memory_rest_idle_secs: policy.rest_idle.as_secs_f64(),
        }
    }
}

impl MemoryAnswer {
    fn new(app: &App) -> Self {
        let state = app.memory.state();
        let models = app.catalog.now();
        Self {
            level: state.level,
            shedding: state.level == Level::Critical,
            readings: Readings {
                system: state.reading.system.map(|usage| Usage::new(None, usage)),
                process_bytes: state.reading.process,
                cgroup: state.reading.cgroup.map(Usage::of_group),
                gpus: state.reading.gpus.into_iter().map(Usage::of_gpu).collect(),
            },
            thresholds: state.policy.into(),
            alerts: app.memory.alert_counts().into_iter().map(|(level, count)| (level.name(), count)).collect(),
            models: models.ready().map(|model| (model.name.clone(), MemoryState::new(model.memory))).collect(),
            hooks: state.hooks,
            last_cleanup: state.last_cleanup,
            recommendations: state.recommendations,
            history: state.history,
        }
    }
}

/// Reports memory use and limits, the pressure level, the holders of memory, and recommendations.
#[utoipa::path(
    get,
    path = "/admin/memory",
    operation_id = "get_memory",
    tag = "admin",
    responses((status = 200, body = MemoryAnswer), (status = "4XX", body = ErrorAnswer)),
)]
pub(crate) async fn show(State(app): State<Arc<App>>, request: Request) -> Response {
    door::ask(&app, Route::AdminMemory, &request, |app| Ok(Answer::json(&MemoryAnswer::new(app))))
}

/// What is to be given back.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CleanupRequest {
    /// Models that nobody has asked for so many seconds rest; 0 for all that have nothing to do. `memory_rest_idle_secs`
    /// when absent.
    #[serde(default)]
    #[schema(minimum = 0)]
    idle_secs: Option<f64>,
}

/// What was given back.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct CleanupAnswer {
    /// By how many bytes the process shrank.
    freed_bytes: u64,
    /// What each hook did.
    #[serde(flatten)]
    #[schema(value_type = schemas::MemoryCleanup)]
    report: CleanupReport,
}

/// Longest that a model can have been idle.
const LONGEST: f64 = 1e9;

impl CleanupRequest {
    fn parse(body: &[u8]) -> Result<Option<Duration>, Problem> {
        if body.is_empty() {
            return Ok(None);
        }
        let hint = "send nothing, or {\"idle_secs\": 0}";
        let asked = serde_json::from_slice::<Option<Self>>(without_bom(body))
            .map(Option::unwrap_or_default)
            .map_err(|error| Problem::new(ErrorKind::InvalidRequest, format!("the body: {error}"), hint))?;
        match asked.idle_secs {
            Some(seconds) if !(0.0..=LONGEST).contains(&seconds) => {
                Err(Problem::parameter(format!("idle_secs = {seconds} is not between 0 and {LONGEST}"), hint))
            }
            seconds => Ok(seconds.map(Duration::from_secs_f64)),
        }
    }
}

/// Frees memory immediately: idle models, cached buffers of runs, and unused pages of the allocator.
#[utoipa::path(
    post,
    path = "/admin/memory/cleanup",
    operation_id = "clean_up_memory",
    tag = "admin",
    request_body = Option<CleanupRequest>,
    responses((status = 200, body = CleanupAnswer), (status = "4XX", body = ErrorAnswer)),
)]
pub(crate) async fn cleanup(State(app): State<Arc<App>>, request: Request) -> Response {
    door::work(app, Route::AdminMemoryCleanup, request, |app, visit, request| async move {
        let body = super::read(&app, &visit.call.trace, request).await?;
        let idle = CleanupRequest::parse(&body)?.unwrap_or(app.settings().memory.rest_idle);
        // A model that goes is waited for: not on a thread that talks to sockets.
        let cleaned = apart(visit.id, move || app.memory.clean_up(idle, CleanupReason::Requested)).await;
        let broken = |_| Problem::new(ErrorKind::Internal, "cleaning up broke off", "see the server's log");
        let report = cleaned.map_err(broken)?;
        Ok(Answer::json(&CleanupAnswer { freed_bytes: report.freed_bytes(), report }))
    })
    .await
}
