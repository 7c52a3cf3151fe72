//! A model that serves.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use arc_swap::ArcSwap;
use caudal_batcher::Queue;
use caudal_engine::{
    Model, ModelSpec, Provider,
    repository::{ModelSettings, ShadowValidation},
};
use caudal_types::ModelId;

use crate::{Footprint, Joining, Measured, PictureModel, RunPlan, TaskError, TextModel};

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

/// What should be known of a model that serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What is not as it may be expected.
    pub problem: String,
    /// What to do about it.
    pub mend: String,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.problem, self.mend)
    }
}

/// Who runs a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunsOn {
    /// The provider that runs it.
    pub provider: Provider,
    /// The one that was wanted first and did not work; this one is its declared fallback.
    pub instead_of: Option<Provider>,
    /// Operators that the provider has no kernels for: the processor runs them.
    pub left_to_cpu: usize,
}

impl RunsOn {
    /// The processor, as wanted.
    pub const CPU: Self = Self { provider: Provider::Cpu, instead_of: None, left_to_cpu: 0 };
}

impl fmt::Display for RunsOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.provider)?;
        if let Some(wanted) = self.instead_of {
            write!(f, " instead of {wanted}")?;
        }
        match self.left_to_cpu {
            0 => Ok(()),
            left => write!(f, " ({left} operators on cpu)"),
        }
    }
}

/// A model that serves: what it is, how it runs, and the queue to it.
pub struct ServedModel {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// Both, as traces of requests have them.
    pub(crate) id: ModelId,
    /// What it takes and gives.
    pub spec: ModelSpec,
    /// What it is for.
    pub task: Task,
    /// What should be known of it, such as why it serves tensors though it takes pictures.
    pub notice: Option<Notice>,
    /// Who runs it.
    pub runs_on: RunsOn,
    /// What it holds of the machine's memory.
    pub memory: Footprint,
    /// What its warm-up told.
    pub measured: Measured,
    /// Whether requests are counted by their rows. Whether rows of several share a run is said by
    /// [`ServedModel::joining`].
    pub joined: bool,
    /// Where requests for it wait.
    pub queue: Queue,
    /// What it must show before it takes the place of another version.
    pub(crate) prove: Option<ShadowValidation>,
    pub(crate) plan: ArcSwap<RunPlan>,
    pub(crate) joining: ArcSwap<Joining>,
    /// Longest that a run may take that is made aside from requests.
    pub(crate) run_limit: Duration,
    /// For more instances.
    pub(crate) model: Arc<dyn Model>,
    /// What was changed of it since it was loaded; locked while it is changed.
    pub(crate) changed: Mutex<Option<ModelSettings>>,
}

impl fmt::Debug for ServedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} version {}", self.name, self.version)
    }
}

impl ServedModel {
    /// How it runs now.
    pub fn plan(&self) -> RunPlan {
        **self.plan.load()
    }

    /// Whether rows of several requests share a run, and if not, why.
    pub fn joining(&self) -> Arc<Joining> {
        self.joining.load_full()
    }

    /// What it knows of pictures.
    pub fn picture_model(&self) -> Result<&PictureModel, TaskError> {
        match &self.task {
            Task::See(model) => Ok(model),
            _ => Err(self.wrong_task("look at pictures", self.notice.clone())),
        }
    }

    /// What it knows of texts.
    pub fn text_model(&self) -> Result<&TextModel, TaskError> {
        match &self.task {
            Task::Embed(model) => Ok(model),
            _ => Err(self.wrong_task("make vectors of texts", None)),
        }
    }

    fn wrong_task(&self, task: &'static str, notice: Option<Notice>) -> TaskError {
        TaskError::WrongTask { model: self.name.clone(), task, notice }
    }
}
