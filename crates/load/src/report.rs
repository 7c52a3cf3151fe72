//! What came of a load, as programs read it. Times are milliseconds.

use std::{collections::BTreeMap, time::Instant};

use serde::Serialize;

use crate::{Latency, generator::Worked, tally::Tally};

/// A generator whose lag is beyond this sent something else than was asked for.
const LAG_MS: f64 = 10.0;
/// A generator that worked more than this of a core may have been the limit.
const BUSY: f64 = 0.9;

/// What came of a load.
///
/// `planned` = `sent` + `not_sent`; `sent` = `answered` + failures + `unfinished`.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// How requests were sent.
    pub kind: Kind,
    /// The server.
    pub url: String,
    /// Why it ended.
    pub ended: Ended,
    /// From the end of the warm-up to the last answer, in seconds.
    pub elapsed_s: f64,
    /// Requests that should have been sent after the warm-up, as far as it came; in a replay all that can be.
    pub planned: u64,
    /// Those that were.
    pub sent: u64,
    /// Those that were not.
    pub not_sent: NotSent,
    /// Requests with an answer, whatever its status.
    pub answered: u64,
    /// Requests given up when the load was stopped.
    pub unfinished: u64,
    /// Requests that only warmed up; they count nowhere else.
    pub warm_up: u64,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Errors by the code that the server says.
    pub codes: BTreeMap<String, u64>,
    /// Requests without an answer, by kind: `refused`, `timeout`, `reset`, `own_limit`, `other`.
    pub errors: BTreeMap<&'static str, u64>,
    /// What the first of them said.
    pub first_error: Option<String>,
    /// Answers that are no errors, a second.
    pub throughput: f64,
    /// Bytes of bodies sent.
    pub sent_bytes: u64,
    /// Bytes of bodies received.
    pub received_bytes: u64,
    /// Of answers that are no errors: from the moment meant (closed loop: sent) to the answer's last byte.
    pub latency_ms: Option<Latency>,
    /// The same of answers that are errors.
    pub error_latency_ms: Option<Latency>,
    /// What the server told by `Server-Timing` of answers that are no errors.
    pub server: Option<ServerSide>,
    /// The generator itself.
    pub generator: Generator,
    /// Of a replay: what the trace had recorded.
    pub recorded: Option<Recorded>,
    /// Of a replay: requests of the trace that cannot be sent again.
    pub skipped: Vec<Skipped>,
    /// Of a replay: by route and model, at most 64.
    pub routes: Vec<RouteReport>,
    /// Of a replay: where the bodies come from.
    pub bodies: Option<Bodies>,
    /// What to know before believing the figures.
    pub warnings: Vec<String>,
}

/// How requests were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Each connection sends the next when it has an answer.
    Closed,
    /// Each at its time, at a rate.
    Open,
    /// Each at its time, as recorded.
    Replay,
}

/// Why a load ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Its time was over.
    Time,
    /// Its requests were used up.
    Requests,
    /// It was stopped.
    Stopped,
}

/// Requests that were not sent, by reason.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct NotSent {
    /// As many as may be were under way.
    pub over_limit: u64,
    /// Of a replay: the load ended before their time.
    pub left: u64,
}

/// What the server says.
#[derive(Debug, Clone, Serialize)]
pub struct ServerSide {
    /// What it says a request took.
    pub total_ms: Latency,
    /// Means of its stages over the same answers, in their order.
    pub stages: Vec<StageMean>,
}

/// The mean of a stage.
#[derive(Debug, Clone, Serialize)]
pub struct StageMean {
    /// Its name.
    pub stage: String,
    /// Milliseconds; an answer without the stage counts as 0.
    pub mean_ms: f64,
}

/// How the generator did.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Generator {
    /// How much later than meant requests were sent; part of their latency. None in a closed loop.
    pub lag_ms: Option<Latency>,
    /// Processor time of its thread over time: 1 is a whole core.
    pub cpu: f64,
    /// Connections opened.
    pub connections: u64,
    /// Most requests at once.
    pub most_at_once: u64,
}

/// What a trace recorded of the requests that are sent again.
#[derive(Debug, Clone, Serialize)]
pub struct Recorded {
    /// By status.
    pub statuses: BTreeMap<u16, u64>,
    /// What they took within the server, without errors.
    pub total_ms: Option<Latency>,
    /// From the first to the last, as recorded, in seconds.
    pub length_s: f64,
    /// How many times faster it is replayed.
    pub speed: f64,
}

/// What came of the requests of a replay that ask one model by one route.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouteReport {
    /// Method and path.
    pub route: String,
    /// The model, if one was recorded.
    pub model: Option<String>,
    /// Requests in the trace.
    pub planned: u64,
    /// Of those sent: errors, and requests without an answer.
    pub failed: u64,
    /// Of answers that are no errors.
    pub latency_ms: Option<Latency>,
    /// The same within the server, as it says.
    pub server_ms: Option<Latency>,
    /// The same as recorded.
    pub recorded_ms: Option<Latency>,
}

/// Requests of a trace that cannot be sent again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Method and path.
    pub route: String,
    /// Why.
    pub reason: String,
    /// How many.
    pub requests: u64,
}

/// Where the bodies of a replay come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Bodies {
    /// Requests that carry one of the files given.
    pub given: u64,
    /// Requests that carry what was made.
    pub made: u64,
    /// Requests that carry nothing.
    pub none: u64,
}

/// What a generator counted.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) planned: u64,
    pub(crate) over_limit: u64,
    pub(crate) left: u64,
    pub(crate) ended: Ended,
    pub(crate) counted_from: Instant,
    pub(crate) connections: u64,
    pub(crate) tally: Tally,
}

impl Report {
    pub(crate) fn new(kind: Kind, url: String, worked: Worked<Counted>) -> Self {
        let Worked { outcome: counted, cpu } = worked;
        let tally = counted.tally;
        let elapsed = tally.last.map_or(0.0, |last| last.saturating_duration_since(counted.counted_from).as_secs_f64());
        let latency = tally.latency.summary();
        let good = latency.map_or(0, |latency| latency.count) as f64;
        let mut report = Self {
            kind,
            url,
            ended: counted.ended,
            elapsed_s: elapsed,
            planned: counted.planned,
            sent: tally.sent,
            not_sent: NotSent { over_limit: counted.over_limit, left: counted.left },
            answered: tally.answered(),
            unfinished: tally.sent - tally.answered() - tally.failed(),
            warm_up: tally.warm_up,
            throughput: if elapsed > 0.0 { good / elapsed } else { 0.0 },
            sent_bytes: tally.sent_bytes,
            received_bytes: tally.received_bytes,
            latency_ms: latency,
            error_latency_ms: tally.error_latency.summary(),
            server: server_side(&tally),
            generator: Generator {
                lag_ms: tally.lag.summary(),
                cpu,
                connections: counted.connections,
                most_at_once: tally.most_at_once,
            },
            recorded: None,
            skipped: Vec::new(),
            routes: Vec::new(),
            bodies: None,
            warnings: Vec::new(),
            errors: tally.failures.iter().map(|(kind, count)| (kind.name(), *count)).collect(),
            statuses: tally.statuses,
            codes: tally.codes,
            first_error: tally.first_failure,
        };
        report.warnings = warnings(&report);
        report
    }

    /// Requests that failed: errors, none at all, or not sent for the bound on requests at once.
    pub fn failed(&self) -> u64 {
        let errors = self.statuses.iter().filter(|(status, _)| **status >= 400).map(|(_, count)| count);
        errors.sum::<u64>() + self.errors.values().sum::<u64>() + self.not_sent.over_limit
    }
}

fn server_side(tally: &Tally) -> Option<ServerSide> {
    let total_ms = tally.server.summary()?;
    let mean = |(stage, sum): &(String, f64)| StageMean { stage: stage.clone(), mean_ms: sum / total_ms.count as f64 };
    Some(ServerSide { total_ms, stages: tally.stages.iter().map(mean).collect() })
}

fn warnings(report: &Report) -> Vec<String> {
    let generator = &report.generator;
    let mut warnings = Vec::new();
    if let Some(lag) = generator.lag_ms.filter(|lag| lag.p99 > LAG_MS) {
        warnings.push(format!(
            "the generator was late: 1 of 100 requests was sent {:.1} ms after its time or later, and that is part of \
             the latency; use a machine of its own or a lower rate",
            lag.p99
        ));
    }
    if generator.cpu > BUSY {
        warnings.push(format!(
            "the generator worked {:.0} % of the one core it uses: it may have been the limit, not the server",
            generator.cpu * 100.0
        ));
    }
    if let Some(count) = report.errors.get("own_limit") {
        warnings.push(format!(
            "{count} requests found no socket on this machine: raise `ulimit -n`, or send fewer at once"
        ));
    }
    if report.not_sent.over_limit > 0 {
        warnings.push(format!(
            "{} requests were not sent because as many as may be were under way: the latencies are those of a lighter load",
            report.not_sent.over_limit
        ));
    }
    if report.errors.values().sum::<u64>() > 0 && report.latency_ms.is_some() {
        warnings.push(
            "requests without an answer are in no latency: percentiles look better than callers had it".to_owned(),
        );
    }
    warnings
}
