//! Why a model does not serve.

use std::{borrow::Cow, time::Duration};

use caudal_engine::{LoadError, RunError, repository::FolderError};
use caudal_types::{ErrorKind, Explain};

use crate::trial::TrialError;

/// Why a model does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Its folder is at fault.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The backend could not open it.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It opened and would not run.
    #[error("the model {0} opened and failed its first run: {1}")]
    WarmUp(String, RunError),
    /// A run has no end, or none in time.
    #[error("the model {0} opened, and a run of one row was stopped after {limit:.1} s", limit = .1.as_secs_f64())]
    Endless(String, Duration),
    /// It did not pass its trial.
    #[error(transparent)]
    Trial(#[from] TrialError),
    /// Its settings and its file do not agree.
    #[error("the model {0} cannot be used as its settings say: {1}")]
    Mismatch(String, String),
}

impl ModelError {
    /// Why, where callers may know it: other reasons name files.
    pub fn for_callers(&self) -> Option<&str> {
        match self {
            Self::Mismatch(_, reason) => Some(reason),
            _ => None,
        }
    }
}

impl Explain for ModelError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::ModelNotReady
    }

    fn hint(&self) -> Cow<'static, str> {
        match self {
            Self::Folder(_) => "`caudal models doctor` tells what is wrong and how to mend it".into(),
            Self::Load(error) => error.hint(),
            Self::Trial(error) => error.hint(),
            Self::WarmUp(..) => "check the export; preprocessing.size in model.yaml sets free picture sizes".into(),
            Self::Endless(..) => {
                "check the export for a loop without an end; if it is only slow, raise request_timeout_ms".into()
            }
            Self::Mismatch(..) => "correct model.yaml; docs/models.md lists its keys".into(),
        }
    }
}
