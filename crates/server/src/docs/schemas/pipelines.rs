//! Pipelines and their runs.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Members;

/// The pipelines, and files that could not be read as one.
#[derive(ToSchema)]
pub(crate) struct PipelineList {
    total: usize,
    pipelines: Vec<Pipeline>,
    invalid: Vec<InvalidPipeline>,
}

/// A pipeline.
#[derive(ToSchema)]
pub(crate) struct Pipeline {
    name: String,
    description: String,
    /// Changes when the pipeline does.
    version: String,
    /// Whether its runs outlive the process.
    durable: bool,
    steps: Vec<PipelineStep>,
    /// The JSON schema of its input; null where any is taken.
    input_schema: Value,
    /// The JSON schema of its output; null where none is declared.
    output_schema: Value,
    limits: SpendingLimits,
    /// The limits of all its runs together.
    all_runs: Option<SharedLimits>,
    /// Where to post a run.
    run: String,
}

#[derive(ToSchema)]
struct PipelineStep {
    name: String,
    kind: String,
}

/// What a run may spend; null: as much as it likes.
#[derive(ToSchema)]
struct SpendingLimits {
    /// Millionths of a US dollar.
    cost: Option<u64>,
    tokens: Option<u64>,
    steps: Option<u64>,
}

#[derive(ToSchema)]
struct SharedLimits {
    limits: SpendingLimits,
    /// Seconds after which the limits begin again; null: never.
    each_s: Option<u64>,
    spent: SharedSpending,
}

#[derive(ToSchema)]
struct SharedSpending {
    /// Millionths of a US dollar.
    cost: u64,
    tokens: u64,
    steps: u64,
}

/// A file that is not a valid pipeline.
#[derive(ToSchema)]
struct InvalidPipeline {
    file: String,
    findings: Vec<Finding>,
}

#[derive(ToSchema)]
struct Finding {
    file: String,
    line: usize,
    column: usize,
    code: String,
    severity: FindingSeverity,
    message: String,
    hint: String,
}

/// Whether the file cannot run at all.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
enum FindingSeverity {
    Error,
    Warning,
}

/// A run that is to be started.
#[derive(ToSchema)]
pub(crate) struct RunRequest {
    /// Any JSON value.
    #[schema(required = false)]
    input: Value,
    /// What steps can read as `context`.
    #[schema(required = false)]
    context: Members,
    /// Its id; the server makes one when absent.
    run_id: Option<String>,
    /// Seconds after which it fails.
    #[schema(exclusive_minimum = 0, maximum = 2592000)]
    timeout_s: Option<f64>,
    /// Whether it outlives the process; as the pipeline says when absent.
    durable: Option<bool>,
    #[schema(required = false)]
    limits: RequestedLimits,
}

/// Limits of a run, within those of the pipeline.
#[derive(ToSchema)]
struct RequestedLimits {
    #[schema(minimum = 0)]
    total_cost_usd_limit: Option<f64>,
    total_tokens_limit: Option<u64>,
    total_steps_limit: Option<u64>,
}

/// A run that goes on while nobody waits for it.
#[derive(Serialize, ToSchema)]
pub(crate) struct RunAccepted {
    run_id: String,
    status: RunStatus,
    /// Where to read its state.
    location: String,
    /// Where to follow it.
    events: String,
}

/// The state of a run; `interrupted`: the process that ran it is gone.
#[derive(Serialize, ToSchema)]
#[schema(rename_all = "lowercase")]
pub(crate) enum RunStatus {
    Running,
    Paused,
    Completed,
    Failed,
    Cancelled,
    Interrupted,
}

/// A run that waits for an answer, or that nobody waits for.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[allow(clippy::large_enum_variant, reason = "a schema alone: no value of it is ever made")]
pub(crate) enum RunPending {
    /// It waits for an answer.
    Paused(RunReport),
    /// It was started with `wait=false`.
    Accepted(RunAccepted),
}

/// A run with its steps.
#[derive(Serialize, ToSchema)]
pub(crate) struct RunReport {
    run_id: String,
    pipeline: String,
    status: RunStatus,
    /// Any JSON value; null before the run has completed.
    output: Value,
    #[schema(nullable = false)]
    error: Option<RunFailure>,
    /// What it waits for.
    #[schema(required = false)]
    prompts: Vec<Prompt>,
    duration_ms: f64,
    usage: Usage,
    /// In the order in which they began.
    steps: Vec<StepReport>,
    /// The steps that made the run take as long as it did.
    critical_path: Vec<String>,
}

/// Why a run or a step failed.
#[derive(Serialize, ToSchema)]
struct RunFailure {
    code: String,
    /// The path of the step that failed.
    step: String,
    message: String,
    hint: String,
}

/// A question that a step asks.
#[derive(Serialize, ToSchema)]
struct Prompt {
    /// The path of the step.
    path: String,
    message: Value,
    /// The JSON schema of answers; null where any is taken.
    schema: Value,
}

#[derive(Serialize, ToSchema)]
struct Usage {
    tokens_in: u64,
    tokens_out: u64,
    cost_usd: f64,
}

#[derive(Serialize, ToSchema)]
struct StepReport {
    path: String,
    name: String,
    kind: String,
    status: StepStatus,
    output: Value,
    /// Milliseconds after the run's start.
    began_ms: f64,
    duration_ms: f64,
    attempts: u32,
    cache_hit: bool,
    /// Whether it had been done before the run was resumed.
    recalled: bool,
    usage: Usage,
    #[schema(nullable = false)]
    error: Option<RunFailure>,
}

#[derive(Serialize, ToSchema)]
#[schema(rename_all = "lowercase")]
enum StepStatus {
    Running,
    Completed,
    Failed,
    Paused,
    Cancelled,
}

/// A page of stored runs, newest first.
#[derive(ToSchema)]
pub(crate) struct RunPage {
    total: u64,
    offset: u64,
    returned_count: usize,
    runs: Vec<RunItem>,
}

#[derive(ToSchema)]
struct RunItem {
    run_id: String,
    pipeline: String,
    status: RunStatus,
    created_at: String,
    updated_at: String,
    location: String,
}

/// How a run is resumed.
#[derive(ToSchema)]
pub(crate) struct ResumeRequest {
    /// The answer, where one step asks.
    #[schema(required = false)]
    answer: Value,
    /// Answers by the path of the step that asks.
    #[schema(required = false)]
    answers: BTreeMap<String, Value>,
    /// Take the run from a process that holds it and does nothing.
    #[schema(required = false)]
    force: bool,
}

/// A run that was cancelled.
#[derive(ToSchema)]
pub(crate) struct RunCancelled {
    run_id: String,
    status: RunStatus,
}
