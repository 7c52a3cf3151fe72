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
}

/// A run shorter than this is over before a second instance has woken up.
const TINY: Duration = Duration::from_micros(300);
/// Rows of a model for which joining pays.
const PAYING_BATCH: usize = 8;
/// Rows of a tiny model: joined, they save the hand-over of each.
const TINY_BATCH: usize = 32;

impl RunPlan {
    /// Settles what `asked` leaves open: `instances` and `batch` are what somebody said.
    pub(crate) fn settle(self, instances: Option<usize>, batch: Option<usize>, measured: &Measured) -> Self {
        let tiny = measured.one_row < TINY;
        let instances = instances.unwrap_or(if tiny { 1 } else { self.instances });
        let max_batch_size = batch.unwrap_or(if tiny {
            TINY_BATCH
        } else if measured.joining_pays() {
            PAYING_BATCH
        } else {
            1
        });
        Self { instances, max_batch_size, ..self }
    }
}

impl Measured {
    /// Whether two rows together take clearly less than one after the other. Convolutions on a CPU do not: each
    /// row keeps the core busy by itself, and joining them only makes the first wait for the last.
    fn joining_pays(&self) -> bool {
        self.two_rows.is_some_and(|two| two.as_secs_f64() < 1.6 * self.one_row.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(one_us: u64, two_us: Option<u64>, instances: usize, batch: usize) {
        let open = RunPlan { instances: 4, threads: 1, max_batch_size: 1 };
        let micros = Duration::from_micros;
        let measured = Measured { one_row: micros(one_us), two_rows: two_us.map(micros) };
        let plan = open.settle(None, None, &measured);
        assert_eq!((plan.instances, plan.max_batch_size), (instances, batch), "{measured:?}");
        let said = open.settle(Some(3), Some(5), &measured);
        assert_eq!((said.instances, said.max_batch_size), (3, 5), "what was said stands");
    }

    #[test]
    fn a_plan_follows_the_measurement() {
        check(5, Some(6), 1, 32);
        check(45_000, None, 4, 1);
        check(45_000, Some(89_000), 4, 1);
        check(5_000, Some(6_000), 4, 8);
    }
}
