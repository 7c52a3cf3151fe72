//! What limits a server now, in words and figures, and what would help: what was seen while it was watched is put down to
//! causes ([`weigh`]), and each remedy is tried on a network of queues made of the same figures ([`line`], [`replay`]).

mod advice;
mod line;
mod replay;
#[cfg(test)]
mod tests;
mod watched;
mod weigh;
mod words;

use std::collections::BTreeMap;

use serde::Serialize;

use self::{
    advice::{Advice, Change},
    line::Line,
    replay::{Outcome, replay},
    weigh::{Charge, MATTERS, weigh},
};
pub use self::{
    advice::{Patch, Setting},
    watched::{Doors, ModelSeen, Role, Spent, Watched},
    weigh::Limit,
};

/// What limits a server, and what would help.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// What limits it most.
    pub limit: Limit,
    /// The same in words, a sentence each.
    pub words: Vec<String>,
    /// How long it was watched.
    pub seconds: f64,
    /// What was seen.
    pub seen: Seen,
    /// What is to blame, the most first.
    pub causes: Vec<Cause>,
    /// What other changes would do, as far as can be told.
    pub what_if: Vec<WhatIf>,
    /// How near the network of queues comes to what was measured; none where too little was answered to make one.
    pub replay: Option<Fit>,
}

/// What was seen, in short.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Seen {
    /// Requests that ended.
    pub requests: u64,
    /// Answers a second.
    pub answers_per_second: f64,
    /// Part of the requests that failed.
    pub failed: f64,
    /// Half of the answers took at most this long.
    pub p50_ms: f64,
    /// 95 of a hundred did.
    pub p95_ms: f64,
    /// The server's own part of its cores' time.
    pub cpu: f64,
    /// What other programs took of it.
    pub cpu_of_others: f64,
}

/// Something that limits the server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cause {
    /// What.
    pub limit: Limit,
    /// Of which model, where it is one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// How much of the requests' time, or of the requests lost, it accounts for, from 0 to 1.
    pub weight: f64,
    /// Why it is thought so.
    pub because: String,
    /// The figures behind it.
    pub evidence: BTreeMap<&'static str, f64>,
    /// The setting that would help.
    pub setting: Option<Setting>,
    /// What to do.
    pub advice: String,
    /// What that would bring.
    pub predicted: Option<Prediction>,
}

/// What a change would bring, by replay.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Prediction {
    /// Answers a second, of those now: 1.38 are 38 % more.
    pub throughput: f64,
    /// The same of the time that 95 of a hundred take.
    pub p95: f64,
    /// Answers a second then.
    pub answers_per_second: f64,
    /// Milliseconds then.
    pub p95_ms: f64,
    /// Requests in parallel that it takes, where those of now would leave it unused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_parallel: Option<usize>,
}

/// A change, and what it would bring.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WhatIf {
    /// In words.
    pub change: String,
    /// By replay.
    #[serde(flatten)]
    pub predicted: Prediction,
}

/// What the replay of what was seen gives, of what was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Fit {
    /// Answers a second.
    pub throughput: f64,
    /// Milliseconds that half of the answers take.
    pub p50: f64,
}

/// Explains what was `watched`.
pub fn explain(watched: &Watched) -> Explanation {
    let seen = Seen::of(watched);
    let oracle = Line::of(watched).map(|line| Oracle { now: replay(&line), line, seen });
    let predict = |change: &Change| oracle.as_ref().and_then(|oracle| oracle.predict(change));
    let mut weights: Vec<(Charge, f64)> = weigh(watched).into_iter().filter(|(_, weight)| *weight >= 0.02).collect();
    weights.sort_by(|a, b| b.1.total_cmp(&a.1));
    let causes: Vec<Cause> = weights
        .into_iter()
        .map(|((limit, model), weight)| {
            let Advice { because, evidence, setting, advice, change } = advice::of(limit, model, watched);
            let model = model.map(|index| watched.models[index].name.clone());
            let predicted = change.as_ref().and_then(|change| oracle.as_ref()?.predict_in_use(change));
            let no_room = limit == Limit::ClientsIdle && predicted.is_some_and(|then| then.throughput < WORTH_IT);
            let advice = if no_room { NO_ROOM.to_owned() } else { advice };
            Cause { limit, model, weight: weight.min(1.0), because, evidence, setting, advice, predicted }
        })
        .collect();
    let more = match oracle.as_ref().map(|oracle| oracle.line.clients.count()) {
        Some(Some(count)) => format!("{} requests in parallel instead of {count}", count * 2),
        _ => "twice as many requests".to_owned(),
    };
    let what_if: Vec<WhatIf> = advice::others(watched)
        .into_iter()
        .chain([(more, Change::MoreClients)])
        .filter_map(|(change, asked)| Some(WhatIf { change, predicted: predict(&asked)? }))
        .collect();
    let limit = causes.first().map_or(Limit::ClientsIdle, |cause| cause.limit);
    Explanation {
        limit,
        words: words::of(&seen, &causes, &what_if),
        seconds: watched.seconds,
        seen,
        causes,
        what_if,
        replay: oracle.map(|oracle| oracle.fit()),
    }
}

impl Seen {
    fn of(watched: &Watched) -> Self {
        let failed = 1.0 - watched.answered().count() as f64 / watched.requests.len().max(1) as f64;
        Self {
            requests: watched.ended,
            answers_per_second: watched.ended as f64 * (1.0 - failed) / watched.seconds,
            failed,
            p50_ms: watched.quantile(0.5) * 1e3,
            p95_ms: watched.quantile(0.95) * 1e3,
            cpu: watched.own(),
            cpu_of_others: watched.others(),
        }
    }
}

/// A network of queues that is asked what would be.
struct Oracle {
    line: Line,
    now: Outcome,
    seen: Seen,
}

impl Oracle {
    /// What `change` would bring; none where the network knows nothing of it.
    fn predict(&self, change: &Change) -> Option<Prediction> {
        self.compare(&replay(&change.apply(&self.line)?), None)
    }

    /// What `change` would bring; where those clients that there are would leave it unused, what it would bring with twice as
    /// many.
    fn predict_in_use(&self, change: &Change) -> Option<Prediction> {
        let alone = self.predict(change)?;
        let clients = self.line.clients.twice();
        let in_parallel = clients.count().filter(|_| *change != Change::MoreClients && alone.changes_nothing());
        let Some(in_parallel) = in_parallel else { return Some(alone) };
        let more = Line { clients, ..self.line.clone() };
        let (before, then) = (replay(&more), replay(&change.apply(&more)?));
        match then.rate > before.rate * (1.0 + NOTED) {
            true => self.compare(&then, Some(in_parallel)),
            false => Some(alone),
        }
    }

    fn compare(&self, then: &Outcome, in_parallel: Option<usize>) -> Option<Prediction> {
        if self.now.rate <= 0.0 || self.now.p95 <= 0.0 {
            return None;
        }
        let (throughput, p95) = (then.rate / self.now.rate, then.p95 / self.now.p95);
        Some(Prediction {
            throughput,
            p95,
            answers_per_second: throughput * self.seen.answers_per_second,
            p95_ms: p95 * self.seen.p95_ms,
            in_parallel,
        })
    }

    fn fit(&self) -> Fit {
        Fit {
            throughput: self.now.rate / self.seen.answers_per_second.max(1e-9),
            p50: self.now.p50 * 1e3 / self.seen.p50_ms.max(1e-9),
        }
    }
}

impl Prediction {
    fn changes_nothing(&self) -> bool {
        (self.throughput - 1.0).abs() < NOTED && (self.p95 - 1.0).abs() < NOTED
    }
}

/// A smaller change counts as no change.
const NOTED: f64 = 0.02;
/// So many more answers are worth sending more requests for.
const WORTH_IT: f64 = 1.1;
/// What to say where nothing is used up and more requests would not be answered more quickly either.
const NO_ROOM: &str = "more requests in parallel would hardly be answered at a higher rate";

impl Explanation {
    /// For people.
    pub fn text(&self) -> String {
        words::text(self)
    }

    /// Whether anything but its clients limits the server.
    pub fn limits(&self) -> bool {
        self.causes.first().is_some_and(|cause| cause.limit != Limit::ClientsIdle && cause.weight >= MATTERS)
    }
}
