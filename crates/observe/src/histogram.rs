//! A histogram that many threads feed at once, for ever.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::buckets::{self, BUCKETS};

/// Counts values in log-linear buckets; feeding it is two relaxed additions.
///
/// ```
/// let latency = caudal_observe::Histogram::new();
/// latency.record(1_500);
/// latency.record(3_000);
/// assert_eq!(latency.snapshot().count(), 2);
/// ```
#[derive(Debug)]
pub struct Histogram {
    counts: Box<[AtomicU64; BUCKETS]>,
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
        Self { counts: Box::new([const { AtomicU64::new(0) }; BUCKETS]), sum: AtomicU64::new(0) }
    }

    /// Counts `value`.
    pub fn record(&self, value: u64) {
        self.counts[buckets::index(value)].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    /// What has been counted so far. Values recorded meanwhile may be in or not.
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
    pub(crate) fn of(counts: Vec<u64>, sum: u64) -> Self {
        Self { total: counts.iter().sum(), counts, sum }
    }

    /// The buckets that hold anything, by their places and counts.
    pub fn parts(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.counts.iter().copied().enumerate().filter(|(_, count)| *count > 0)
    }

    /// What [`Snapshot::parts`] was made of, with the sum of its values.
    pub fn from_parts(parts: impl IntoIterator<Item = (usize, u64)>, sum: u64) -> Self {
        let mut counts = vec![0; BUCKETS];
        parts.into_iter().for_each(|(place, count)| counts[place.min(BUCKETS - 1)] += count);
        Self::of(counts, sum)
    }

    /// Both together.
    pub fn and(mut self, other: &Self) -> Self {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.total += other.total;
        self.sum += other.sum;
        self
    }

    /// What was counted after `earlier`, a snapshot of the same.
    pub fn after(mut self, earlier: &Self) -> Self {
        self.counts.iter_mut().zip(&earlier.counts).for_each(|(count, before)| *count = count.saturating_sub(*before));
        self.total = self.counts.iter().sum();
        self.sum = self.sum.saturating_sub(earlier.sum);
        self
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// Their exact sum.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The value below which the share `q` (0 to 1) lies, at most 6.25 % too high; none when empty.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        buckets::quantile(self.counts.iter().copied(), self.total, q)
    }

    /// How many values are at most `bound`: what Prometheus calls `le`. A bucket counts once its upper end is
    /// within the bound, so the result is never too high.
    pub fn at_most(&self, bound: u64) -> u64 {
        self.counts.iter().enumerate().take_while(|(i, _)| buckets::upper(*i) <= bound).map(|(_, count)| count).sum()
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
