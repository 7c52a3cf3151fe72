//! What is counted while a load runs.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    Control, FailureKind,
    client::{Answer, Client},
    failure::Failure,
    request::Request,
    times::Times,
};

/// Different codes of errors, and stages, that are told apart: a server may invent as many as it likes.
const MOST_NAMES: usize = 64;

/// Counts of one load, without its warm-up.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Requests that only warmed up.
    pub(crate) warm_up: u64,
    /// Requests that were sent.
    pub(crate) sent: u64,
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// Codes of errors as the server says them.
    pub(crate) codes: BTreeMap<String, u64>,
    pub(crate) failures: BTreeMap<FailureKind, u64>,
    pub(crate) first_failure: Option<String>,
    /// From the moment meant to the answer, of answers that are no errors.
    pub(crate) latency: Times,
    /// The same of errors.
    pub(crate) error_latency: Times,
    /// From the moment meant to the one at which it was sent.
    pub(crate) lag: Times,
    /// What the server says it took, of answers that are no errors.
    pub(crate) server: Times,
    /// Milliseconds of each stage, in the order of the answers.
    pub(crate) stages: Vec<(String, f64)>,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    pub(crate) most_at_once: u64,
    /// The same of groups of requests.
    pub(crate) groups: Vec<Group>,
    at_once: u64,
    /// When the last answer was there.
    pub(crate) last: Option<Instant>,
}

/// Requests that are counted together, beside all.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) failed: u64,
    pub(crate) latency: Times,
    pub(crate) server: Times,
}

/// The most groups: each takes half a megabyte.
pub(crate) const MOST_GROUPS: usize = 64;

impl Tally {
    /// Requests that have an answer.
    pub(crate) fn answered(&self) -> u64 {
        self.statuses.values().sum()
    }

    /// Requests that ended without an answer.
    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    fn begin(&mut self, request: &Request, lag: Option<Duration>) {
        self.sent += 1;
        self.sent_bytes += request.body.len() as u64;
        self.at_once += 1;
        self.most_at_once = self.most_at_once.max(self.at_once);
        if let Some(lag) = lag {
            self.lag.record(lag);
        }
    }

    fn end(&mut self, group: Option<usize>, took: Duration, outcome: Result<Answer, Failure>) {
        self.at_once -= 1;
        self.last = Some(Instant::now());
        if let Some(group) = group.and_then(|number| self.group(number)) {
            group.count(took, &outcome);
        }
        match outcome {
            Ok(answer) => self.answer(took, answer),
            Err(failure) => {
                *self.failures.entry(failure.kind).or_default() += 1;
                self.first_failure.get_or_insert(failure.words);
            }
        }
    }

    fn group(&mut self, number: usize) -> Option<&mut Group> {
        if number < MOST_GROUPS && self.groups.len() <= number {
            self.groups.resize_with(number + 1, Group::default);
        }
        self.groups.get_mut(number)
    }

    fn answer(&mut self, took: Duration, answer: Answer) {
        *self.statuses.entry(answer.status).or_default() += 1;
        self.received_bytes += answer.received;
        if answer.status >= 400 {
            self.error_latency.record(took);
            if let Some(code) = answer.code
                && (self.codes.len() < MOST_NAMES || self.codes.contains_key(&code))
            {
                *self.codes.entry(code).or_default() += 1;
            }
            return;
        }
        self.latency.record(took);
        let mut place = 0;
        for (stage, ms) in answer.stages {
            match stage.as_str() {
                "total" => self.server.record_ms(ms),
                _ => place = self.add_stage(place, stage, ms),
            }
        }
    }

    /// Adds to a stage; a new one gets the place `place`, behind the one before it in its answer. Gives the next place.
    fn add_stage(&mut self, place: usize, stage: String, ms: f64) -> usize {
        if let Some(known) = self.stages.iter().position(|(name, _)| *name == stage) {
            self.stages[known].1 += ms;
            return known + 1;
        }
        if self.stages.len() == MOST_NAMES {
            return place;
        }
        self.stages.insert(place, (stage, ms));
        place + 1
    }
}

impl Group {
    fn count(&mut self, took: Duration, outcome: &Result<Answer, Failure>) {
        let Some(answer) = outcome.as_ref().ok().filter(|answer| answer.status < 400) else {
            self.failed += 1;
            return;
        };
        self.latency.record(took);
        if let Some((_, ms)) = answer.stages.iter().find(|(stage, _)| stage == "total") {
            self.server.record_ms(*ms);
        }
    }
}

/// When a request was meant to be sent, and how it counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    /// None in a closed loop: now.
    pub(crate) due: Option<Instant>,
    /// Not while it only warms up.
    pub(crate) counts: bool,
    pub(crate) group: Option<usize>,
}

/// What the tasks of one load share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) client: Arc<Client>,
    pub(crate) control: Control,
    tally: Arc<Mutex<Tally>>,
}

impl Shared {
    pub(crate) fn new(client: Client, control: Control) -> Self {
        Self { client: Arc::new(client), control, tally: Arc::default() }
    }

    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was counted; what still runs counts no more.
    pub(crate) fn into_tally(self) -> Tally {
        std::mem::take(&mut *self.tally())
    }

    /// Sends `request` and counts what becomes of it. Says whether there was an answer.
    pub(crate) async fn send(&self, request: &Request, order: Order) -> bool {
        let (now, Order { due, counts, group }) = (Instant::now(), order);
        match counts {
            true => self.tally().begin(request, due.map(|due| now.saturating_duration_since(due))),
            false => self.tally().warm_up += 1,
        }
        self.control.count_sent();
        let outcome = self.client.send(request).await;
        let took = due.unwrap_or(now).elapsed();
        let answered = outcome.is_ok();
        self.control.count_end(outcome.as_ref().ok().map(|answer| answer.status));
        if counts {
            self.tally().end(group, took, outcome);
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

    fn answer(status: u16, code: Option<&str>, stages: &[(&str, f64)]) -> Answer {
        let stages = stages.iter().map(|(name, ms)| ((*name).to_owned(), *ms)).collect();
        Answer { status, code: code.map(str::to_owned), stages, received: 5 }
    }

    fn count(outcomes: Vec<Result<Answer, Failure>>) -> Tally {
        let mut tally = Tally::default();
        for outcome in outcomes {
            tally.begin(&Request::get("/"), Some(Duration::from_micros(10)));
            tally.end(Some(1), Duration::from_millis(4), outcome);
        }
        tally
    }

    #[test]
    fn errors_do_not_make_answers_look_quick() {
        let tally = count(vec![
            Ok(answer(200, None, &[("infer", 2.0), ("total", 3.0)])),
            Ok(answer(200, None, &[("queue", 1.0), ("infer", 1.0), ("total", 2.0)])),
            Ok(answer(429, Some("queue_full"), &[("total", 0.1)])),
            Err(Failure::timeout(1.0)),
        ]);
        assert_eq!((tally.sent, tally.answered(), tally.failed()), (4, 3, 1));
        assert_eq!(tally.statuses, BTreeMap::from([(200, 2), (429, 1)]));
        assert_eq!(tally.codes["queue_full"], 1);
        assert_eq!(tally.failures[&FailureKind::Timeout], 1);
        assert_eq!(tally.latency.summary().unwrap().count, 2);
        assert_eq!(tally.error_latency.summary().unwrap().count, 1);
        assert_eq!(tally.server.summary().unwrap().count, 2, "of answers that are no errors");
        assert_eq!(tally.stages, [("queue".to_owned(), 1.0), ("infer".to_owned(), 3.0)], "in the order of the way");
        let group = &tally.groups[1];
        assert_eq!((group.failed, group.latency.summary().unwrap().count, tally.groups[0].failed), (2, 2, 0));
        assert_eq!((tally.received_bytes, tally.lag.summary().unwrap().count), (15, 4));
    }

    #[tokio::test]
    async fn latency_counts_from_the_moment_meant_and_lag_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            // The first connection only asks whether anybody is there.
            let mut stream = listener.incoming().nth(1).unwrap().unwrap();
            assert!(stream.read(&mut [0; 1000]).unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
            stream
        });
        let target = Target::reach(&url).await.unwrap();
        let shared = Shared::new(Client::new(target, Duration::from_secs(60)), Control::default());
        let due = Instant::now().checked_sub(Duration::from_secs(100));
        assert!(shared.send(&Request::get("/"), Order { due, counts: true, group: None }).await);
        let tally = shared.into_tally();
        assert!(tally.lag.summary().unwrap().min > 99_000.0, "it was late before it was sent");
        assert!(tally.latency.summary().unwrap().min > 99_000.0, "and the caller waited for that too");
    }

    #[test]
    fn a_server_cannot_fill_our_memory_with_names() {
        let many: Vec<(String, f64)> = (0..1000).map(|i| (format!("s{i}"), 1.0)).collect();
        let mut tally = count((0..1000).map(|i| Ok(answer(400, Some(&format!("c{i}")), &[]))).collect());
        tally.answer(Duration::ZERO, Answer { status: 200, code: None, stages: many, received: 0 });
        assert_eq!((tally.codes.len(), tally.stages.len()), (MOST_NAMES, MOST_NAMES));
    }
}
