//! The stations of a request and the time it spent at each: the one truth about time.

use std::time::{Duration, Instant};

/// A station on the way of a request, in the order in which it is passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// From the request's head to the last byte of its body, admission included.
    Receive,
    /// Waiting for a decode thread.
    Wait,
    /// From compressed bytes to pixels at the model's size, or from JSON to tensors.
    Decode,
    /// Waiting in the model's queue.
    Queue,
    /// The row is written into the batch.
    Prepare,
    /// The model runs.
    Infer,
    /// From the model's output to an answer: boxes picked, duplicates removed.
    Finish,
    /// From the answer to bytes.
    Encode,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Self; 8] =
        [Self::Receive, Self::Wait, Self::Decode, Self::Queue, Self::Prepare, Self::Infer, Self::Finish, Self::Encode];

    /// The stage's name, as it stands in headers, metrics and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Wait => "wait",
            Self::Decode => "decode",
            Self::Queue => "queue",
            Self::Prepare => "prepare",
            Self::Infer => "infer",
            Self::Finish => "finish",
            Self::Encode => "encode",
        }
    }
}

/// The stamps a request has collected: each ends one stage and begins the next, so they leave no gap.
#[derive(Debug, Clone, Copy)]
pub struct Stamps {
    start: Instant,
    last: Instant,
    spent: [Duration; Stage::ALL.len()],
}

impl Stamps {
    /// A request that arrived at `start`.
    pub fn new(start: Instant) -> Self {
        Self { start, last: start, spent: [Duration::ZERO; Stage::ALL.len()] }
    }

    /// A request of which only the whole time is known, from `start` to `end`.
    pub fn whole(start: Instant, end: Instant) -> Self {
        Self { last: end.max(start), ..Self::new(start) }
    }

    /// When the request arrived.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// Ends `stage` now.
    pub fn stamp(&mut self, stage: Stage) {
        self.stamp_at(stage, Instant::now());
    }

    /// Ends `stage` at `moment`; a moment before the last stamp counts as that stamp.
    pub fn stamp_at(&mut self, stage: Stage, moment: Instant) {
        self.spent[stage as usize] += moment.saturating_duration_since(self.last);
        self.last = self.last.max(moment);
    }

    /// Time spent at `stage`.
    pub fn spent(&self, stage: Stage) -> Duration {
        self.spent[stage as usize]
    }

    /// Arrival to last stamp: the sum of all stages.
    pub fn total(&self) -> Duration {
        self.last - self.start
    }

    /// The stages that took any time, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Stage, Duration)> + '_ {
        Stage::ALL.into_iter().map(|stage| (stage, self.spent(stage))).filter(|(_, spent)| !spent.is_zero())
    }

    /// Of two ways that left one request, the one that ended last: the critical path.
    #[must_use]
    pub fn later(self, other: Self) -> Self {
        if other.last > self.last { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_add_up_to_the_total() {
        let start = Instant::now();
        let mut stamps = Stamps::new(start);
        for (i, stage) in Stage::ALL.into_iter().enumerate() {
            stamps.stamp_at(stage, start + Duration::from_millis((i as u64 + 1) * 3));
        }
        assert_eq!(stamps.iter().map(|(_, spent)| spent).sum::<Duration>(), stamps.total());
        assert_eq!(stamps.spent(Stage::Infer), Duration::from_millis(3));
    }

    #[test]
    fn a_stamp_from_the_past_takes_no_time_and_does_not_turn_the_clock_back() {
        let start = Instant::now();
        let mut stamps = Stamps::new(start);
        stamps.stamp_at(Stage::Decode, start + Duration::from_millis(5));
        stamps.stamp_at(Stage::Queue, start + Duration::from_millis(2));
        assert_eq!(stamps.spent(Stage::Queue), Duration::ZERO);
        assert_eq!(stamps.total(), Duration::from_millis(5));
    }

    #[test]
    fn names_stand_in_the_order_of_the_road() {
        let indices: Vec<_> = Stage::ALL.iter().map(|stage| *stage as usize).collect();
        assert_eq!(indices, (0..Stage::ALL.len()).collect::<Vec<_>>());
    }
}
