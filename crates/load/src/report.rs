//! The report of a load, for programs. Times are in milliseconds.

use std::{collections::BTreeMap, time::Instant};

use serde::Serialize;

use crate::{Latency, generator::FinishedRun, stats::LoadStats};

/// p99 lag above which the generator did not produce the requested load.
const MAX_LAG_P99_MS: f64 = 10.0;
/// CPU share above which the generator may have been the bottleneck.
const MAX_CPU_SHARE: f64 = 0.9;

/// The results of a load.
///
/// `planned` = `sent` + `not_sent`; `sent` = `answered` + failures + `unfinished`.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The kind of load.
    pub kind: LoadKind,
    /// The server.
    pub url: String,
    /// Reason for its end.
    pub ended: EndReason,
    /// Seconds from the end of the warm-up to the last response.
    pub elapsed_s: f64,
    /// Requests that should have been sent after the warm-up until its end; for a replay, all that can be sent.
    pub planned: u64,
    /// Requests sent.
    pub sent: u64,
    /// Requests not sent.
    pub not_sent: NotSent,
    /// Requests with a response of any status.
    pub answered: u64,
    /// Requests abandoned when the load was stopped.
    pub unfinished: u64,
    /// Requests of the warm-up, which count nowhere else.
    pub warm_up: u64,
    /// Responses by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Error responses by code.
    pub codes: BTreeMap<String, u64>,
    /// Requests without a response, by kind: `refused`, `timeout`, `reset`, `own_limit`, `other`.
    pub errors: BTreeMap<&'static str, u64>,
    /// Message of the first one.
    pub first_error: Option<String>,
    /// Successful responses per second.
    pub throughput: f64,
    /// Bytes of bodies sent.
    pub sent_bytes: u64,
    /// Bytes of bodies received.
    pub received_bytes: u64,
    /// Of successful responses: from the scheduled time (closed loop: from sending) to the last byte of the response.
    pub latency_ms: Option<Latency>,
    /// The same for error responses.
    pub error_latency_ms: Option<Latency>,
    /// Times from the `Server-Timing` header of successful responses.
    pub server: Option<ServerTimes>,
    /// Statistics of the generator itself.
    pub generator: GeneratorStats,
    /// Replay only: the recorded results.
    pub recorded: Option<RecordedLoad>,
    /// Replay only: arrivals that cannot be replayed.
    pub skipped: Vec<SkippedArrivals>,
    /// Replay only: results by route and model, at most 64.
    pub routes: Vec<RouteReport>,
    /// Replay only: sources of the bodies.
    pub bodies: Option<BodyCounts>,
    /// Warnings about the validity of the results.
    pub warnings: Vec<String>,
}

/// The way in which requests are scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadKind {
    /// Each connection sends the next request when it has a response.
    Closed,
    /// At a fixed rate.
    Open,
    /// At the recorded times.
    Replay,
}

/// Reason for the end of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Its duration was over.
    Time,
    /// Its maximum number of requests was sent.
    Requests,
    /// It was stopped.
    Stopped,
}

/// Requests not sent, by reason.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct NotSent {
    /// The limit on concurrent requests was reached.
    pub over_limit: u64,
    /// Replay only: the load ended before their time.
    pub left: u64,
}

/// Times that the server reports.
#[derive(Debug, Clone, Serialize)]
pub struct ServerTimes {
    /// Time of whole requests.
    pub total_ms: Latency,
    /// Means of its stages over the same responses, in their order.
    pub stages: Vec<StageMean>,
}

/// The mean time of a stage.
#[derive(Debug, Clone, Serialize)]
pub struct StageMean {
    /// Stage name.
    pub stage: String,
    /// Milliseconds; a response without the stage counts as 0.
    pub mean_ms: f64,
}

/// Statistics of the generator.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct GeneratorStats {
    /// Delay between the scheduled time and sending; part of the latency. `None` in a closed loop.
    pub lag_ms: Option<Latency>,
    /// CPU time of its thread divided by elapsed time: 1 is a whole core.
    pub cpu: f64,
    /// Connections opened.
    pub connections: u64,
    /// Maximum of concurrent requests.
    pub most_at_once: u64,
}

/// Recorded results of the replayed requests.
#[derive(Debug, Clone, Serialize)]
pub struct RecordedLoad {
    /// By status.
    pub statuses: BTreeMap<u16, u64>,
    /// Time within the server, without errors.
    pub total_ms: Option<Latency>,
    /// Seconds from the first to the last recorded arrival.
    pub length_s: f64,
    /// Speed factor of the replay.
    pub speed: f64,
}

/// Results of a replay's requests with the same route and model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouteReport {
    /// Method and path.
    pub route: String,
    /// The model, if one was recorded.
    pub model: Option<String>,
    /// Requests in the trace.
    pub planned: u64,
    /// Error responses, and requests without a response.
    pub failed: u64,
    /// Latency of successful responses.
    pub latency_ms: Option<Latency>,
    /// Their time within the server, as reported by it.
    pub server_ms: Option<Latency>,
    /// Their recorded time.
    pub recorded_ms: Option<Latency>,
}

/// Arrivals of a trace that cannot be replayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SkippedArrivals {
    /// Method and path.
    pub route: String,
    /// Reason.
    pub reason: String,
    /// Number of arrivals.
    pub requests: u64,
}

/// Sources of a replay's bodies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct BodyCounts {
    /// Requests with an input file.
    pub given: u64,
    /// Requests with a synthetic body.
    pub made: u64,
    /// Requests without a body.
    pub none: u64,
}

/// Counts of a finished run.
#[derive(Debug)]
pub(crate) struct RunCounts {
    pub(crate) planned: u64,
    pub(crate) over_limit: u64,
    pub(crate) left: u64,
    pub(crate) ended: EndReason,
    pub(crate) counted_from: Instant,
    pub(crate) connections: u64,
    pub(crate) stats: LoadStats,
}

impl Report {
    pub(crate) fn new(kind: LoadKind, url: String, finished: FinishedRun<RunCounts>) -> Self {
        let FinishedRun { outcome: counted, cpu } = finished;
        let stats = counted.stats;
        let elapsed = stats.last.map_or(0.0, |last| last.saturating_duration_since(counted.counted_from).as_secs_f64());
        let latency = stats.latency.summary();
        let good = latency.map_or(0, |latency| latency.count) as f64;
        let mut report = Self {
            kind,
            url,
            ended: counted.ended,
            elapsed_s: elapsed,
            planned: counted.planned,
            sent: stats.sent,
            not_sent: NotSent { over_limit: counted.over_limit, left: counted.left },
            answered: stats.answered_count(),
            unfinished: stats.sent - stats.answered_count() - stats.failed_count(),
            warm_up: stats.warm_up,
            throughput: if elapsed > 0.0 { good / elapsed } else { 0.0 },
            sent_bytes: stats.sent_bytes,
            received_bytes: stats.received_bytes,
            latency_ms: latency,
            error_latency_ms: stats.error_latency.summary(),
            server: server_times(&stats),
            generator: GeneratorStats {
                lag_ms: stats.lag.summary(),
                cpu,
                connections: counted.connections,
                most_at_once: stats.most_at_once,
            },
            recorded: None,
            skipped: Vec::new(),
            routes: Vec::new(),
            bodies: None,
            warnings: Vec::new(),
            errors: stats.failures.iter().map(|(kind, count)| (kind.name(), *count)).collect(),
            statuses: stats.statuses,
            codes: stats.codes,
            first_error: stats.first_failure,
        };
        report.warnings = collect_warnings(&report);
        report
    }

    /// Failed requests: error responses, no response, or not sent because of the limit on concurrent requests.
    pub fn failed(&self) -> u64 {
        let errors = self.statuses.iter().filter(|(status, _)| **status >= 400).map(|(_, count)| count);
        errors.sum::<u64>() + self.errors.values().sum::<u64>() + self.not_sent.over_limit
    }
}

fn server_times(stats: &LoadStats) -> Option<ServerTimes> {
    let total_ms = stats.server.summary()?;
    let mean = |(stage, sum): &(String, f64)| StageMean { stage: stage.clone(), mean_ms: sum / total_ms.count as f64 };
    Some(ServerTimes { total_ms, stages: stats.stages.iter().map(mean).collect() })
}

fn collect_warnings(report: &Report) -> Vec<String> {
    let generator = &report.generator;
    let mut warnings = Vec::new();
    if let Some(lag) = generator.lag_ms.filter(|lag| lag.p99 > MAX_LAG_P99_MS) {
        warnings.push(format!(
            "the generator was late: 1 % of the requests were sent at least {:.1} ms late, which is part of the \
             latency; run it on a machine of its own or lower the rate",
            lag.p99
        ));
    }
    if generator.cpu > MAX_CPU_SHARE {
        warnings.push(format!(
            "the generator used {:.0} % of its core: it may have been the bottleneck, not the server",
            generator.cpu * 100.0
        ));
    }
    if let Some(count) = report.errors.get("own_limit") {
        warnings.push(format!(
            "{count} requests found no free socket on this machine: raise `ulimit -n`, or lower the concurrency"
        ));
    }
    if report.not_sent.over_limit > 0 {
        warnings.push(format!(
            "{} requests were not sent because the limit on concurrent requests was reached: the latencies \
             are those of a lighter load",
            report.not_sent.over_limit
        ));
    }
    if report.errors.values().sum::<u64>() > 0 && report.latency_ms.is_some() {
        warnings.push(
            "requests without a response have no latency: the percentiles are better than clients experienced"
                .to_owned(),
        );
    }
    warnings
}
