//! Load estimate: predicts waiting and run times from the latest runs.

use std::time::{Duration, Instant};

use caudal_observe::Window;

/// The time for which measurements are considered.
const HISTORY_WINDOW: Duration = Duration::from_secs(5);
/// Fewer runs than this give no prediction.
const MIN_RUNS: u64 = 8;
/// Number of runs after which the slow-run quantile is computed again.
const SLOW_RUN_REFRESH_RUNS: u32 = 16;
/// After so long without a run, predictions are ignored once to get a new measurement; otherwise old ones could refuse
/// requests forever.
const STALE_AFTER: Duration = Duration::from_secs(1);

/// Recent times of one model: of a run, of a row or token, and from admission to ready rows.
#[derive(Debug)]
pub struct ServiceTimes {
    run: Window,
    row: Window,
    ready: Window,
    last_run: Instant,
    /// The 90th percentile of the run times, when it was last computed.
    slow_run: Duration,
    runs_since: u32,
}

/// The work in front of a new entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadEstimate {
    /// Rows or tokens that will run before it.
    pub work_ahead: usize,
    /// Rows or tokens that are running.
    pub work_running: usize,
    /// Time for which the instances have been running these, summed.
    pub running_for: Duration,
    /// Number of instances.
    pub instances: usize,
    /// Whether an instance is idle.
    pub idle: bool,
}

impl ServiceTimes {
    /// No measurements yet.
    pub fn new(now: Instant) -> Self {
        let window = || Window::new(HISTORY_WINDOW, now);
        let (run, row, ready) = (window(), window(), window());
        Self { run, row, ready, last_run: now, slow_run: Duration::ZERO, runs_since: 0 }
    }

    /// Records a run of so much `work` (rows or tokens) that took `taken` from the formation of the batch to its last
    /// answer.
    pub fn record_run(&mut self, work: usize, taken: Duration, now: Instant) {
        let nanos = to_nanos(taken);
        self.last_run = now;
        self.run.record(nanos, now);
        self.row.record(nanos / work.max(1) as u64, now);
        self.runs_since += 1;
        if self.runs_since == SLOW_RUN_REFRESH_RUNS || self.run.count() <= u64::from(SLOW_RUN_REFRESH_RUNS) {
            self.runs_since = 0;
            self.slow_run = Duration::from_nanos(self.run.quantile(0.9).unwrap_or(nanos));
        }
    }

    /// Records that an entry's rows were ready `taken` after its admission.
    pub fn record_ready(&mut self, taken: Duration, now: Instant) {
        self.ready.record(to_nanos(taken), now);
    }

    /// The 90th percentile of the run times; zero without enough recent runs.
    pub fn expected_run(&self, now: Instant) -> Duration {
        let fresh = now.saturating_duration_since(self.last_run) <= STALE_AFTER;
        if fresh && self.run.count() >= MIN_RUNS { self.slow_run } else { Duration::ZERO }
    }

    /// The predicted wait of a new entry; none without enough runs.
    pub fn queue_wait(&self, estimate: &LoadEstimate) -> Option<Duration> {
        let row = self.known_mean(&self.row)?;
        if estimate.idle && estimate.work_ahead == 0 {
            return Some(Duration::ZERO);
        }
        let running = (row * estimate.work_running as u64).saturating_sub(to_nanos(estimate.running_for));
        let work = row * estimate.work_ahead as u64 + running;
        Some(Duration::from_nanos(work / estimate.instances.max(1) as u64))
    }

    /// The predicted time to its answer: its rows are prepared while it waits, then it runs. The 90th percentile of the
    /// run times is used, because a median would be exceeded half the time.
    pub fn time_to_answer(&self, estimate: &LoadEstimate, now: Instant) -> Option<Duration> {
        let nothing_runs = estimate.idle && estimate.work_running == 0 && estimate.work_ahead == 0;
        if nothing_runs && now.saturating_duration_since(self.last_run) > STALE_AFTER {
            return None;
        }
        let wait = self.queue_wait(estimate)?;
        let ready = Duration::from_nanos(self.ready.quantile(0.5).unwrap_or(0));
        Some(wait.max(ready) + self.slow_run)
    }

    fn known_mean(&self, window: &Window) -> Option<u64> {
        window.mean().filter(|_| window.count() >= MIN_RUNS)
    }
}

fn to_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSY_INSTANCES: LoadEstimate =
        LoadEstimate { work_ahead: 0, work_running: 2, running_for: Duration::ZERO, instances: 2, idle: false };

    fn warm_times() -> ServiceTimes {
        let now = Instant::now();
        let mut times = ServiceTimes::new(now);
        (0..20).for_each(|_| times.record_run(1, Duration::from_millis(100), now));
        (0..20).for_each(|_| times.record_ready(Duration::from_millis(10), now));
        times
    }

    fn assert_estimate(estimate: LoadEstimate, wait_ms: u64, answer_ms: u64) {
        let about = |got: Duration, ms: u64| {
            let ratio = got.as_secs_f64() * 1000.0 / ms.max(1) as f64;
            assert!(ms == 0 && got.is_zero() || (0.99..1.07).contains(&ratio), "{got:?} is not about {ms} ms");
        };
        about(warm_times().queue_wait(&estimate).unwrap(), wait_ms);
        about(warm_times().time_to_answer(&estimate, Instant::now()).unwrap(), answer_ms);
    }

    #[test]
    fn wait_is_work_ahead_divided_by_instances() {
        assert_estimate(LoadEstimate { idle: true, work_running: 0, ..BUSY_INSTANCES }, 0, 110);
        assert_estimate(BUSY_INSTANCES, 100, 200);
        assert_estimate(LoadEstimate { running_for: Duration::from_millis(120), ..BUSY_INSTANCES }, 40, 140);
        assert_estimate(LoadEstimate { work_ahead: 6, ..BUSY_INSTANCES }, 400, 500);
        assert_estimate(
            LoadEstimate { work_ahead: 6, running_for: Duration::from_secs(9), ..BUSY_INSTANCES },
            300,
            400,
        );
    }

    #[test]
    fn too_few_runs_give_no_estimate() {
        let now = Instant::now();
        let mut times = ServiceTimes::new(now);
        (0..MIN_RUNS - 1).for_each(|_| times.record_run(1, Duration::from_millis(100), now));
        assert_eq!(times.time_to_answer(&BUSY_INSTANCES, now), None);
        times.record_run(1, Duration::from_millis(100), now);
        assert!(times.time_to_answer(&BUSY_INSTANCES, now).is_some());
    }

    #[test]
    fn stale_runs_give_no_estimate_when_idle() {
        let now = Instant::now();
        let mut times = ServiceTimes::new(now);
        (0..20).for_each(|_| times.record_run(1, Duration::from_secs(9), now));
        let idle = LoadEstimate { idle: true, work_running: 0, ..BUSY_INSTANCES };
        let later = now + STALE_AFTER * 2;
        assert!(times.time_to_answer(&idle, now).is_some());
        assert_eq!(times.time_to_answer(&idle, later), None, "one is let through");
        assert_eq!(times.expected_run(later), Duration::ZERO, "and run");
        assert!(
            times.time_to_answer(&BUSY_INSTANCES, later).is_some(),
            "while it runs, the others are judged as before"
        );
    }

    #[test]
    fn row_cost_falls_with_batch_size() {
        let now = Instant::now();
        let mut times = ServiceTimes::new(now);
        (0..20).for_each(|_| times.record_run(10, Duration::from_millis(100), now));
        let wait = times
            .queue_wait(&LoadEstimate { work_ahead: 20, work_running: 0, instances: 1, ..BUSY_INSTANCES })
            .unwrap();
        assert_eq!(wait.as_millis(), 200);
    }
}
