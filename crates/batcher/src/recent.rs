//! The inputs of the latest runs, kept for whoever wants to see another version answer them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use caudal_types::{DType, Shape, TensorView};

/// The inputs of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRun(Vec<(DType, Shape, Vec<u8>)>);

impl KeptRun {
    /// The inputs, in the model's order.
    pub fn views(&self) -> Vec<TensorView<'_>> {
        self.0.iter().map(|(dtype, shape, bytes)| TensorView { dtype: *dtype, shape, bytes }).collect()
    }
}

/// The latest runs, at most so many.
#[derive(Debug)]
pub(crate) struct Recent {
    most: usize,
    runs: Mutex<VecDeque<Arc<KeptRun>>>,
}

impl Recent {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, runs: Mutex::new(VecDeque::with_capacity(most)) }
    }

    /// Keeps a run with `inputs`, unless somebody else does something here at the moment: a run does not wait for that.
    pub(crate) fn keep(&self, inputs: &[TensorView<'_>]) {
        let Ok(mut runs) = self.runs.try_lock() else { return };
        runs.truncate(self.most.saturating_sub(1));
        let copy = |view: &TensorView<'_>| (view.dtype, view.shape.to_vec(), view.bytes.to_vec());
        runs.push_front(Arc::new(KeptRun(inputs.iter().map(copy).collect())));
    }

    /// What is kept, the latest first.
    pub(crate) fn all(&self) -> Vec<Arc<KeptRun>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
