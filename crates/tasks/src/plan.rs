//! How a model runs where nobody said: as many instances and as large batches as its own measurements justify.

use std::{ops::RangeInclusive, time::Duration};

use caudal_batcher::VariableLength;

/// What the warm-up of a model told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// A run of one row.
    pub one_row: Duration,
    /// A run of two rows, where rows can be joined and the first was quick enough to try.
    pub two_rows: Option<Duration>,
    /// A run of eight rows, where two together take clearly less than one after the other.
    pub eight_rows: Option<Duration>,
}

/// How a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunPlan {
    /// Instances that run at once.
    pub instances: usize,
    /// Threads within one run.
    pub threads: usize,
    /// Most rows in one run.
    pub max_batch_size: usize,
    /// Most rows in one request. More than a batch run as a batch of their own.
    pub max_request_rows: usize,
    /// Most rows that whoever brings them runs there and then, without waking another thread.
    pub in_place_rows: usize,
    /// Threads of a run that has the machine to itself, where that is worth a second copy of the model.
    pub wide_threads: Option<usize>,
    /// How texts of different lengths share a run; none where rows are no texts.
    pub ragged: Option<VariableLength>,
}

/// A run shorter than this is over before a second instance has woken up.
const TINY: Duration = Duration::from_micros(300);
/// Longest that a thread which talks to sockets may be held up by a run.
const IN_PLACE: Duration = Duration::from_micros(500);
/// A run shorter than this is over before other threads could be of help.
const WORTH_SHARING: Duration = Duration::from_millis(1);
/// Rows of a model for which joining pays.
const PAYING_BATCH: usize = 8;
/// Rows of a tiny model: joined, they save the hand-over of each.
const TINY_BATCH: usize = 32;
/// Rows that a request may bring where nobody set a batch size.
const REQUEST_ROWS: usize = 1024;
/// Most texts of a run; what they may have together is counted in tokens.
const TEXTS: usize = 64;
/// How long a run of texts should take: who comes next waits for it.
const TEXT_RUN: Duration = Duration::from_millis(50);
/// Tokens of a run of texts: fewer would mostly pay for the run, more win nothing.
const TEXT_TOKENS: RangeInclusive<usize> = 512..=16_384;

impl RunPlan {
    /// Settles what `asked` leaves open. `bounded` says that no request can bring rows that
    /// take longer than those measured.
    pub(crate) fn settle(self, asked: &Asked, measured: &Measured, bounded: bool) -> Self {
        let tiny = measured.one_row < TINY;
        let max_batch_size = match asked.max_batch_size {
            _ if !asked.may_join => 1,
            Some(size) => size,
            None if tiny => TINY_BATCH,
            None if measured.joining_pays() => PAYING_BATCH,
            None => 1,
        };
        let max_request_rows = asked.max_batch_size.unwrap_or_else(|| max_batch_size.max(REQUEST_ROWS));
        let in_place_rows = if bounded { measured.rows_within(IN_PLACE) } else { 0 };
        // Threads that run in place each want an instance; one thread of its own is enough for what is tiny.
        let instances = asked.instances.unwrap_or(if tiny && in_place_rows == 0 { 1 } else { self.instances });
        Self { instances, max_batch_size, max_request_rows, in_place_rows, ..self }
    }

    /// Settles what only texts leave open; those of the measurement had `length` tokens.
    pub(crate) fn settle_texts(self, asked: &Asked, measured: &Measured, length: usize) -> Self {
        let max_batch_size = if asked.may_join { asked.max_batch_size.unwrap_or(TEXTS) } else { 1 };
        let (token, run_tokens) = measured.of_texts(length);
        let in_time = (TEXT_RUN.as_nanos() / token.as_nanos()) as usize;
        let max_batch_tokens =
            asked.max_batch_tokens.unwrap_or(in_time.clamp(*TEXT_TOKENS.start(), *TEXT_TOKENS.end()));
        Self { max_batch_size, ragged: Some(VariableLength { max_batch_tokens, run_tokens }), ..self }
    }

    /// How many threads to try for runs that have the machine of `cpus` cores to themselves, if it may be worth it.
    pub(crate) fn try_wide(&self, asked: &Asked, measured: &Measured, cpus: usize) -> Option<usize> {
        (!asked.threads && self.threads < cpus && measured.one_row >= WORTH_SHARING).then_some(cpus)
    }
}

/// What somebody said of how a model should run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) instances: Option<usize>,
    pub(crate) max_batch_size: Option<usize>,
    pub(crate) max_batch_tokens: Option<usize>,
    /// Whether the threads within a run were said.
    pub(crate) threads: bool,
    /// Whether rows of several requests may share a run at all.
    pub(crate) may_join: bool,
}

impl Measured {
    /// Whether two rows together take clearly less than one after the other. Convolutions on a CPU do not: each
    /// row keeps the core busy by itself, and joining them only makes the first wait for the last.
    pub(crate) fn joining_pays(&self) -> bool {
        self.two_rows.is_some_and(|two| two.as_secs_f64() < 1.6 * self.one_row.as_secs_f64())
    }

    /// Whether a run of one row that takes `wide` on all cores is worth having. Under load it would only waste them.
    pub(crate) fn wide_pays(&self, wide: Duration) -> bool {
        wide.as_secs_f64() < 0.9 * self.one_row.as_secs_f64()
    }

    /// What a token takes, and what a run takes beside its tokens, counted in these.
    fn of_texts(&self, length: usize) -> (Duration, usize) {
        let row = self.two_rows.map_or(self.one_row, |two| two.saturating_sub(self.one_row));
        let token = (row / length as u32).max(Duration::from_nanos(1));
        let run = self.one_row.saturating_sub(row);
        // Within what can be: the clock may have been disturbed.
        (token, ((run.as_nanos() / token.as_nanos()) as usize).clamp(length / 2, length * 4))
    }

    /// How many rows a run may have that should not take longer than `limit`.
    fn rows_within(&self, limit: Duration) -> usize {
        let Some(left) = limit.checked_sub(self.one_row) else { return 0 };
        let Some(two) = self.two_rows else { return 1 };
        // What the clock cannot tell apart costs something all the same.
        let each = two.saturating_sub(self.one_row).max(Duration::from_micros(1));
        1 + (left.as_nanos() / each.as_nanos()) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: RunPlan = RunPlan {
        instances: 4,
        threads: 1,
        max_batch_size: 1,
        max_request_rows: 1,
        in_place_rows: 0,
        wide_threads: None,
        ragged: None,
    };
    const NOTHING_SAID: Asked =
        Asked { instances: None, max_batch_size: None, max_batch_tokens: None, threads: false, may_join: true };

    fn measured(one_us: u64, two_us: Option<u64>) -> Measured {
        let two_rows = two_us.map(Duration::from_micros);
        Measured { one_row: Duration::from_micros(one_us), two_rows, eight_rows: None }
    }

    fn check(one_us: u64, two_us: Option<u64>, instances: usize, batch: usize, in_place_rows: usize) {
        let measured = measured(one_us, two_us);
        let plan = OPEN.settle(&NOTHING_SAID, &measured, true);
        let got = (plan.instances, plan.max_batch_size, plan.in_place_rows);
        assert_eq!(got, (instances, batch, in_place_rows), "{measured:?}");
        let said = Asked { instances: Some(3), max_batch_size: Some(5), ..NOTHING_SAID };
        let plan = OPEN.settle(&said, &measured, true);
        assert_eq!((plan.instances, plan.max_batch_size), (3, 5), "what was said stands");
    }

    #[test]
    fn a_plan_follows_the_measurement() {
        check(5, Some(6), 4, 32, 496);
        check(5, Some(5), 4, 32, 496);
        check(400, Some(500), 4, 8, 2);
        check(450, None, 4, 1, 1);
        check(45_000, None, 4, 1, 0);
        check(45_000, Some(89_000), 4, 1, 0);
        check(5_000, Some(6_000), 4, 8, 0);
    }

    #[test]
    fn texts_share_a_run_that_ends_soon_and_padding_is_weighed_against_a_run() {
        let plan = |one_us, two_us, asked: Asked| {
            let plan = OPEN.settle_texts(&asked, &measured(one_us, two_us), 16);
            let ragged = plan.ragged.unwrap();
            (plan.max_batch_size, ragged.max_batch_tokens, ragged.run_tokens)
        };
        assert_eq!(plan(4_000, Some(5_600), NOTHING_SAID), (64, 512, 24), "100 us a token, 2.4 ms a run");
        assert_eq!(plan(40, Some(56), NOTHING_SAID), (64, 16_384, 24));
        assert_eq!(plan(4_000, Some(4_000), NOTHING_SAID), (64, 16_384, 64), "what the clock cannot tell");
        assert_eq!(plan(4_000, None, NOTHING_SAID), (64, 512, 8));
        let said = Asked { max_batch_size: Some(4), max_batch_tokens: Some(100), ..NOTHING_SAID };
        assert_eq!(plan(4_000, Some(5_600), said), (4, 100, 24));
        assert_eq!(plan(4_000, None, Asked { may_join: false, ..NOTHING_SAID }).0, 1);
    }

    #[test]
    fn a_wide_run_is_for_what_takes_long_and_was_left_open() {
        let wide = |asked: &Asked, us: u64| OPEN.try_wide(asked, &measured(us, None), 4);
        assert_eq!(wide(&NOTHING_SAID, 45_000), Some(4));
        assert_eq!(wide(&NOTHING_SAID, 900), None);
        assert_eq!(wide(&Asked { threads: true, ..NOTHING_SAID }, 45_000), None);
        assert_eq!(RunPlan { threads: 4, ..OPEN }.try_wide(&NOTHING_SAID, &measured(45_000, None), 4), None);
        assert!(measured(45_000, None).wide_pays(Duration::from_millis(35)));
        assert!(!measured(45_000, None).wide_pays(Duration::from_millis(43)));
    }

    #[test]
    fn nothing_runs_in_place_that_may_take_long() {
        let plan = OPEN.settle(&NOTHING_SAID, &measured(5, Some(6)), false);
        assert_eq!((plan.instances, plan.in_place_rows), (1, 0), "a request may bring larger rows");
        assert_eq!(OPEN.settle(&NOTHING_SAID, &measured(501, None), true).in_place_rows, 0);
    }
}
