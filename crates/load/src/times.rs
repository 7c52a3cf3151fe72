//! Times as they are counted and told.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longer times count as this.
const LONGEST_NS: u64 = 3_600_000_000_000;
/// Values are known within a thousandth.
const DIGITS: u8 = 3;

/// Times in an HdrHistogram (Tene, 2012), in nanoseconds.
#[derive(Debug)]
pub(crate) struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_NS, DIGITS).expect("the bounds are constants that go together"))
    }
}

impl Times {
    pub(crate) fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(LONGEST_NS).max(1));
    }

    pub(crate) fn record_ms(&mut self, ms: f64) {
        self.record(Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default());
    }

    /// None when nothing was counted.
    pub(crate) fn summary(&self) -> Option<Latency> {
        let (times, ms) = (&self.0, |ns: u64| ns as f64 / 1e6);
        (!times.is_empty()).then(|| Latency {
            count: times.len(),
            min: ms(times.min()),
            mean: times.mean() / 1e6,
            p50: ms(times.value_at_quantile(0.5)),
            p90: ms(times.value_at_quantile(0.9)),
            p95: ms(times.value_at_quantile(0.95)),
            p99: ms(times.value_at_quantile(0.99)),
            max: ms(times.max()),
        })
    }
}

/// Times in milliseconds, within a thousandth of each.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// How many were counted.
    pub count: u64,
    /// The least.
    pub min: f64,
    /// Their mean.
    pub mean: f64,
    /// The time that half of them keep within.
    pub p50: f64,
    /// 90 of a hundred.
    pub p90: f64,
    /// 95 of a hundred.
    pub p95: f64,
    /// 99 of a hundred.
    pub p99: f64,
    /// The most.
    pub max: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut times = Times::default();
        (1..=1000).for_each(|ms| times.record_ms(f64::from(ms)));
        let told = times.summary().unwrap();
        let near = |got: f64, exact: f64| assert!((got / exact - 1.0).abs() < 2e-3, "{got} is not {exact}");
        assert_eq!(told.count, 1000);
        for (got, exact) in [
            (told.min, 1.0),
            (told.mean, 500.5),
            (told.p50, 500.0),
            (told.p90, 900.0),
            (told.p95, 950.0),
            (told.p99, 990.0),
            (told.max, 1000.0),
        ] {
            near(got, exact);
        }
    }

    #[test]
    fn a_single_slow_answer_is_seen_in_the_maximum_alone() {
        let mut times = Times::default();
        (0..999).for_each(|_| times.record(Duration::from_micros(100)));
        times.record(Duration::from_secs(7200));
        let told = times.summary().unwrap();
        assert!(told.p99 < 0.101 && told.max > 3_599_000.0, "{told:?}");
    }

    #[test]
    fn nothing_has_no_quantiles() {
        assert_eq!(Times::default().summary(), None);
    }
}
