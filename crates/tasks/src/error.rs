//! How a load and a task can fail.

use std::{borrow::Cow, time::Duration};

use caudal_batcher::{Failure, Refusal};
use caudal_engine::{LoadError, RunError, repository::FolderError};
use caudal_language::TextError;
use caudal_types::{ErrorKind, Explain};
use caudal_vision::{ImageError, MAX_JPEG_SIDE};

use crate::{Notice, TensorError, trial::TrialError};

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
    /// The reason, if callers may know it: other reasons name files.
    pub fn for_callers(&self) -> Option<&str> {
        match self {
            Self::Mismatch(_, reason) => Some(reason),
            Self::Trial(TrialError::Failed { for_callers, .. }) => for_callers.as_deref(),
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

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The picture cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Decoding the picture would take more memory than is set aside for it.
    #[error("decoding this picture takes {needed} bytes, {limit} are set aside for all pictures")]
    PictureOverBudget {
        /// Bytes it takes.
        needed: u64,
        /// Bytes there are.
        limit: u64,
    },
    /// The picture cannot be given back with boxes on it.
    #[error("a side of this picture has {0} pixels, and a JPEG to draw on has at most {MAX_JPEG_SIDE}")]
    TooLargeToDraw(u32),
    /// The tensors do not fit the model.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// Token ids for a model that is given texts.
    #[error(
        "input holds token ids, and the model {0} accepts texts only; send the texts (LangChain: check_embedding_ctx_length=False)"
    )]
    TokenIds(String),
    /// One of the texts cannot be given to the model.
    #[error("input {index} {error}")]
    Text {
        /// Its place, from 0.
        index: usize,
        /// Why.
        error: TextError,
    },
    /// Vectors of a width that the model does not give.
    #[error("dimensions is a whole number from 1 to {width} for this model, not {asked}")]
    Dimensions {
        /// What was asked for.
        asked: usize,
        /// Values of the model's vectors.
        width: usize,
    },
    /// There was no seat.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The model or the queue failed.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The deadline passed.
    #[error("the answer could not be ready by its deadline")]
    Late,
    /// The model does something else.
    #[error("the model {model} does not {task}{}", .notice.as_ref().map_or_else(String::new, |notice| format!(": {}", notice.problem)))]
    WrongTask {
        /// Its name.
        model: String,
        /// What was asked.
        task: &'static str,
        /// Why, where that may be a surprise.
        notice: Option<Notice>,
    },
    /// A fault of ours.
    #[error("{0}")]
    Internal(String),
}

impl Explain for TaskError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Image(error) => error.kind(),
            Self::PictureOverBudget { .. } | Self::TooLargeToDraw(_) => ErrorKind::ImageTooLarge,
            Self::Tensor(_) => ErrorKind::InvalidTensor,
            Self::Text { error, .. } => error.kind(),
            Self::TokenIds(_) | Self::Dimensions { .. } => ErrorKind::InvalidParameter,
            Self::Refused(error) => error.kind(),
            Self::Failed(error) => error.kind(),
            Self::Late => ErrorKind::DeadlineExceeded,
            Self::WrongTask { .. } => ErrorKind::WrongTask,
            Self::Internal(_) => ErrorKind::Internal,
        }
    }

    fn hint(&self) -> Cow<'static, str> {
        match self {
            Self::Image(error) => error.hint(),
            Self::PictureOverBudget { .. } => "scale the picture down, or raise max_pixel_memory_mb".into(),
            Self::TooLargeToDraw(_) => "scale the picture down, or leave draw out".into(),
            Self::Tensor(_) => "GET /v2/models/{model} tells names, datatypes and shapes".into(),
            Self::TokenIds(_) => {
                "ids of another tokenizer give vectors that mean nothing; if they are of this model's own, \
                 set embedding.allow_token_ids: true in its model.yaml"
                    .into()
            }
            Self::Text { error, .. } => error.hint(),
            Self::Dimensions { .. } => "leave dimensions out for all values, or ask for fewer".into(),
            Self::Refused(error) => error.hint(),
            Self::Failed(error) => error.hint(),
            Self::Late => Failure::Late.hint(),
            Self::WrongTask { notice: Some(notice), .. } => notice.mend.clone().into(),
            Self::WrongTask { .. } => "use POST /v2/models/{model}/infer for tensors, or another model".into(),
            Self::Internal(_) => "report this with the request id and the server's log".into(),
        }
    }
}
