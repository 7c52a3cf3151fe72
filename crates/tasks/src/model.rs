//! A model that serves.

use caudal_batcher::Queue;
use caudal_engine::ModelSpec;
use caudal_types::Explain;

use crate::{Detector, Measured, RunPlan, TaskError};

/// What a model is for.
#[derive(Debug)]
pub enum Task {
    /// Boxes in pictures.
    Detect(Box<Detector>),
    /// Tensors in, tensors out, whatever they mean.
    Tensors,
}

impl Task {
    /// Its name in settings and answers.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Detect(_) => "detect",
            Self::Tensors => "tensors",
        }
    }
}

/// A model that serves: what it is, how it runs, and the queue to it.
#[derive(Debug)]
pub struct ServedModel {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// What it takes and gives.
    pub spec: ModelSpec,
    /// What it is for.
    pub task: Task,
    /// How it runs.
    pub plan: RunPlan,
    /// What its warm-up told.
    pub measured: Measured,
    /// Whether rows of several requests may share a run.
    pub joined: bool,
    /// Where requests for it wait.
    pub queue: Queue,
}

impl ServedModel {
    /// The detector in it.
    pub fn detector(&self) -> Result<&Detector, TaskError> {
        match &self.task {
            Task::Detect(detector) => Ok(detector),
            Task::Tensors => Err(TaskError::WrongTask { model: self.name.clone(), task: "detect objects in pictures" }),
        }
    }
}

/// The words of an error and its hint, for a log line.
pub(crate) fn in_words(error: &dyn Explain) -> String {
    format!("{error}; {}", error.hint())
}
