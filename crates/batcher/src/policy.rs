//! Queue policy: limits of waiting entries, of their wait, and of batches.

use std::time::Duration;

use caudal_types::Priority;

use crate::VariableLength;

/// The limits of one model's queue and batches. They can be changed while it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Maximum number of rows per run; 1 for a model whose rows cannot be joined.
    pub max_batch_size: usize,
    /// Sizes at which a batch leaves immediately, ascending: for models that are fastest at these.
    pub preferred_batch_sizes: Vec<usize>,
    /// How rows of different lengths share a run: they are padded along the second dimension of every input. None if
    /// all rows have one length.
    pub ragged: Option<VariableLength>,
    /// How long a free instance waits for more rows once one waits. With 0 it takes the present rows: under load
    /// batches form by themselves, because requests accumulate while all instances are busy.
    pub max_queue_delay: Duration,
    /// Maximum number of entries that are admitted and do not run yet.
    pub max_queue_size: usize,
    /// Maximum number of their bytes.
    pub max_queue_bytes: usize,
    /// Limits of each priority, in the order of [`Priority::ALL`].
    pub by_priority: [QueueTimeouts; Priority::ALL.len()],
    /// Maximum number of rows that the calling thread runs in place if an instance is free, instead of waking the
    /// instance thread: for a model whose run is shorter than that. With 0 all runs are on instance threads.
    pub run_in_place: usize,
}

/// Limits of one priority: number of entries and their wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueTimeouts {
    /// Maximum number of waiting entries of this priority; without one, the limit of all entries.
    pub max_queue_size: Option<usize>,
    /// Time after which `then` is applied to an entry; without one, it waits until its deadline.
    pub timeout: Option<Duration>,
    /// The action on an entry that has waited that long.
    pub then: QueueTimeoutAction,
}

/// The action on an entry that has waited too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueueTimeoutAction {
    /// It is refused.
    #[default]
    Reject,
    /// It is moved behind all entries that have not waited that long.
    Delay,
}

impl QueueTimeoutAction {
    /// Its name in settings and responses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Delay => "delay",
        }
    }
}

impl Policy {
    /// The limits of `priority`.
    pub(crate) fn timeouts_of(&self, priority: Priority) -> &QueueTimeouts {
        &self.by_priority[priority as usize]
    }

    /// The largest preferred size that is at most `rows`.
    pub(crate) fn preferred_within(&self, rows: usize) -> Option<usize> {
        self.preferred_batch_sizes.iter().copied().rfind(|size| *size <= rows)
    }
}
