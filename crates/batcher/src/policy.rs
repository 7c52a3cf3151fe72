//! How much may wait and how much may run together.

use std::time::Duration;

use crate::Ragged;

/// The limits of one model's queue and batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Most rows in one run; 1 for a model whose rows cannot be joined.
    pub max_batch_size: usize,
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
    /// Most rows that are run by whoever brings them and finds an instance free, there and then, instead of waking
    /// the instance's thread: for a model whose run is shorter than that. 0 leaves all runs to those threads.
    pub run_in_place: usize,
}
