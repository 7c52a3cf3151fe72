//! Remedies: for each limit the evidence of it, and the change that would relieve it.

mod cores;
mod memory;
mod models;
mod pipelines;
mod requests;
mod store;
mod threads;

use std::collections::BTreeMap;

use caudal_types::{ErrorKind, Stage};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    attribution::Limit,
    observation::{ModelStats, Observation},
    scenario::Scenario,
};

/// A setting that would relieve a limit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SuggestedSetting {
    /// Its name; for settings of a model, the key in `model.yaml`.
    pub name: &'static str,
    /// Its present value.
    pub from: f64,
    /// The value to try.
    pub to: f64,
    /// Instructions for setting it.
    pub how: String,
    /// The request that changes it while the server runs, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<SettingPatch>,
}

/// A `PATCH` request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SettingPatch {
    /// Its path.
    pub path: String,
    /// Its body.
    pub body: Value,
}

/// The evidence of a limit and the advice against it.
pub(crate) struct Finding {
    pub(crate) because: String,
    pub(crate) evidence: BTreeMap<&'static str, f64>,
    pub(crate) setting: Option<SuggestedSetting>,
    pub(crate) advice: String,
    pub(crate) scenario: Option<Scenario>,
}

impl Finding {
    fn new(because: String, evidence: &[&[(&'static str, f64)]], advice: impl Into<String>) -> Self {
        let evidence = evidence.concat().into_iter().collect();
        Self { because, evidence, setting: None, advice: advice.into(), scenario: None }
    }

    fn with_setting(self, setting: SuggestedSetting) -> Self {
        Self { setting: Some(setting), ..self }
    }

    fn with_scenario(self, scenario: Scenario) -> Self {
        Self { scenario: Some(scenario), ..self }
    }
}

/// The finding for `limit`, which concerns the model at index `model` or the whole server.
pub(crate) fn find_remedy(limit: Limit, model: Option<usize>, observation: &Observation) -> Finding {
    let index = model.unwrap_or(0);
    let unknown = ModelStats::default();
    let model = observation.models.get(index).unwrap_or(&unknown);
    remedy_for(limit)(&Context { observation, model, index })
}

type Remedy = fn(&Context<'_>) -> Finding;

/// The table of causes and remedies. A match, so that the compiler demands a remedy for every limit.
fn remedy_for(limit: Limit) -> Remedy {
    match limit {
        Limit::InstancesSaturated => models::add_instance,
        Limit::CpuSaturated => cores::reduce_work,
        Limit::CpuTaken => cores::move_other_programs,
        Limit::CpuThrottled => cores::raise_quota,
        Limit::TooManyThreads => cores::reduce_threads,
        Limit::BatchesTooSmall => models::raise_batch_size,
        Limit::BatchDelay => models::remove_batch_delay,
        Limit::QueueTooSmall => models::lengthen_queue,
        Limit::QueueTooLong => models::shorten_queue,
        Limit::DecodeThreadsSaturated => threads::add_decode_thread,
        Limit::IoThreadsSaturated => threads::add_io_thread,
        Limit::EventLoopStarved => threads::find_blocking_code,
        Limit::RunsBlocked => models::find_blocking_operator,
        Limit::MemoryPressure => memory::free_machine_memory,
        Limit::MemoryLimits => memory::raise_request_memory,
        Limit::ConcurrencyLimit => requests::raise_concurrency,
        Limit::ConnectionLimit => requests::raise_connections,
        Limit::DeadlinesTooShort => requests::extend_deadlines,
        Limit::ModelsComeAndGo => memory::keep_models_loaded,
        Limit::StoreWrites => store::share_flushes,
        Limit::StoreReads => store::read_less,
        Limit::PipelineSteps => pipelines::find_slow_step,
        Limit::SlowClients => requests::send_smaller_requests,
        Limit::ShortConnections => requests::reuse_connections,
        Limit::BadRequests => requests::fix_requests,
        Limit::ModelFails => models::find_failure,
        Limit::ClientsIdle => requests::send_more_requests,
    }
}

/// The observation that a remedy is derived from, with the model that it concerns.
struct Context<'a> {
    observation: &'a Observation,
    model: &'a ModelStats,
    /// The model's index in the observation.
    index: usize,
}

impl Context<'_> {
    /// The share of the requests' time that was spent at `stage`.
    fn stage_share(&self, stage: Stage) -> f64 {
        self.observation.stage_seconds(stage) / self.observation.total_seconds().max(1e-9)
    }

    /// The mean time that the model's requests waited in its queue.
    fn queue_ms(&self) -> f64 {
        let requests = self.observation.model_requests(self.model);
        let (count, seconds) = requests.fold((0, 0.0), |(count, seconds), record| {
            (count + 1, seconds + record.stamps.spent(Stage::Queue).as_secs_f64())
        });
        seconds / f64::from(count.max(1)) * 1e3
    }

    fn run_ms(&self) -> f64 {
        self.model.mean_run_seconds() * 1e3
    }

    fn failed_share(&self, errors: &[ErrorKind]) -> f64 {
        self.observation.failed_share(errors)
    }

    fn idle_percent(&self) -> String {
        percent(self.observation.idle_cpu_share())
    }

    fn cpu_evidence(&self) -> [(&'static str, f64); 3] {
        let observation = self.observation;
        [
            ("cpu", observation.own_cpu_share()),
            ("cpu_of_others", observation.other_cpu_share()),
            ("cpu_idle", observation.idle_cpu_share()),
        ]
    }

    fn instance_evidence(&self) -> [(&'static str, f64); 4] {
        [
            ("instances", self.model.instances as f64),
            ("busy", self.model.utilization()),
            ("queue_ms", self.queue_ms()),
            ("run_ms", self.run_ms()),
        ]
    }

    /// A setting of the model that can be changed while it is served.
    fn live_setting(&self, name: &'static str, from: f64, to: usize) -> SuggestedSetting {
        let body = match name.strip_prefix("batching.") {
            Some(key) => json!({ "batching": { key: to } }),
            None => json!({ name: to }),
        };
        let path = format!("/admin/models/{}", self.model.name);
        let how = format!("PATCH {path} {body}, and in model.yaml to keep it");
        SuggestedSetting { name, from, to: to as f64, how, patch: Some(SettingPatch { path, body }) }
    }
}

/// A setting of the server that takes effect at a restart.
fn restart_setting(name: &'static str, from: f64, to: usize) -> SuggestedSetting {
    let how = format!("{name}: {to} in the settings, or --{} {to}", name.replace('_', "-"));
    SuggestedSetting { name, from, to: to as f64, how, patch: None }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}
