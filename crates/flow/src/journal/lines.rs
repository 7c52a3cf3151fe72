//! What stands in a run's journal, and its form as JSON.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use caudal_types::Explain;
use serde::{Deserialize, Serialize};

use super::Owner;
use crate::{
    budget::{Limits, Usage},
    error::{Fault, RunError, StepError},
    run::Prompt,
    value::{Map, Value},
};

/// The form of what is written here.
pub(crate) const FORM: u32 = 1;

/// A line of a run's journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What sort: `step`, `paused`, `left`, `resumed`, `ended`.
    pub kind: Box<str>,
    /// What it says, as JSON.
    pub body: Bytes,
}

impl Line {
    pub(super) fn new(kind: &str, body: &impl Serialize) -> Result<Self, RunError> {
        let body = serde_json::to_vec(body).map_err(|error| RunError::Journal(error.to_string().into()))?;
        Ok(Self { kind: kind.into(), body: body.into() })
    }

    pub(super) fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, RunError> {
        read(&self.body)
    }
}

pub(super) fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, RunError> {
    serde_json::from_slice(body).map_err(|error| RunError::Journal(error.to_string().into()))
}

/// How a run began.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Begun {
    /// The form of the journal.
    pub form: u32,
    /// Which pipeline.
    pub pipeline: Arc<str>,
    /// Everything that its answers depend on.
    pub version: String,
    /// What it was given.
    pub input: Value,
    /// What it knew.
    pub context: Map,
    /// What it may spend.
    #[serde(default)]
    pub limits: Limits,
    /// How long it may take each time it is taken up, in milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// The pipeline's file, where the run was begun from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Arc<str>>,
    /// Which process runs it.
    pub owner: Owner,
}

/// A run was taken up by another process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Resumed {
    /// Which process runs it now.
    pub owner: Owner,
    /// What people said to the steps that asked, by their paths.
    #[serde(default, skip_serializing_if = "HashMap::is_empty")]
    pub answers: HashMap<Arc<str>, Value>,
    /// Whether it was recovered: its process was gone, and no caller asked for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recovered: bool,
}

/// How often a run is recovered without a step done in between. One that ends its process each time would end every
/// process that recovers it.
pub const MAX_RECOVERIES: u32 = 3;

/// How many of the latest lines, the last one first, are recoveries with nothing done in between. A process that left the
/// run before it ended is something in between: only one that ends without a word may have been ended by the run.
pub(super) fn recoveries<'a>(latest: impl IntoIterator<Item = &'a Line>) -> u32 {
    let is_recovery =
        |line: &&Line| &*line.kind == "resumed" && line.read::<Resumed>().is_ok_and(|resumed| resumed.recovered);
    latest.into_iter().take_while(is_recovery).count() as u32
}

/// How a run ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ended {
    /// `completed`, `failed` or `cancelled`.
    pub status: Box<str>,
    /// What it gave.
    #[serde(default)]
    pub output: Value,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<Failure>,
    /// What it spent.
    #[serde(default)]
    pub usage: Usage,
    /// The paths of what it failed of. Other failures it survived: what came after them rests on them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fatal: Option<Vec<String>>,
}

/// A failure as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// Its code.
    pub code: Box<str>,
    /// Which step failed.
    #[serde(default)]
    pub step: Box<str>,
    /// One sentence.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl Failure {
    pub(crate) fn of(step: &str, error: &StepError) -> Self {
        let (message, hint) = (error.message.to_string(), error.hint.to_string());
        Self { code: error.fault.code().into(), step: step.into(), message, hint }
    }

    /// Of a whole run.
    pub(crate) fn of_run(error: &RunError) -> Self {
        match error {
            RunError::Step { step, error } => Self::of(step, error),
            other => Self {
                code: other.kind().code().into(),
                step: "".into(),
                message: other.to_string(),
                hint: other.hint().into_owned(),
            },
        }
    }

    pub(super) fn error(&self, again: Option<bool>) -> StepError {
        let fault = Fault::of(&self.code).unwrap_or(Fault::Failed);
        let error = StepError::new(fault, self.message.clone()).hint(self.hint.clone());
        StepError { again: again.unwrap_or(error.again), ..error }
    }
}

/// What a step came to.
#[derive(Debug, Clone)]
pub struct Done {
    /// Its output or failure.
    pub answer: Result<Value, StepError>,
    /// What it spent.
    pub usage: Usage,
    /// How often it was tried.
    pub attempts: u32,
    /// Whether it came from a cache.
    pub cached: bool,
    /// When it began, in microseconds since 1970.
    pub at: i64,
    /// How long it took.
    pub took: Duration,
}

#[derive(Serialize, Deserialize)]
pub(super) struct StepLine {
    pub(super) path: String,
    pub(super) at: i64,
    pub(super) took_us: u64,
    #[serde(default)]
    pub(super) output: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<Failure>,
    /// Whether trying again can help, of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) again: Option<bool>,
    #[serde(default)]
    pub(super) usage: Usage,
    pub(super) attempts: u32,
    #[serde(default)]
    pub(super) cached: bool,
}

/// Who is asked what.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Paused {
    /// The questions.
    pub prompts: Vec<Question>,
}

/// A question as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Question {
    /// Which step asks.
    pub path: Arc<str>,
    /// What.
    pub message: Value,
    /// What answers are taken.
    pub schema: Value,
}

impl From<&Prompt> for Question {
    fn from(prompt: &Prompt) -> Self {
        let Prompt { path, message, schema, .. } = prompt.clone();
        Self { path, message, schema }
    }
}
