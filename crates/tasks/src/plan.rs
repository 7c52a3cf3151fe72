//! How a model runs where nobody said: as many instances and as large batches as its own measurements justify.

use std::time::Duration;

/// What the warm-up of a model told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// A run of one row.
    pub one_row: Duration,
    /// A run of two rows, where rows can be joined and the first was quick enough to try.
    pub two_rows: Option<Duration>,
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

impl RunPlan {
    /// Settles what `asked` leaves open. `bounded` says that no request can bring rows larger than those measured.
    pub(crate) fn settle(self, asked: &Asked, measured: &Measured, bounded: bool) -> Self {
        let tiny = measured.one_row < TINY;
        let max_batch_size = match asked.max_batch_size {
            _ if !asked.may_join => 1,
            Some(size) => size,
            None if tiny => TINY_BATCH,
            None if measured.joining_pays() => PAYING_BATCH,
            None => 1,
        };
        let max_request_rows = asked.max_batch_size.unwrap_or(max_batch_size.max(REQUEST_ROWS));
        let in_place_rows = if bounded { measured.rows_within(IN_PLACE) } else { 0 };
        // Threads that run in place each want an instance; one thread of its own is enough for what is tiny.
        let instances = asked.instances.unwrap_or(if tiny && in_place_rows == 0 { 1 } else { self.instances });
        Self { instances, max_batch_size, max_request_rows, in_place_rows, ..self }
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
    /// Whether the threads within a run were said.
    pub(crate) threads: bool,
    /// Whether rows of several requests may share a run at all.
    pub(crate) may_join: bool,
}

impl Measured {
    /// Whether two rows together take clearly less than one after the other. Convolutions on a CPU do not: each
    /// row keeps the core busy by itself, and joining them only makes the first wait for the last.
    fn joining_pays(&self) -> bool {
        self.two_rows.is_some_and(|two| two.as_secs_f64() < 1.6 * self.one_row.as_secs_f64())
    }

    /// Whether a run of one row that takes `wide` on all cores is worth having. Under load it would only waste them.
    pub(crate) fn wide_pays(&self, wide: Duration) -> bool {
        wide.as_secs_f64() < 0.9 * self.one_row.as_secs_f64()
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
    };
    const NOTHING_SAID: Asked = Asked { instances: None, max_batch_size: None, threads: false, may_join: true };

    fn measured(one_us: u64, two_us: Option<u64>) -> Measured {
        Measured { one_row: Duration::from_micros(one_us), two_rows: two_us.map(Duration::from_micros) }
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
