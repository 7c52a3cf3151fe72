//! What limits a server now, in words and figures, and what would help: what was seen while it was watched is put down to
//! causes ([`weigh`]), and each remedy is tried on a network of queues made of the same figures ([`line`], [`replay`]).

mod advice;
mod line;
mod replay;
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
            let predicted = change.as_ref().and_then(predict);
            Cause { limit, model, weight: weight.min(1.0), because, evidence, setting, advice, predicted }
        })
        .collect();
    let what_if: Vec<WhatIf> = advice::others(watched)
        .into_iter()
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
        let then = replay(&change.apply(&self.line)?);
        if self.now.rate <= 0.0 || self.now.p95 <= 0.0 {
            return None;
        }
        let (throughput, p95) = (then.rate / self.now.rate, then.p95 / self.now.p95);
        Some(Prediction {
            throughput,
            p95,
            answers_per_second: throughput * self.seen.answers_per_second,
            p95_ms: p95 * self.seen.p95_ms,
        })
    }

    fn fit(&self) -> Fit {
        Fit {
            throughput: self.now.rate / self.seen.answers_per_second.max(1e-9),
            p50: self.now.p50 * 1e3 / self.seen.p50_ms.max(1e-9),
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn idle() -> Watched {
        Watched { seconds: 2.0, cores: 2.0, ..Watched::default() }
    }

    #[test]
    fn who_is_on_the_way_for_longer_than_it_is_watched_is_seen() {
        let doors = Doors { working: 3.0, ..Doors::default() };
        let explained = explain(&Watched { doors, ..idle() });
        assert_eq!((explained.limit, explained.limits()), (Limit::SlowClients, true));
        assert!(explained.causes[0].because.contains("3.0 requests were on their way in"), "{:?}", explained.words);
        assert_eq!(explained.replay, None, "there is nothing to make a network of");
    }

    #[test]
    fn where_nothing_happens_nothing_limits() {
        let explained = explain(&idle());
        assert_eq!((explained.limit, explained.limits()), (Limit::ClientsIdle, false));
    }
}
