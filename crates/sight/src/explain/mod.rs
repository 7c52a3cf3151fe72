//! Bottleneck explanation: which resource limits a server now, in sentences and figures, and which changes would help.
//! The observed time is attributed to causes ([`attribution`]), and each remedy is tried on a queueing model that is
//! derived from the same observation ([`queueing_model`], [`simulation`]).

mod attribution;
mod observation;
mod queueing_model;
mod remedies;
mod render;
mod scenario;
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;

pub use self::{
    attribution::Limit,
    observation::{ConnectionStats, ModelStats, Observation, ThreadRole, ThreadTimes},
    remedies::{SettingPatch, SuggestedSetting},
};
use self::{
    attribution::{MIN_CAUSE_WEIGHT, attribute_time},
    queueing_model::QueueingModel,
    remedies::{Finding, find_remedy},
    scenario::{Scenario, standard_scenarios},
    simulation::{SimulationResult, simulate},
};

/// Causes with less weight than this are left out.
const MIN_LISTED_WEIGHT: f64 = 0.02;
/// A smaller relative change counts as no change.
const MIN_NOTICEABLE_CHANGE: f64 = 0.02;
/// The factor of throughput from which sending more requests is worthwhile.
const MIN_WORTHWHILE_GAIN: f64 = 1.1;
/// The advice where no resource is used up and more requests would not raise the throughput either.
const NO_GAIN_ADVICE: &str = "more requests in parallel would hardly be answered at a higher rate";

/// The limits of a server, and the changes that would help.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The limit with the highest weight.
    pub limit: Limit,
    /// The explanation as sentences.
    pub words: Vec<String>,
    /// Length of the observation.
    pub seconds: f64,
    /// The observation in short.
    #[serde(rename = "seen")]
    pub observed: ObservedSummary,
    /// Causes, the one with the highest weight first.
    pub causes: Vec<Cause>,
    /// Predicted effects of other changes.
    pub what_if: Vec<WhatIf>,
    /// How closely the simulation reproduces the measurement; none if too few requests were answered to simulate.
    #[serde(rename = "replay")]
    pub simulation: Option<SimulationFit>,
}

/// An observation in short.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ObservedSummary {
    /// Requests that ended.
    pub requests: u64,
    /// Successful requests per second.
    pub answers_per_second: f64,
    /// Share of the requests that failed.
    pub failed: f64,
    /// Median time of successful requests.
    pub p50_ms: f64,
    /// 95th percentile of the time of successful requests.
    pub p95_ms: f64,
    /// Share of the cores' time that the server used.
    pub cpu: f64,
    /// Share of the cores' time that other programs used.
    pub cpu_of_others: f64,
}

/// A cause that limits the server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cause {
    /// The kind of limit.
    pub limit: Limit,
    /// The model concerned, if the limit is a model's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Share of the requests' time, or of the requests lost, that it accounts for, from 0 to 1.
    pub weight: f64,
    /// The reason in words.
    pub because: String,
    /// The figures behind the reason.
    pub evidence: BTreeMap<&'static str, f64>,
    /// The setting that would help.
    pub setting: Option<SuggestedSetting>,
    /// The recommended change in words.
    pub advice: String,
    /// The predicted effect of the change.
    pub predicted: Option<Prediction>,
}

/// The effect of a change as the simulation predicts it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Prediction {
    /// Throughput relative to the present: 1.38 is 38 % more.
    pub throughput: f64,
    /// 95th percentile relative to the present.
    pub p95: f64,
    /// Predicted answers per second.
    pub answers_per_second: f64,
    /// Predicted 95th percentile in milliseconds.
    pub p95_ms: f64,
    /// Number of parallel requests that the change needs, if the present number would leave it unused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_parallel: Option<usize>,
}

/// A change and its predicted effect.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WhatIf {
    /// The change in words.
    pub change: String,
    /// Its effect.
    #[serde(flatten)]
    pub predicted: Prediction,
}

/// Simulated figures relative to the measured ones; 1 is an exact match.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SimulationFit {
    /// Answers per second.
    pub throughput: f64,
    /// Median time.
    pub p50: f64,
}

/// Explains an observation.
pub fn explain_observation(observation: &Observation) -> Explanation {
    let summary = ObservedSummary::from_observation(observation);
    let predictor = Predictor::from_observation(observation, summary);
    let causes = rank_causes(observation, predictor.as_ref());
    let what_if = predictor.as_ref().map(|predictor| predictor.predict_standard_scenarios(observation));
    let what_if = what_if.unwrap_or_default();
    let limit = causes.first().map_or(Limit::ClientsIdle, |cause| cause.limit);
    Explanation {
        limit,
        words: render::summary_sentences(&summary, &causes, &what_if),
        seconds: observation.seconds,
        observed: summary,
        causes,
        what_if,
        simulation: predictor.map(|predictor| predictor.measure_fit()),
    }
}

fn rank_causes(observation: &Observation, predictor: Option<&Predictor>) -> Vec<Cause> {
    let weights = attribute_time(observation);
    let mut weights: Vec<_> = weights.into_iter().filter(|(_, weight)| *weight >= MIN_LISTED_WEIGHT).collect();
    weights.sort_by(|a, b| b.1.total_cmp(&a.1));
    let cause = |((limit, model), weight): ((Limit, Option<usize>), f64)| {
        let Finding { because, evidence, setting, advice, scenario } = find_remedy(limit, model, observation);
        let model = model.map(|index| observation.models[index].name.clone());
        let predicted = scenario.as_ref().and_then(|scenario| predictor?.predict_in_use(scenario));
        let no_gain =
            limit == Limit::ClientsIdle && predicted.is_some_and(|then| then.throughput < MIN_WORTHWHILE_GAIN);
        let advice = if no_gain { NO_GAIN_ADVICE.to_owned() } else { advice };
        Cause { limit, model, weight: weight.min(1.0), because, evidence, setting, advice, predicted }
    };
    weights.into_iter().map(cause).collect()
}

impl ObservedSummary {
    fn from_observation(observation: &Observation) -> Self {
        let answered = observation.answered_requests().count() as f64;
        let failed = 1.0 - answered / observation.requests.len().max(1) as f64;
        Self {
            requests: observation.ended,
            answers_per_second: observation.ended as f64 * (1.0 - failed) / observation.seconds,
            failed,
            p50_ms: observation.latency_quantile(0.5) * 1e3,
            p95_ms: observation.latency_quantile(0.95) * 1e3,
            cpu: observation.own_cpu_share(),
            cpu_of_others: observation.other_cpu_share(),
        }
    }
}

/// Predicts scenarios by simulating a queueing model with and without them.
struct Predictor {
    model: QueueingModel,
    now: SimulationResult,
    observed: ObservedSummary,
}

impl Predictor {
    fn from_observation(observation: &Observation, observed: ObservedSummary) -> Option<Self> {
        let model = QueueingModel::from_observation(observation)?;
        Some(Self { now: simulate(&model), model, observed })
    }

    /// The effect of `scenario`; none if the model has no part that it changes.
    fn predict_scenario(&self, scenario: &Scenario) -> Option<Prediction> {
        self.relative_to_now(&simulate(&scenario.apply_to(&self.model)?), None)
    }

    /// The effect of `scenario`; if the present clients would leave it unused, the effect with twice as many of them.
    fn predict_in_use(&self, scenario: &Scenario) -> Option<Prediction> {
        let alone = self.predict_scenario(scenario)?;
        let clients = self.model.clients.doubled();
        let in_parallel =
            clients.closed_count().filter(|_| *scenario != Scenario::MoreClients && alone.is_unnoticeable());
        let Some(in_parallel) = in_parallel else { return Some(alone) };
        let more = QueueingModel { clients, ..self.model.clone() };
        let (before, then) = (simulate(&more), simulate(&scenario.apply_to(&more)?));
        match then.rate > before.rate * (1.0 + MIN_NOTICEABLE_CHANGE) {
            true => self.relative_to_now(&then, Some(in_parallel)),
            false => Some(alone),
        }
    }

    fn predict_standard_scenarios(&self, observation: &Observation) -> Vec<WhatIf> {
        let more = match self.model.clients.closed_count() {
            Some(count) => format!("{} requests in parallel instead of {count}", count * 2),
            None => "twice as many requests".to_owned(),
        };
        let scenarios = standard_scenarios(observation).into_iter().chain([(more, Scenario::MoreClients)]);
        let predicted = scenarios
            .filter_map(|(change, scenario)| Some(WhatIf { change, predicted: self.predict_scenario(&scenario)? }));
        predicted.collect()
    }

    fn relative_to_now(&self, then: &SimulationResult, in_parallel: Option<usize>) -> Option<Prediction> {
        if self.now.rate <= 0.0 || self.now.p95 <= 0.0 {
            return None;
        }
        let (throughput, p95) = (then.rate / self.now.rate, then.p95 / self.now.p95);
        Some(Prediction {
            throughput,
            p95,
            answers_per_second: throughput * self.observed.answers_per_second,
            p95_ms: p95 * self.observed.p95_ms,
            in_parallel,
        })
    }

    fn measure_fit(&self) -> SimulationFit {
        SimulationFit {
            throughput: self.now.rate / self.observed.answers_per_second.max(1e-9),
            p50: self.now.p50 * 1e3 / self.observed.p50_ms.max(1e-9),
        }
    }
}

impl Prediction {
    fn is_unnoticeable(&self) -> bool {
        (self.throughput - 1.0).abs() < MIN_NOTICEABLE_CHANGE && (self.p95 - 1.0).abs() < MIN_NOTICEABLE_CHANGE
    }
}

impl Explanation {
    /// The explanation as text for a terminal.
    pub fn to_text(&self) -> String {
        render::render_text(self)
    }

    /// Whether anything but a lack of requests limits the server.
    pub fn is_limited(&self) -> bool {
        self.causes.first().is_some_and(|cause| cause.limit != Limit::ClientsIdle && cause.weight >= MIN_CAUSE_WEIGHT)
    }
}
