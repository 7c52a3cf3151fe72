//! A histogram of recent values, for decisions that follow the load.

use std::time::{Duration, Instant};

use crate::buckets::{self, BUCKET_COUNT};

/// Counts the values of the last one to two spans of time, in two halves that are swapped. For one owner, or behind a
/// lock that the owner takes anyway.
#[derive(Debug)]
pub struct Window {
    span: Duration,
    swapped_at: Instant,
    halves: [Half; 2],
}

#[derive(Debug, Clone)]
struct Half {
    counts: Box<[u32; BUCKET_COUNT]>,
    total: u64,
    sum: u64,
}

impl Half {
    fn new() -> Self {
        Self { counts: Box::new([0; BUCKET_COUNT]), total: 0, sum: 0 }
    }

    fn clear_counts(&mut self) {
        self.counts.fill(0);
        (self.total, self.sum) = (0, 0);
    }
}

impl Window {
    /// An empty window that drops values after one to two `span`s.
    pub fn new(span: Duration, now: Instant) -> Self {
        Self { span, swapped_at: now, halves: [Half::new(), Half::new()] }
    }

    /// Records `value` at `now`. Old values are dropped only when newer ones are recorded, so that the window keeps its
    /// contents during a pause.
    pub fn record(&mut self, value: u64, now: Instant) {
        if now.saturating_duration_since(self.swapped_at) >= self.span {
            self.halves.swap(0, 1);
            self.halves[0].clear_counts();
            self.swapped_at = now;
        }
        let half = &mut self.halves[0];
        half.counts[buckets::bucket_index(value)] += 1;
        half.total += 1;
        half.sum += value;
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.halves.iter().map(|half| half.total).sum()
    }

    /// Mean of the values; `None` if empty.
    pub fn mean(&self) -> Option<u64> {
        let sum: u64 = self.halves.iter().map(|half| half.sum).sum();
        sum.checked_div(self.count())
    }

    /// The value below which the share `q` is, at most 6.25 % too high; `None` if empty.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        if self.count() == 0 {
            return None;
        }
        let [now, before] = &self.halves;
        let counts = now.counts.iter().zip(before.counts.iter()).map(|(a, b)| u64::from(*a) + u64::from(*b));
        buckets::quantile(counts, self.count(), q)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_drops_old_values_when_new_ones_arrive() {
        let start = Instant::now();
        let span = Duration::from_secs(1);
        let mut window = Window::new(span, start);
        (0..10).for_each(|_| window.record(1000, start));
        window.record(9, start + span);
        assert_eq!(window.count(), 11);
        window.record(9, start + span * 2);
        assert_eq!(window.count(), 2);
        assert_eq!(window.mean(), Some(9));
    }

    #[test]
    fn window_keeps_its_values_during_a_pause() {
        let start = Instant::now();
        let mut window = Window::new(Duration::from_secs(1), start);
        window.record(1000, start);
        assert_eq!(window.mean(), Some(1000));
        assert_eq!(window.quantile(0.9), Some(1023));
    }

    #[test]
    fn empty_window_has_no_statistics() {
        let window = Window::new(Duration::from_secs(1), Instant::now());
        assert_eq!((window.mean(), window.quantile(0.5)), (None, None));
    }
}
