//! A model as its administrator sees it, and what may be changed of it while it serves.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use caudal_tasks::{Footprint, Joining, Policy, ServedModel, Task};
use caudal_types::{ErrorKind, Priority};
use serde::Serialize;

use crate::{
    app::App,
    docs::schemas,
    http::{
        Path, apart,
        door::{self, Answer},
    },
    problem::{ErrorAnswer, Problem},
    route::Route,
};

/// A model that serves. What has the names of `model.yaml` can be changed.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ModelState {
    name: String,
    version: String,
    task: &'static str,
    /// What should be known of it: why it serves tensors though it takes pictures, say.
    #[serde(skip_serializing_if = "Option::is_none")]
    notice: Option<String>,
    /// What it found and could not be told: a confidence was not between 0 and 1, or a number was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<u64>,
    /// Who runs it.
    provider: String,
    instances: usize,
    threads: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    thresholds: Option<ThresholdState>,
    batching: BatchingState,
    memory: MemoryState,
    queue_depth: usize,
    busy_instances: usize,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct ThresholdState {
    conf: f32,
    iou: f32,
    max_det: usize,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct BatchingState {
    max_batch_size: usize,
    /// Whether rows of several requests share a run.
    rows_joined: bool,
    /// Why they do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    rows_apart_because: Option<String>,
    preferred_batch_size: Vec<usize>,
    max_queue_delay_ms: f64,
    max_queue_size: usize,
    max_queue_mb: usize,
    queue_policy: QueuePolicies,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct QueuePolicies {
    high: QueuePolicy,
    normal: QueuePolicy,
    low: QueuePolicy,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct QueuePolicy {
    max_queue_size: Option<usize>,
    timeout_ms: Option<f64>,
    timeout_action: &'static str,
}

/// What it was found to hold when it was loaded.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct MemoryState {
    /// That no other model uses.
    bytes: u64,
    /// Of its files.
    weights_bytes: u64,
    /// By which the memory grew that the inference backend keeps for the runs of all.
    arena_bytes: Option<u64>,
    /// By which the process grew.
    resident_bytes: u64,
}

impl MemoryState {
    pub(super) fn new(memory: Footprint) -> Self {
        Self {
            bytes: memory.bytes(),
            weights_bytes: memory.weights,
            arena_bytes: memory.arena,
            resident_bytes: memory.resident,
        }
    }
}

impl ModelState {
    fn new(model: &ServedModel) -> Self {
        let (plan, depth, memory) = (model.plan(), model.queue.depth(), model.memory);
        let seer = match &model.task {
            Task::See(seer) => Some(seer),
            _ => None,
        };
        let thresholds = seer.map(|seer| seer.thresholds());
        Self {
            name: model.name.clone(),
            version: model.version.to_string(),
            task: model.task.name(),
            notice: model.notice.as_ref().map(ToString::to_string),
            dropped: seer.map(|seer| seer.dropped.count()),
            provider: model.runs_on.to_string(),
            instances: plan.instances,
            threads: plan.threads,
            thresholds: thresholds.map(|own| ThresholdState { conf: own.conf, iou: own.iou, max_det: own.max_det }),
            batching: BatchingState::new(model.queue.policy(), &model.joining()),
            memory: MemoryState::new(memory),
            queue_depth: depth.entries,
            busy_instances: depth.busy_instances,
        }
    }
}

impl BatchingState {
    fn new(policy: Policy, joining: &Joining) -> Self {
        let of = |priority: Priority| {
            let own = &policy.by_priority[priority as usize];
            QueuePolicy {
                max_queue_size: own.max_queue_size,
                timeout_ms: own.timeout.map(|timeout| timeout.as_secs_f64() * 1e3),
                timeout_action: own.then.name(),
            }
        };
        Self {
            queue_policy: QueuePolicies {
                high: of(Priority::High),
                normal: of(Priority::Normal),
                low: of(Priority::Low),
            },
            max_batch_size: policy.max_batch_size,
            rows_joined: joining.joins(),
            rows_apart_because: joining.reason().map(str::to_owned),
            max_queue_delay_ms: policy.max_queue_delay.as_secs_f64() * 1e3,
            max_queue_size: policy.max_queue_size,
            max_queue_mb: policy.max_queue_bytes >> 20,
            preferred_batch_size: policy.preferred_batch_sizes,
        }
    }
}

/// Shows a model's execution plan, memory and settings.
#[utoipa::path(
    get,
    path = "/admin/models/{model}",
    operation_id = "get_model",
    tag = "admin",
    params(("model" = String, Path, description = "name or alias")),
    responses((status = 200, body = ModelState), (status = "4XX", body = ErrorAnswer)),
)]
pub(crate) async fn show(State(app): State<Arc<App>>, Path(model): Path<String>, request: Request) -> Response {
    door::ask(&app, Route::AdminModel, &request, |app| {
        Ok(Answer::json(&ModelState::new(&*app.catalog.get(&model, None)?)))
    })
}

/// Changes settings of a loaded model from its next batch on. The body has the keys of `model.yaml`, of which
/// `thresholds`, `batching` and `instances` may change; absent keys keep their values. Reloading the model reverts the
/// changes.
#[utoipa::path(
    patch,
    path = "/admin/models/{model}",
    operation_id = "change_model",
    tag = "admin",
    params(("model" = String, Path, description = "name or alias")),
    request_body(
        content = schemas::ModelPatch,
        example = json!({ "instances": 2, "batching": { "max_batch_size": 4 }, "thresholds": { "conf": 0.4 } }),
    ),
    responses((status = 200, body = ModelState), (status = "4XX", body = ErrorAnswer)),
)]
pub(crate) async fn change(State(app): State<Arc<App>>, Path(model): Path<String>, request: Request) -> Response {
    door::work(app, Route::AdminModelChange, request, |app, visit, request| async move {
        let body = super::read(&app, &visit.call.trace, request).await?;
        let text = String::from_utf8(body.to_vec()).map_err(|_| {
            Problem::new(ErrorKind::InvalidRequest, "the body is not UTF-8", "send JSON with the keys of model.yaml")
        })?;
        // An instance more may take its time: not on a thread that talks to sockets.
        let changed = apart(visit.id, move || app.catalog.change(&model, &text)).await;
        let broken = |_| Problem::new(ErrorKind::Internal, "the change broke off", "see the server's log");
        Ok(Answer::json(&ModelState::new(&*changed.map_err(broken)??)))
    })
    .await
}
