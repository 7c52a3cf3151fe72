//! A concurrent histogram.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::buckets::{self, BUCKET_COUNT};

/// Counts values in log-linear buckets; recording a value takes two relaxed additions.
///
/// ```
/// let latency = caudal_observe::Histogram::new();
/// latency.record(1_500);
/// latency.record(3_000);
/// assert_eq!(latency.snapshot().count(), 2);
/// ```
#[derive(Debug)]
pub struct Histogram {
    counts: Box<[AtomicU64; BUCKET_COUNT]>,
    sum: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// An empty histogram.
    pub fn new() -> Self {
        Self { counts: Box::new([const { AtomicU64::new(0) }; BUCKET_COUNT]), sum: AtomicU64::new(0) }
    }

    /// Records `value`.
    pub fn record(&self, value: u64) {
        self.counts[buckets::bucket_index(value)].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    /// The counts so far. Values recorded concurrently may be missing.
    pub fn snapshot(&self) -> Snapshot {
        let counts: Vec<u64> = self.counts.iter().map(|count| count.load(Relaxed)).collect();
        Snapshot { total: counts.iter().sum(), counts, sum: self.sum.load(Relaxed) }
    }
}

/// A histogram at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    counts: Vec<u64>,
    total: u64,
    sum: u64,
}

impl Snapshot {
    pub(crate) fn from_counts(counts: Vec<u64>, sum: u64) -> Self {
        Self { total: counts.iter().sum(), counts, sum }
    }

    /// The non-empty buckets with their counts.
    pub fn nonempty_buckets(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.counts.iter().copied().enumerate().filter(|(_, count)| *count > 0)
    }

    /// A snapshot of buckets from [`Snapshot::nonempty_buckets`], with the sum of its values.
    pub fn from_buckets(parts: impl IntoIterator<Item = (usize, u64)>, sum: u64) -> Self {
        let mut counts = vec![0; BUCKET_COUNT];
        parts.into_iter().for_each(|(bucket, count)| counts[bucket.min(BUCKET_COUNT - 1)] += count);
        Self::from_counts(counts, sum)
    }

    /// The sum of both snapshots.
    pub fn merged_with(mut self, other: &Self) -> Self {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.total += other.total;
        self.sum += other.sum;
        self
    }

    /// The values recorded after `earlier`, an earlier snapshot of the same histogram.
    pub fn difference_from(mut self, earlier: &Self) -> Self {
        self.counts.iter_mut().zip(&earlier.counts).for_each(|(count, before)| *count = count.saturating_sub(*before));
        self.total = self.counts.iter().sum();
        self.sum = self.sum.saturating_sub(earlier.sum);
        self
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// Exact sum of the values.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The value below which the share `q` (0 to 1) is, at most 6.25 % too high; `None` if empty.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        buckets::quantile(self.counts.iter().copied(), self.total, q)
    }

    /// Number of values that are at most `bound` (`le` in Prometheus). A bucket counts only if its upper end is within
    /// the bound, so the result is never too high.
    pub fn at_most(&self, bound: u64) -> u64 {
        self.counts
            .iter()
            .enumerate()
            .take_while(|(i, _)| buckets::upper_bound(*i) <= bound)
            .map(|(_, count)| count)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_within_a_bucket() {
        let histogram = Histogram::new();
        (1..=1000).for_each(|value| histogram.record(value * 1000));
        let snapshot = histogram.snapshot();
        for (q, exact) in [(0.5, 500_000.0), (0.95, 950_000.0), (0.99, 990_000.0), (1.0, 1_000_000.0)] {
            let got = snapshot.quantile(q).unwrap() as f64;
            assert!(got >= exact && got <= exact * 1.0625, "{q}: {got}");
        }
        assert_eq!(snapshot.sum(), 500_500_000);
    }

    #[test]
    fn cumulative_counts_never_overstate() {
        let histogram = Histogram::new();
        [5, 50, 500, 5_000].iter().for_each(|value| histogram.record(*value));
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.at_most(4), 0);
        assert_eq!(snapshot.at_most(600), 3);
        assert_eq!(snapshot.at_most(u64::MAX), 4);
    }

    #[test]
    fn nothing_counted_has_no_quantile() {
        assert_eq!(Histogram::new().snapshot().quantile(0.5), None);
    }
}
