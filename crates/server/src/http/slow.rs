//! Which requests are logged as slow, and how many lines that may be.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Most lines within a span; what is slow beyond that is counted in the next line.
const LINES: u32 = 5;
const SPAN: Duration = Duration::from_secs(10);

/// From when on a request is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowRequests {
    /// It took so long.
    pub threshold: Duration,
    /// And, where that is longer, so many times what a run of its model takes.
    pub runs: Option<u32>,
}

impl SlowRequests {
    /// What holds where nobody says anything: a request that waits a little for a model is not slow.
    pub const AUTO: Self = Self { threshold: Duration::from_millis(100), runs: Some(5) };

    /// Exactly this, whatever models take.
    pub fn from(threshold: Duration) -> Self {
        Self { threshold, runs: None }
    }

    /// Whether a request is slow that `took` so long. A run of its model takes what `run` says, if it asked one.
    pub(crate) fn is_slow(&self, took: Duration, run: impl FnOnce() -> Option<Duration>) -> bool {
        took >= self.threshold
            && match self.runs.zip(self.runs.and_then(|_| run())) {
                Some((times, run)) => took >= run * times,
                None => true,
            }
    }
}

/// Lines about slow requests, as many as a reader can read.
#[derive(Debug, Default)]
pub(crate) struct SlowLog(Mutex<Span>);

#[derive(Debug, Default)]
struct Span {
    began: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

impl SlowLog {
    /// Whether a line may be written at `now`: if so, how many were suppressed since the last one.
    pub(crate) fn line(&self, now: Instant) -> Option<u64> {
        let mut span = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if span.began.is_none_or(|began| now.saturating_duration_since(began) >= SPAN) {
            (span.began, span.lines) = (Some(now), 0);
        }
        if span.lines >= LINES {
            span.suppressed += 1;
            return None;
        }
        span.lines += 1;
        Some(std::mem::take(&mut span.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn slow_is_more_than_the_threshold_and_than_some_runs_of_the_model() {
        let slow = |took: u32, run: Option<u32>| SlowRequests::AUTO.is_slow(took * MS, || run.map(|run| run * MS));
        assert!(!slow(99, None) && slow(100, None), "of what asks no model");
        assert!(!slow(99, Some(1)) && slow(100, Some(1)), "a quick model");
        assert!(!slow(150, Some(75)) && !slow(374, Some(75)) && slow(375, Some(75)), "a model of 75 ms");
        assert!(SlowRequests::from(50 * MS).is_slow(60 * MS, || Some(75 * MS)), "what is set holds as it is");
    }

    #[test]
    fn lines_are_few_and_the_next_one_counts_what_was_left_out() {
        let (log, start) = (SlowLog::default(), Instant::now());
        let lines: Vec<_> = (0..1000).filter_map(|at| log.line(start + at * MS)).collect();
        assert_eq!(lines, [0, 0, 0, 0, 0]);
        assert_eq!(log.line(start + SPAN), Some(995));
        assert_eq!(log.line(start + SPAN + MS), Some(0));
    }
}
