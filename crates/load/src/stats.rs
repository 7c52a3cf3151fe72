//! Statistics of a running load.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    Control, FailureKind,
    client::{Client, ResponseSummary},
    failure::Failure,
    latency::LatencyHistogram,
    request::Request,
};

/// Limit on distinct error codes and stages, because a server may send any number of them.
const MAX_DISTINCT_NAMES: usize = 64;

/// Statistics of one load, without its warm-up.
#[derive(Debug, Default)]
pub(crate) struct LoadStats {
    /// Requests of the warm-up.
    pub(crate) warm_up: u64,
    /// Requests sent.
    pub(crate) sent: u64,
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// Error codes that the server sent.
    pub(crate) codes: BTreeMap<String, u64>,
    pub(crate) failures: BTreeMap<FailureKind, u64>,
    pub(crate) first_failure: Option<String>,
    /// Time from the scheduled time to the response, of successful responses.
    pub(crate) latency: LatencyHistogram,
    /// The same for error responses.
    pub(crate) error_latency: LatencyHistogram,
    /// Time from the scheduled time to sending.
    pub(crate) lag: LatencyHistogram,
    /// Total time that the server reports, of successful responses.
    pub(crate) server: LatencyHistogram,
    /// Milliseconds of each stage, in the order of the responses.
    pub(crate) stages: Vec<(String, f64)>,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    pub(crate) most_at_once: u64,
    /// Statistics of request groups.
    pub(crate) groups: Vec<GroupStats>,
    at_once: u64,
    /// Time of the last response.
    pub(crate) last: Option<Instant>,
}

/// Statistics of a group of requests.
#[derive(Debug, Default)]
pub(crate) struct GroupStats {
    pub(crate) failed: u64,
    pub(crate) latency: LatencyHistogram,
    pub(crate) server: LatencyHistogram,
}

/// Maximum number of groups; each takes half a megabyte.
pub(crate) const MAX_GROUPS: usize = 64;

impl LoadStats {
    /// Requests with a response.
    pub(crate) fn answered_count(&self) -> u64 {
        self.statuses.values().sum()
    }

    /// Requests that ended without a response.
    pub(crate) fn failed_count(&self) -> u64 {
        self.failures.values().sum()
    }

    fn record_sent(&mut self, request: &Request, lag: Option<Duration>) {
        self.sent += 1;
        self.sent_bytes += request.body.len() as u64;
        self.at_once += 1;
        self.most_at_once = self.most_at_once.max(self.at_once);
        if let Some(lag) = lag {
            self.lag.record(lag);
        }
    }

    fn record_end(&mut self, group: Option<usize>, took: Duration, outcome: Result<ResponseSummary, Failure>) {
        self.at_once -= 1;
        self.last = Some(Instant::now());
        if let Some(group) = group.and_then(|number| self.group_mut(number)) {
            group.record_outcome(took, &outcome);
        }
        match outcome {
            Ok(response) => self.record_response(took, response),
            Err(failure) => {
                *self.failures.entry(failure.kind).or_default() += 1;
                self.first_failure.get_or_insert(failure.message);
            }
        }
    }

    fn group_mut(&mut self, number: usize) -> Option<&mut GroupStats> {
        if number < MAX_GROUPS && self.groups.len() <= number {
            self.groups.resize_with(number + 1, GroupStats::default);
        }
        self.groups.get_mut(number)
    }

    fn record_response(&mut self, took: Duration, response: ResponseSummary) {
        *self.statuses.entry(response.status).or_default() += 1;
        self.received_bytes += response.received;
        if response.status >= 400 {
            self.error_latency.record(took);
            if let Some(code) = response.code
                && (self.codes.len() < MAX_DISTINCT_NAMES || self.codes.contains_key(&code))
            {
                *self.codes.entry(code).or_default() += 1;
            }
            return;
        }
        self.latency.record(took);
        let mut position = 0;
        for (stage, ms) in response.stages {
            match stage.as_str() {
                "total" => self.server.record_ms(ms),
                _ => position = self.add_stage(position, stage, ms),
            }
        }
    }

    /// Adds to a stage; a new one is inserted at `position`, after the previous stage of its response. Returns the next
    /// position.
    fn add_stage(&mut self, position: usize, stage: String, ms: f64) -> usize {
        if let Some(known) = self.stages.iter().position(|(name, _)| *name == stage) {
            self.stages[known].1 += ms;
            return known + 1;
        }
        if self.stages.len() == MAX_DISTINCT_NAMES {
            return position;
        }
        self.stages.insert(position, (stage, ms));
        position + 1
    }
}

impl GroupStats {
    fn record_outcome(&mut self, took: Duration, outcome: &Result<ResponseSummary, Failure>) {
        let Some(response) = outcome.as_ref().ok().filter(|response| response.status < 400) else {
            self.failed += 1;
            return;
        };
        self.latency.record(took);
        if let Some((_, ms)) = response.stages.iter().find(|(stage, _)| stage == "total") {
            self.server.record_ms(*ms);
        }
    }
}

/// Scheduled time of a request, and where it is counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dispatch {
    /// `None` in a closed loop: now.
    pub(crate) due: Option<Instant>,
    /// `false` during the warm-up.
    pub(crate) counted: bool,
    pub(crate) group: Option<usize>,
}

/// State shared by the tasks of one load.
#[derive(Debug, Clone)]
pub(crate) struct LoadContext {
    pub(crate) client: Arc<Client>,
    pub(crate) control: Control,
    stats: Arc<Mutex<LoadStats>>,
}

impl LoadContext {
    pub(crate) fn new(client: Client, control: Control) -> Self {
        Self { client: Arc::new(client), control, stats: Arc::default() }
    }

    pub(crate) fn lock_stats(&self) -> MutexGuard<'_, LoadStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The statistics so far; tasks that still run are no longer counted.
    pub(crate) fn into_stats(self) -> LoadStats {
        std::mem::take(&mut *self.lock_stats())
    }

    /// Sends `request` and counts its result. Returns whether there was a response.
    pub(crate) async fn send_and_count(&self, request: &Request, dispatch: Dispatch) -> bool {
        let (now, Dispatch { due, counted, group }) = (Instant::now(), dispatch);
        match counted {
            true => self.lock_stats().record_sent(request, due.map(|due| now.saturating_duration_since(due))),
            false => self.lock_stats().warm_up += 1,
        }
        self.control.count_sent();
        let outcome = self.client.send_request(request).await;
        let took = due.unwrap_or(now).elapsed();
        let answered = outcome.is_ok();
        self.control.count_end(outcome.as_ref().ok().map(|response| response.status));
        if counted {
            self.lock_stats().record_end(group, took, outcome);
        }
        answered
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
        thread,
    };

    use super::*;
    use crate::Target;

    fn answer(status: u16, code: Option<&str>, stages: &[(&str, f64)]) -> ResponseSummary {
        let stages = stages.iter().map(|(name, ms)| ((*name).to_owned(), *ms)).collect();
        ResponseSummary { status, code: code.map(str::to_owned), stages, received: 5 }
    }

    fn stats_of(outcomes: Vec<Result<ResponseSummary, Failure>>) -> LoadStats {
        let mut stats = LoadStats::default();
        for outcome in outcomes {
            stats.record_sent(&Request::get("/"), Some(Duration::from_micros(10)));
            stats.record_end(Some(1), Duration::from_millis(4), outcome);
        }
        stats
    }

    #[test]
    fn stats_separate_errors_from_successful_latency() {
        let stats = stats_of(vec![
            Ok(answer(200, None, &[("infer", 2.0), ("total", 3.0)])),
            Ok(answer(200, None, &[("queue", 1.0), ("infer", 1.0), ("total", 2.0)])),
            Ok(answer(429, Some("queue_full"), &[("total", 0.1)])),
            Err(Failure::timed_out(1.0)),
        ]);
        assert_eq!((stats.sent, stats.answered_count(), stats.failed_count()), (4, 3, 1));
        assert_eq!(stats.statuses, BTreeMap::from([(200, 2), (429, 1)]));
        assert_eq!(stats.codes["queue_full"], 1);
        assert_eq!(stats.failures[&FailureKind::Timeout], 1);
        assert_eq!(stats.latency.summary().unwrap().count, 2);
        assert_eq!(stats.error_latency.summary().unwrap().count, 1);
        assert_eq!(stats.server.summary().unwrap().count, 2, "successful responses only");
        assert_eq!(stats.stages, [("queue".to_owned(), 1.0), ("infer".to_owned(), 3.0)], "in the order of processing");
        let group = &stats.groups[1];
        assert_eq!((group.failed, group.latency.summary().unwrap().count, stats.groups[0].failed), (2, 2, 0));
        assert_eq!((stats.received_bytes, stats.lag.summary().unwrap().count), (15, 4));
    }

    #[tokio::test]
    async fn latency_is_measured_from_the_scheduled_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            // The first connection only probes the server.
            let mut stream = listener.incoming().nth(1).unwrap().unwrap();
            assert!(stream.read(&mut [0; 1000]).unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
            stream
        });
        let target = Target::connect(&url).await.unwrap();
        let context = LoadContext::new(Client::new(target, Duration::from_secs(60)), Control::default());
        let due = Instant::now().checked_sub(Duration::from_secs(100));
        assert!(context.send_and_count(&Request::get("/"), Dispatch { due, counted: true, group: None }).await);
        let stats = context.into_stats();
        assert!(stats.lag.summary().unwrap().min > 99_000.0, "it was sent late");
        assert!(stats.latency.summary().unwrap().min > 99_000.0, "and the latency includes the lag");
    }

    #[test]
    fn stats_limit_the_number_of_distinct_names() {
        let many: Vec<(String, f64)> = (0..1000).map(|i| (format!("s{i}"), 1.0)).collect();
        let mut stats = stats_of((0..1000).map(|i| Ok(answer(400, Some(&format!("c{i}")), &[]))).collect());
        stats.record_response(Duration::ZERO, ResponseSummary { status: 200, code: None, stages: many, received: 0 });
        assert_eq!((stats.codes.len(), stats.stages.len()), (MAX_DISTINCT_NAMES, MAX_DISTINCT_NAMES));
    }
}
