//! Errors of a queue: refusals at admission and failures of admitted entries.

use std::{borrow::Cow, time::Duration};

use caudal_types::{ErrorKind, Explain};

/// No permit was given; no work was done and nothing is queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too many entries wait.
    #[error("{limit} requests already wait for this model")]
    Full {
        /// The limit of waiting entries.
        limit: usize,
        /// Time after which a place is likely to be free.
        retry_after: Duration,
    },
    /// The waiting entries hold too many bytes.
    #[error("requests that wait for this model already hold {limit} bytes")]
    FullOfBytes {
        /// The limit of their bytes.
        limit: usize,
        /// Time after which a place is likely to be free.
        retry_after: Duration,
    },
    /// The deadline would pass before the answer.
    #[error("the answer would take about {} ms, longer than its deadline allows", .predicted.as_millis())]
    DeadlineUnreachable {
        /// The predicted time to the answer.
        predicted: Duration,
        /// Time after which a retry may succeed.
        retry_after: Duration,
    },
    /// The queue is closing.
    #[error("the server is shutting down")]
    Closed,
}

impl Refusal {
    /// Time after which a retry may succeed.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Full { retry_after, .. }
            | Self::FullOfBytes { retry_after, .. }
            | Self::DeadlineUnreachable { retry_after, .. } => Some(*retry_after),
            Self::Closed => None,
        }
    }
}

impl Explain for Refusal {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Full { .. } | Self::FullOfBytes { .. } => ErrorKind::QueueFull,
            Self::DeadlineUnreachable { .. } => ErrorKind::DeadlineUnreachable,
            Self::Closed => ErrorKind::ShuttingDown,
        }
    }

    fn hint(&self) -> Cow<'static, str> {
        match self {
            Self::Full { .. } => {
                "try again after Retry-After, send fewer requests concurrently, or raise max_queue_size"
            }
            Self::FullOfBytes { .. } => {
                "try again after Retry-After, send fewer requests concurrently, or raise max_queue_mb"
            }
            Self::DeadlineUnreachable { .. } => "try again after Retry-After, or allow a longer timeout",
            Self::Closed => "send the request to another instance of the server",
        }
        .into()
    }
}

/// An admitted entry was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Its deadline passed while it waited.
    #[error("the answer could not be ready by its deadline")]
    Late,
    /// It waited longer than its priority allows.
    #[error("the request waited longer than requests of its priority may")]
    Expired,
    /// The model failed on this entry in a run of its own.
    #[error("the model failed on this input: {0}")]
    Failed(String),
    /// All clients of the run have disconnected.
    #[error("the run was interrupted because no client waited for it")]
    Abandoned,
    /// The instances have ended.
    #[error("the server is shutting down")]
    Closed,
}

impl Explain for Failure {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Late => ErrorKind::DeadlineExceeded,
            Self::Expired => ErrorKind::QueueTimeout,
            Self::Failed(_) => ErrorKind::InferenceFailed,
            Self::Abandoned => ErrorKind::ClientGone,
            Self::Closed => ErrorKind::ShuttingDown,
        }
    }

    fn hint(&self) -> Cow<'static, str> {
        match self {
            Self::Late => "allow a longer timeout_ms, or send fewer requests concurrently",
            Self::Expired => "try again when the load is lower, or give the request a higher priority",
            Self::Failed(_) => "check the input against the model's inputs: GET /v2/models/{model}",
            Self::Abandoned => "keep the connection open until the response arrives",
            Self::Closed => "send the request to another instance of the server",
        }
        .into()
    }
}
