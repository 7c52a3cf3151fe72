//! Inputs of the latest runs, recorded for shadow validation of new versions.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use caudal_types::{DType, Shape, TensorView};

/// The inputs of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedRun(Vec<(DType, Shape, Vec<u8>)>);

impl RecordedRun {
    /// The inputs, in the model's order.
    pub fn input_views(&self) -> Vec<TensorView<'_>> {
        self.0.iter().map(|(dtype, shape, bytes)| TensorView { dtype: *dtype, shape, bytes }).collect()
    }
}

/// The latest runs, up to a maximum number.
#[derive(Debug)]
pub(crate) struct RecentRuns {
    most: usize,
    runs: Mutex<VecDeque<Arc<RecordedRun>>>,
}

impl RecentRuns {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, runs: Mutex::new(VecDeque::with_capacity(most)) }
    }

    /// Records a run with `inputs` unless the lock is taken, because a run must not wait for it.
    pub(crate) fn record_run(&self, inputs: &[TensorView<'_>]) {
        let Ok(mut runs) = self.runs.try_lock() else { return };
        runs.truncate(self.most.saturating_sub(1));
        let copy = |view: &TensorView<'_>| (view.dtype, view.shape.to_vec(), view.bytes.to_vec());
        runs.push_front(Arc::new(RecordedRun(inputs.iter().map(copy).collect())));
    }

    /// The recorded runs, the latest first.
    pub(crate) fn latest_first(&self) -> Vec<Arc<RecordedRun>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
