//! A histogram of the recent past only, for decisions that must follow the load.

use std::time::{Duration, Instant};

use crate::buckets::{self, BUCKETS};

/// Counts values of the last one to two spans of time: two halves that take turns. For one owner, or behind
/// a lock the owner holds anyway.
#[derive(Debug)]
pub struct Window {
    span: Duration,
    turned: Instant,
    halves: [Half; 2],
}

#[derive(Debug, Clone)]
struct Half {
    counts: Box<[u32; BUCKETS]>,
    total: u64,
    sum: u64,
}

impl Half {
    fn empty() -> Self {
        Self { counts: Box::new([0; BUCKETS]), total: 0, sum: 0 }
    }

    fn clear(&mut self) {
        self.counts.fill(0);
        (self.total, self.sum) = (0, 0);
    }
}

impl Window {
    /// An empty window that forgets after one to two `span`s.
    pub fn new(span: Duration, now: Instant) -> Self {
        Self { span, turned: now, halves: [Half::empty(), Half::empty()] }
    }

    /// Counts `value` at `now`. What is older than the window goes only when newer values come, so a pause
    /// does not make the window forget what it knew.
    pub fn record(&mut self, value: u64, now: Instant) {
        if now.saturating_duration_since(self.turned) >= self.span {
            self.halves.swap(0, 1);
            self.halves[0].clear();
            self.turned = now;
        }
        let half = &mut self.halves[0];
        half.counts[buckets::index(value)] += 1;
        half.total += 1;
        half.sum += value;
    }

    /// How many values the window holds.
    pub fn count(&self) -> u64 {
        self.halves.iter().map(|half| half.total).sum()
    }

    /// Their mean; none when empty.
    pub fn mean(&self) -> Option<u64> {
        let sum: u64 = self.halves.iter().map(|half| half.sum).sum();
        sum.checked_div(self.count())
    }

    /// The value below which the share `q` lies, at most 6.25 % too high; none when empty.
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
    fn the_old_goes_when_the_new_comes() {
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
    fn a_pause_does_not_forget() {
        let start = Instant::now();
        let mut window = Window::new(Duration::from_secs(1), start);
        window.record(1000, start);
        assert_eq!(window.mean(), Some(1000));
        assert_eq!(window.quantile(0.9), Some(1023));
    }

    #[test]
    fn empty_has_no_opinion() {
        let window = Window::new(Duration::from_secs(1), Instant::now());
        assert_eq!((window.mean(), window.quantile(0.5)), (None, None));
    }
}
