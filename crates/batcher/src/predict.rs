//! How long an answer would take, from what the model has lately needed.

use std::time::{Duration, Instant};

use caudal_observe::Window;

/// How far back the past still tells of the present.
const SPAN: Duration = Duration::from_secs(5);
/// Fewer runs than this are no ground for refusing anybody.
const LEAST_RUNS: u64 = 8;
/// The slow runs are looked for anew after so many.
const LOOK_AGAIN: u32 = 16;
/// After so long without a run, one is let through to see whether the past still holds: who refuses everybody on
/// old evidence never gets new evidence.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What one model has lately needed: for a run, for a row or token, and to make a row ready after admission.
#[derive(Debug)]
pub struct ServiceTimes {
    run: Window,
    row: Window,
    ready: Window,
    last_run: Instant,
    /// What the slowest tenth of the runs took at least, when it was last looked for.
    slow_run: Duration,
    runs_since: u32,
}

/// What stands between a new entry and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlook {
    /// Rows that will run before it, or their tokens.
    pub work_ahead: usize,
    /// Rows that run at present, or their tokens.
    pub work_running: usize,
    /// For how long the instances have been busy with these, summed.
    pub running_for: Duration,
    /// Instances of the model.
    pub instances: usize,
    /// Whether an instance has nothing to do.
    pub idle: bool,
}

impl ServiceTimes {
    /// Knows nothing yet.
    pub fn new(now: Instant) -> Self {
        let window = || Window::new(SPAN, now);
        let (run, row, ready) = (window(), window(), window());
        Self { run, row, ready, last_run: now, slow_run: Duration::ZERO, runs_since: 0 }
    }

    /// A run of so much `work`, rows or tokens, took `taken`, from the batch's forming to its last answer.
    pub fn record_run(&mut self, work: usize, taken: Duration, now: Instant) {
        let nanos = nanos(taken);
        self.last_run = now;
        self.run.record(nanos, now);
        self.row.record(nanos / work.max(1) as u64, now);
        self.runs_since += 1;
        if self.runs_since == LOOK_AGAIN || self.run.count() <= u64::from(LOOK_AGAIN) {
            self.runs_since = 0;
            self.slow_run = Duration::from_nanos(self.run.quantile(0.9).unwrap_or(nanos));
        }
    }

    /// An entry's rows were ready `taken` after its admission.
    pub fn record_ready(&mut self, taken: Duration, now: Instant) {
        self.ready.record(nanos(taken), now);
    }

    /// How long a run takes at most, but for the slowest tenth; nothing while too little is known, or only old things.
    pub fn expected_run(&self, now: Instant) -> Duration {
        let fresh = now.saturating_duration_since(self.last_run) <= TRY_AGAIN;
        if fresh && self.run.count() >= LEAST_RUNS { self.slow_run } else { Duration::ZERO }
    }

    /// How long a new entry waits for its turn; none while too little is known.
    pub fn wait(&self, outlook: &Outlook) -> Option<Duration> {
        let row = self.known(&self.row)?;
        if outlook.idle && outlook.work_ahead == 0 {
            return Some(Duration::ZERO);
        }
        let running = (row * outlook.work_running as u64).saturating_sub(nanos(outlook.running_for));
        let work = row * outlook.work_ahead as u64 + running;
        Some(Duration::from_nanos(work / outlook.instances.max(1) as u64))
    }

    /// How long its answer takes in all: its rows are made ready while it waits, then it runs. Of the runs the
    /// slowest tenth is taken as the measure, for a promise that fails half the time is none.
    pub fn answer(&self, outlook: &Outlook, now: Instant) -> Option<Duration> {
        let nothing_runs = outlook.idle && outlook.work_running == 0 && outlook.work_ahead == 0;
        if nothing_runs && now.saturating_duration_since(self.last_run) > TRY_AGAIN {
            return None;
        }
        let wait = self.wait(outlook)?;
        let ready = Duration::from_nanos(self.ready.quantile(0.5).unwrap_or(0));
        Some(wait.max(ready) + self.slow_run)
    }

    fn known(&self, window: &Window) -> Option<u64> {
        window.mean().filter(|_| window.count() >= LEAST_RUNS)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSY: Outlook =
        Outlook { work_ahead: 0, work_running: 2, running_for: Duration::ZERO, instances: 2, idle: false };

    fn times() -> ServiceTimes {
        let now = Instant::now();
        let mut times = ServiceTimes::new(now);
        (0..20).for_each(|_| times.record_run(1, Duration::from_millis(100), now));
        (0..20).for_each(|_| times.record_ready(Duration::from_millis(10), now));
        times
    }

    fn check(outlook: Outlook, wait_ms: u64, answer_ms: u64) {
        let about = |got: Duration, ms: u64| {
            let ratio = got.as_secs_f64() * 1000.0 / ms.max(1) as f64;
            assert!(ms == 0 && got.is_zero() || (0.99..1.07).contains(&ratio), "{got:?} is not about {ms} ms");
        };
        about(times().wait(&outlook).unwrap(), wait_ms);
        about(times().answer(&outlook, Instant::now()).unwrap(), answer_ms);
    }

    #[test]
    fn a_wait_is_the_work_ahead_shared_among_the_instances() {
        check(Outlook { idle: true, work_running: 0, ..BUSY }, 0, 110);
        check(BUSY, 100, 200);
        check(Outlook { running_for: Duration::from_millis(120), ..BUSY }, 40, 140);
        check(Outlook { work_ahead: 6, ..BUSY }, 400, 500);
        check(Outlook { work_ahead: 6, running_for: Duration::from_secs(9), ..BUSY }, 300, 400);
    }

    #[test]
    fn who_knows_little_refuses_nobody() {
        let now = Instant::now();
        let mut times = ServiceTimes::new(now);
        (0..LEAST_RUNS - 1).for_each(|_| times.record_run(1, Duration::from_millis(100), now));
        assert_eq!(times.answer(&BUSY, now), None);
        times.record_run(1, Duration::from_millis(100), now);
        assert!(times.answer(&BUSY, now).is_some());
    }

    #[test]
    fn old_evidence_does_not_refuse_for_ever() {
        let now = Instant::now();
        let mut times = ServiceTimes::new(now);
        (0..20).for_each(|_| times.record_run(1, Duration::from_secs(9), now));
        let idle = Outlook { idle: true, work_running: 0, ..BUSY };
        let later = now + TRY_AGAIN * 2;
        assert!(times.answer(&idle, now).is_some());
        assert_eq!(times.answer(&idle, later), None, "one is let through");
        assert_eq!(times.expected_run(later), Duration::ZERO, "and run");
        assert!(times.answer(&BUSY, later).is_some(), "while it runs, the others are judged as before");
    }

    #[test]
    fn rows_of_a_large_batch_cost_less_each() {
        let now = Instant::now();
        let mut times = ServiceTimes::new(now);
        (0..20).for_each(|_| times.record_run(10, Duration::from_millis(100), now));
        let wait = times.wait(&Outlook { work_ahead: 20, work_running: 0, instances: 1, ..BUSY }).unwrap();
        assert_eq!(wait.as_millis(), 200);
    }
}
