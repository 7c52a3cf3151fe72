//! Why a step failed, and why a run came to its end without an answer.

use std::{borrow::Cow, sync::Arc, time::Duration};

use caudal_store::StoreError;
use caudal_types::{ErrorKind, Explain};

use crate::{budget::Refusal, value::OutOfBounds};

/// What sort of failure a step had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The step says so.
    Failed,
    /// What it was given is not what it takes.
    Input,
    /// What it made is not what was promised.
    Output,
    /// It took longer than it may.
    TimedOut,
    /// It panicked.
    Panicked,
    /// Whoever it asks cannot be reached, or broke off.
    Unreachable,
    /// Whoever it asks does not let it in.
    Unauthorized,
    /// Whoever it asks is asked too often.
    TooManyRequests,
    /// It would cost more than is left.
    Budget,
    /// What it asks for is not allowed.
    Forbidden,
}

impl Fault {
    /// Its stable code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Failed => "step_failed",
            Self::Input => "step_input",
            Self::Output => "step_output",
            Self::TimedOut => "step_timeout",
            Self::Panicked => "step_panicked",
            Self::Unreachable => "step_unreachable",
            Self::Unauthorized => "step_unauthorized",
            Self::TooManyRequests => "step_too_many_requests",
            Self::Budget => "budget_exceeded",
            Self::Forbidden => "step_forbidden",
        }
    }

    /// The fault of that code.
    pub fn of(code: &str) -> Option<Self> {
        const ALL: [Fault; 10] = [
            Fault::Failed,
            Fault::Input,
            Fault::Output,
            Fault::TimedOut,
            Fault::Panicked,
            Fault::Unreachable,
            Fault::Unauthorized,
            Fault::TooManyRequests,
            Fault::Budget,
            Fault::Forbidden,
        ];
        ALL.into_iter().find(|fault| fault.code() == code)
    }

    /// Whether trying again can help, if nobody says otherwise.
    const fn passes(self) -> bool {
        matches!(
            self,
            Self::Failed | Self::Output | Self::TimedOut | Self::Panicked | Self::Unreachable | Self::TooManyRequests
        )
    }
}

/// A step's failure.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("{message}")]
pub struct StepError {
    /// What sort of failure.
    pub fault: Fault,
    /// One sentence.
    pub message: Cow<'static, str>,
    /// What to do about it.
    pub hint: Cow<'static, str>,
    /// Whether trying again can help.
    pub again: bool,
    /// How long to wait before it is tried again, if the other side says so.
    pub after: Option<Duration>,
}

impl StepError {
    /// A failure of that sort.
    pub fn new(fault: Fault, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            fault,
            message: message.into(),
            hint: "look at the step's input and its error".into(),
            again: fault.passes(),
            after: None,
        }
    }

    /// The step failed.
    pub fn failed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Fault::Failed, message)
    }

    /// The step does not take what it was given.
    pub fn input(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Fault::Input, message).hint("give the step what it takes")
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The same, and trying again cannot help.
    #[must_use]
    pub fn for_good(mut self) -> Self {
        self.again = false;
        self
    }

    /// The same, to be tried again after `wait` and not before.
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        (self.again, self.after) = (true, Some(wait));
        self
    }
}

impl From<OutOfBounds> for StepError {
    fn from(bounds: OutOfBounds) -> Self {
        let hint = match bounds {
            OutOfBounds::Deep => "let it make something flatter",
            OutOfBounds::Large => "let it make less",
        };
        Self::new(Fault::Output, bounds.to_string()).hint(hint).for_good()
    }
}

impl From<Refusal> for StepError {
    fn from(refusal: Refusal) -> Self {
        Self::new(Fault::Budget, refusal.to_string()).hint("raise the limit, or ask for less").for_good()
    }
}

/// Why a run came to its end without an answer.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum RunError {
    /// A step failed.
    #[error("the step {step} failed: {error}")]
    Step {
        /// Where it stands.
        step: Arc<str>,
        /// Its failure.
        error: StepError,
    },
    /// Its deadline passed.
    #[error("the run's time is up")]
    TimedOut,
    /// Somebody cancelled it.
    #[error("the run was cancelled")]
    Cancelled,
    /// No such run.
    #[error("there is no run {0}")]
    Unknown(Box<str>),
    /// The run is not in a state for what was asked.
    #[error("the run is {0}")]
    State(&'static str),
    /// Another process took the run up, or does it now.
    #[error("another process has taken the run up")]
    Taken,
    /// The run was recovered so often without a step done, and its process ended each time.
    #[error(
        "the run was interrupted, and recovered {0} times without a step done: it is not recovered again by itself"
    )]
    GivenUp(u32),
    /// As much is under way as may be.
    #[error("{0}")]
    Busy(Box<str>),
    /// There is a run of that name.
    #[error("there is a run {0} already")]
    Exists(Box<str>),
    /// The run was recorded of another pipeline than the one there is now.
    #[error("the run was begun with another version of the pipeline {0}")]
    Foreign(Box<str>),
    /// The pipeline that the run belongs to is not there.
    #[error("there is no pipeline {0}, which the run belongs to")]
    NoPipeline(Box<str>),
    /// The run's journal is none that this version reads.
    #[error("the run's journal cannot be read: {0}")]
    Journal(Box<str>),
    /// What is asked of the run cannot be.
    #[error("{0}")]
    Answer(Box<str>),
    /// Where runs are kept does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Explain for RunError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Step { error, .. } => match error.fault {
                Fault::Budget => ErrorKind::BudgetExceeded,
                Fault::Input => ErrorKind::InvalidParameter,
                Fault::Forbidden => ErrorKind::Forbidden,
                _ => ErrorKind::StepFailed,
            },
            Self::TimedOut => ErrorKind::DeadlineExceeded,
            Self::Cancelled => ErrorKind::RunCancelled,
            Self::Unknown(_) => ErrorKind::NotFound,
            Self::State(_) | Self::Taken | Self::Foreign(_) | Self::NoPipeline(_) | Self::GivenUp(_) => {
                ErrorKind::RunState
            }
            Self::Busy(_) => ErrorKind::TooManyRequests,
            Self::Exists(_) => ErrorKind::Exists,
            Self::Journal(_) => ErrorKind::RecordDamaged,
            Self::Answer(_) => ErrorKind::InvalidParameter,
            Self::Store(error) => error.kind(),
        }
    }

    fn hint(&self) -> Cow<'static, str> {
        match self {
            Self::Step { error, .. } => error.hint.clone(),
            Self::TimedOut => "give it more time, or look at its summary where it went".into(),
            Self::Cancelled => "start it again".into(),
            Self::Unknown(_) => "caudal flow list tells which there are".into(),
            Self::State(_) => "caudal flow show tells what became of it".into(),
            Self::Taken => "wait for the other; caudal flow show tells how far it is".into(),
            Self::GivenUp(_) => "find out why its process ended, then resume it by its name, or cancel it".into(),
            Self::Busy(_) => "try again later, or raise flow_max_runs or flow_runs_mb".into(),
            Self::Exists(_) => "take another --run-id, or resume that one".into(),
            Self::Foreign(_) => {
                "bring the pipeline back to what it was, name its file (caudal flow resume --pipeline FILE), or start a new run"
                    .into()
            }
            Self::NoPipeline(_) => {
                "name its file (caudal flow resume --pipeline FILE), or its folder (--pipelines); a server reads that at its start"
                    .into()
            }
            Self::Journal(_) => "take the version of caudal that began it".into(),
            Self::Answer(_) => "caudal flow show tells what it waits for".into(),
            Self::Store(error) => error.hint(),
        }
    }
}
