//! What the administrator reads: requests, sections, bottlenecks, memory, key figures.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Members;

/// Recorded requests.
#[derive(ToSchema)]
pub(crate) struct RequestList {
    requests: Vec<RequestRecord>,
}

/// A recorded request, and those that shared its run of the model.
#[derive(Serialize, ToSchema)]
pub(crate) struct RequestFound {
    #[serde(flatten)]
    record: RequestRecord,
    shared_with: Vec<RequestRecord>,
}

/// A recorded request; never its content.
#[derive(Serialize, ToSchema)]
pub(crate) struct RequestRecord {
    request_id: String,
    #[schema(nullable = false)]
    trace_id: Option<String>,
    /// Method and path.
    route: String,
    status: u16,
    /// The code of its error.
    #[schema(nullable = false)]
    error: Option<String>,
    /// Seconds since 1970.
    at: f64,
    total_ms: f64,
    #[schema(nullable = false)]
    model: Option<String>,
    #[schema(nullable = false)]
    version: Option<String>,
    #[schema(nullable = false)]
    received_bytes: Option<u64>,
    sent_bytes: u64,
    #[schema(nullable = false)]
    batch: Option<RequestBatch>,
    stages: Vec<StageTime>,
    #[schema(nullable = false)]
    pipeline: Option<RequestPipeline>,
}

/// The run of the model that the request was part of.
#[derive(Serialize, ToSchema)]
struct RequestBatch {
    number: u64,
    requests: usize,
    rows: usize,
    reason: String,
}

#[derive(Serialize, ToSchema)]
struct StageTime {
    stage: String,
    start_ms: f64,
    ms: f64,
}

#[derive(Serialize, ToSchema)]
struct RequestPipeline {
    run_id: String,
    pipeline: String,
    steps: Vec<RequestStep>,
}

#[derive(Serialize, ToSchema)]
struct RequestStep {
    path: String,
    kind: String,
    status: String,
    start_ms: f64,
    ms: f64,
}

/// Requests in the format of Chrome's tracing.
#[derive(ToSchema)]
pub(crate) struct ChromeTrace {
    #[schema(rename = "traceEvents")]
    trace_events: Vec<Members>,
    /// `ms`.
    #[schema(rename = "displayTimeUnit")]
    display_time_unit: String,
}

/// Timed sections of the server's code.
#[derive(ToSchema)]
pub(crate) struct SectionStats {
    /// Whether sections are timed.
    enabled: bool,
    uptime_seconds: f64,
    sections: Vec<SectionRow>,
}

/// Whether a section works or waits.
#[derive(Serialize, ToSchema)]
#[schema(rename_all = "lowercase")]
enum SectionKind {
    Work,
    Wait,
}

/// The times of a section.
#[derive(Serialize, ToSchema)]
pub(crate) struct SectionRow {
    name: String,
    group: String,
    kind: SectionKind,
    count: u64,
    total_ms: f64,
    self_ms: f64,
    waited_ms: f64,
    mean_ms: f64,
    min_ms: f64,
    max_ms: f64,
    last_ms: f64,
    p50_ms: f64,
    p95_ms: f64,
    p99_ms: f64,
    allocated_bytes: u64,
    #[schema(required = false)]
    recent_ms: Vec<f64>,
}

/// Sections that take too long.
#[derive(ToSchema)]
pub(crate) struct BottleneckList {
    threshold_ms: f64,
    bottlenecks: Vec<Bottleneck>,
    changes: Vec<SectionChange>,
}

#[derive(Serialize, ToSchema)]
#[schema(rename_all = "lowercase")]
enum BottleneckSeverity {
    Low,
    Medium,
    High,
}

#[derive(Serialize, ToSchema)]
struct Bottleneck {
    severity: BottleneckSeverity,
    /// Its share of its group's own time, 0 to 1.
    share: f64,
    reason: String,
    #[serde(flatten)]
    row: SectionRow,
}

/// A section that takes another time than before.
#[derive(ToSchema)]
struct SectionChange {
    name: String,
    group: String,
    /// Seconds since 1970.
    since: f64,
    before_ms: f64,
    now_ms: f64,
    ratio: f64,
    reason: String,
}

/// Latency budgets.
#[derive(ToSchema)]
pub(crate) struct BudgetList {
    budgets: Vec<BudgetState>,
}

/// A latency budget, and what the latest requests used of it.
#[derive(ToSchema)]
struct BudgetState {
    route: String,
    stage: String,
    allowed_ms: f64,
    p95_ms: Option<f64>,
    /// Above 1 the budget is exceeded.
    spent: Option<f64>,
    requests: usize,
    over: f64,
    burn: f64,
    breaches: u64,
}

/// A section in each window of the last day.
#[derive(ToSchema)]
pub(crate) struct SectionHistory {
    group: String,
    name: String,
    window_secs: f64,
    windows: Vec<SectionWindow>,
}

#[derive(ToSchema)]
struct SectionWindow {
    /// The window's end, in seconds since 1970.
    at: f64,
    count: u64,
    mean_ms: f64,
    p95_ms: f64,
}

/// A file that was written on the server.
#[derive(ToSchema)]
pub(crate) struct SavedTable {
    /// Its name within `profile_output_dir`.
    file: String,
    bytes: usize,
}

/// What limits the server, and what would help.
#[derive(ToSchema)]
pub(crate) struct ExplainAnswer {
    /// The main limit, such as `cpu_saturated` or `instances_saturated`.
    limit: String,
    /// The same in sentences.
    words: Vec<String>,
    /// How long the server was watched.
    seconds: f64,
    seen: ObservedLoad,
    causes: Vec<LimitCause>,
    what_if: Vec<WhatIf>,
    /// How well the replay matches what was measured.
    replay: Option<ReplayFit>,
}

#[derive(ToSchema)]
struct ObservedLoad {
    requests: u64,
    answers_per_second: f64,
    failed: f64,
    p50_ms: f64,
    p95_ms: f64,
    cpu: f64,
    cpu_of_others: f64,
}

#[derive(ToSchema)]
struct LimitCause {
    limit: String,
    #[schema(nullable = false)]
    model: Option<String>,
    /// Its share, 0 to 1.
    weight: f64,
    because: String,
    evidence: BTreeMap<String, f64>,
    setting: Option<SettingAdvice>,
    advice: String,
    predicted: Option<Prediction>,
}

#[derive(ToSchema)]
struct SettingAdvice {
    name: String,
    from: f64,
    to: f64,
    how: String,
    #[schema(nullable = false)]
    patch: Option<PatchAdvice>,
}

/// The PATCH request that makes the change while the server runs.
#[derive(ToSchema)]
struct PatchAdvice {
    path: String,
    body: Value,
}

#[derive(ToSchema)]
struct Prediction {
    /// Relative to now: 1.38 is 38 % more.
    throughput: f64,
    p95: f64,
    answers_per_second: f64,
    p95_ms: f64,
    /// Requests in parallel that it takes, where those of now would leave the change unused.
    #[schema(nullable = false)]
    in_parallel: Option<usize>,
}

#[derive(ToSchema)]
struct WhatIf {
    change: String,
    throughput: f64,
    p95: f64,
    answers_per_second: f64,
    p95_ms: f64,
}

#[derive(ToSchema)]
struct ReplayFit {
    throughput: f64,
    p50: f64,
}

/// How short memory is.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub(crate) enum MemoryLevel {
    Normal,
    Elevated,
    High,
    Critical,
}

/// A hook that can free memory.
#[derive(ToSchema)]
pub(crate) struct MemoryHook {
    name: String,
    runs: u64,
    freed_bytes: u64,
}

/// A clean-up of memory.
#[derive(ToSchema)]
pub(crate) struct MemoryCleanup {
    /// Seconds since 1970.
    at: u64,
    why: CleanupReason,
    resident_before_bytes: u64,
    resident_after_bytes: u64,
    hooks: Vec<MemoryHookRun>,
}

/// Whether memory was short, or a request asked.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
enum CleanupReason {
    Pressure,
    Asked,
}

#[derive(ToSchema)]
struct MemoryHookRun {
    hook: String,
    did: String,
    freed_bytes: u64,
    took_ms: f64,
}

/// Memory at one moment.
#[derive(ToSchema)]
pub(crate) struct MemoryReading {
    /// Seconds since 1970.
    at: u64,
    level: MemoryLevel,
    system_percent: Option<f64>,
    cgroup_percent: Option<f64>,
    gpu_percent: Option<f64>,
    process_bytes: u64,
}

/// What can be changed of a model while it serves, with the keys of `model.yaml`. What is absent stays.
#[derive(ToSchema)]
pub(crate) struct ModelPatch {
    #[schema(minimum = 1)]
    instances: Option<usize>,
    batching: Option<BatchingPatch>,
    thresholds: Option<ThresholdPatch>,
}

#[derive(ToSchema)]
struct BatchingPatch {
    #[schema(minimum = 1)]
    max_batch_size: Option<usize>,
    preferred_batch_size: Option<Vec<usize>>,
    #[schema(minimum = 0)]
    max_queue_delay_ms: Option<f64>,
    #[schema(minimum = 1)]
    max_queue_size: Option<usize>,
    max_queue_mb: Option<usize>,
    /// Policies of `high`, `normal` and `low`.
    queue_policy: Option<Members>,
}

#[derive(ToSchema)]
struct ThresholdPatch {
    #[schema(minimum = 0, maximum = 1)]
    conf: Option<f32>,
    #[schema(minimum = 0, maximum = 1)]
    iou: Option<f32>,
    #[schema(minimum = 1)]
    max_det: Option<usize>,
}

/// Key figures of a window. Which of the last members is there depends on `view`.
#[derive(ToSchema)]
pub(crate) struct KpiAnswer {
    window: String,
    view: KpiView,
    bucket_secs: f64,
    /// Of which requests, where no route is named.
    #[schema(nullable = false)]
    scope: Option<KpiScope>,
    #[schema(nullable = false)]
    route: Option<String>,
    #[schema(nullable = false)]
    summary: Option<KpiFigures>,
    /// The same of the window before.
    #[schema(nullable = false)]
    before: Option<KpiFigures>,
    /// Requests that are no user work, in the same window.
    #[schema(nullable = false)]
    service: Option<KpiFigures>,
    #[schema(nullable = false)]
    chips: Option<Vec<KpiChip>>,
    #[schema(nullable = false)]
    timeseries: Option<Vec<KpiPoint>>,
}

/// Requests of which figures are wanted.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase", default = "work")]
pub(crate) enum KpiScope {
    Work,
    Service,
    All,
}

/// The form of the answer.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase", default = "summary")]
pub(crate) enum KpiView {
    Summary,
    Chips,
    Timeseries,
}

#[derive(Serialize, ToSchema)]
struct KpiFigures {
    requests: u64,
    requests_per_second: f64,
    client_errors: u64,
    server_errors: u64,
    error_rate: f64,
    mean_ms: Option<f64>,
    p50_ms: Option<f64>,
    p95_ms: Option<f64>,
    p99_ms: Option<f64>,
}

#[derive(ToSchema)]
struct KpiChip {
    id: String,
    label: String,
    value: Option<f64>,
    unit: String,
    change: Option<f64>,
}

#[derive(Serialize, ToSchema)]
struct KpiPoint {
    /// The bucket's end, in seconds since 1970.
    at: f64,
    #[serde(flatten)]
    figures: KpiFigures,
}
