//! Histograms of latencies and their summaries.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longer times are recorded as this.
const MAX_LATENCY_NS: u64 = 3_600_000_000_000;
/// Precision of a thousandth.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Times in nanoseconds, in an HdrHistogram (Tene, 2012).
#[derive(Debug)]
pub(crate) struct LatencyHistogram(Histogram<u64>);

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, MAX_LATENCY_NS, SIGNIFICANT_DIGITS).expect("the constant bounds are valid"))
    }
}

impl LatencyHistogram {
    pub(crate) fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(MAX_LATENCY_NS).max(1));
    }

    pub(crate) fn record_ms(&mut self, ms: f64) {
        self.record(Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default());
    }

    /// `None` if nothing was recorded.
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

/// Summary of times in milliseconds, with a precision of a thousandth.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// Number of values.
    pub count: u64,
    /// Minimum.
    pub min: f64,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Maximum.
    pub max: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_has_the_recorded_quantiles() {
        let mut times = LatencyHistogram::default();
        (1..=1000).for_each(|ms| times.record_ms(f64::from(ms)));
        let summary = times.summary().unwrap();
        let near = |got: f64, exact: f64| assert!((got / exact - 1.0).abs() < 2e-3, "{got} is not {exact}");
        assert_eq!(summary.count, 1000);
        for (got, exact) in [
            (summary.min, 1.0),
            (summary.mean, 500.5),
            (summary.p50, 500.0),
            (summary.p90, 900.0),
            (summary.p95, 950.0),
            (summary.p99, 990.0),
            (summary.max, 1000.0),
        ] {
            near(got, exact);
        }
    }

    #[test]
    fn summary_of_one_slow_response_shows_in_the_maximum_only() {
        let mut times = LatencyHistogram::default();
        (0..999).for_each(|_| times.record(Duration::from_micros(100)));
        times.record(Duration::from_secs(7200));
        let summary = times.summary().unwrap();
        assert!(summary.p99 < 0.101 && summary.max > 3_599_000.0, "{summary:?}");
    }

    #[test]
    fn summary_of_nothing_is_none() {
        assert_eq!(LatencyHistogram::default().summary(), None);
    }
}
