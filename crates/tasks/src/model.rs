//! A model that serves.

use caudal_batcher::Queue;
use caudal_engine::ModelSpec;
use caudal_types::Explain;

use crate::{Look, Measured, PictureModel, RunPlan, TaskError, TextModel};

/// What a model is for.
#[derive(Debug)]
pub enum Task {
    /// Pictures in, what is on them out.
    See(Box<PictureModel>),
    /// Texts in, vectors out.
    Embed(Box<TextModel>),
    /// Tensors in, tensors out, whatever they mean.
    Tensors,
}

impl Task {
    /// Its name in settings and answers.
    pub fn name(&self) -> &'static str {
        match self {
            Self::See(model) => model.look.name(),
            Self::Embed(_) => "embed",
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
    /// What it knows of pictures.
    pub fn picture_model(&self) -> Result<&PictureModel, TaskError> {
        match &self.task {
            Task::See(model) => Ok(model),
            _ => Err(TaskError::WrongTask { model: self.name.clone(), task: "look at pictures" }),
        }
    }

    /// What it knows of texts.
    pub fn text_model(&self) -> Result<&TextModel, TaskError> {
        match &self.task {
            Task::Embed(model) => Ok(model),
            _ => Err(TaskError::WrongTask { model: self.name.clone(), task: "make vectors of texts" }),
        }
    }

    /// Whether it looks for objects.
    pub fn is_detector(&self) -> bool {
        matches!(&self.task, Task::See(model) if matches!(model.look, Look::Detect(_)))
    }

    /// Whether it makes vectors of texts.
    pub fn is_embedder(&self) -> bool {
        matches!(&self.task, Task::Embed(_))
    }
}

/// The words of an error and its hint, for a log line.
pub(crate) fn in_words(error: &dyn Explain) -> String {
    format!("{error}; {}", error.hint())
}
