//! How much may wait, for how long, and how much may run together.

use std::time::Duration;

use caudal_types::Priority;

use crate::Ragged;

/// The limits of one model's queue and batches. They may change while it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Most rows in one run; 1 for a model whose rows cannot be joined.
    pub max_batch_size: usize,
    /// Sizes at which a batch leaves at once, smallest first: for models that are quickest at these.
    pub preferred_batch_sizes: Vec<usize>,
    /// How rows of different lengths share a run: they are padded along the second dimension of every input. None where
    /// all have one length.
    pub ragged: Option<Ragged>,
    /// How long a free instance waits for more rows once one waits. 0 takes what there is: under load
    /// batches form by themselves, because requests gather while every instance is busy.
    pub max_queue_delay: Duration,
    /// Most entries that are admitted and do not run yet.
    pub max_queue_size: usize,
    /// Most bytes that these may hold.
    pub max_queue_bytes: usize,
    /// What holds for entries of one priority alone, in the order of [`Priority::ALL`].
    pub by_priority: [Patience; Priority::ALL.len()],
    /// Most rows that are run by whoever brings them and finds an instance free, there and then, instead of waking
    /// the instance's thread: for a model whose run is shorter than that. 0 leaves all runs to those threads.
    pub run_in_place: usize,
}

/// How many entries of one priority wait, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Patience {
    /// Most entries of this priority that wait; as many as of all when none.
    pub max_queue_size: Option<usize>,
    /// How long an entry waits before `then` happens to it; as long as its deadline allows when none.
    pub timeout: Option<Duration>,
    /// What happens to an entry that has waited that long.
    pub then: TimeoutAction,
}

/// What happens to an entry that has waited long enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimeoutAction {
    /// It fails.
    #[default]
    Reject,
    /// It goes behind all that have not waited that long.
    Delay,
}

impl TimeoutAction {
    /// Its name in settings and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Delay => "delay",
        }
    }
}

impl Policy {
    /// What holds for entries of `priority` alone.
    pub(crate) fn patience(&self, priority: Priority) -> &Patience {
        &self.by_priority[priority as usize]
    }

    /// The largest preferred size that is at most `rows`.
    pub(crate) fn preferred_within(&self, rows: usize) -> Option<usize> {
        self.preferred_batch_sizes.iter().copied().rfind(|size| *size <= rows)
    }
}
