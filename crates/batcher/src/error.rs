//! Why a queue says no, and how an admitted entry can still fail.

use std::{borrow::Cow, time::Duration};

use caudal_types::{ErrorKind, Explain};

/// No seat was given; nothing was done and nothing waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too many entries wait.
    #[error("{limit} requests already wait for this model")]
    Full {
        /// Most entries that may wait.
        limit: usize,
        /// When a place is likely to be free.
        retry_after: Duration,
    },
    /// What waits holds too many bytes.
    #[error("requests that wait for this model already hold {limit} bytes")]
    FullOfBytes {
        /// Most bytes that may wait.
        limit: usize,
        /// When a place is likely to be free.
        retry_after: Duration,
    },
    /// The answer would come too late.
    #[error("the answer would take about {} ms, longer than its deadline allows", .predicted.as_millis())]
    DeadlineUnreachable {
        /// How long the answer would take.
        predicted: Duration,
        /// When a new try has a chance.
        retry_after: Duration,
    },
    /// The queue is closing.
    #[error("the server is shutting down")]
    Closed,
}

impl Refusal {
    /// When a new try has a chance.
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
            Self::Full { .. } => "try again after Retry-After, send fewer at once, or raise max_queue_size",
            Self::FullOfBytes { .. } => "try again after Retry-After, send fewer at once, or raise max_queue_mb",
            Self::DeadlineUnreachable { .. } => "try again after Retry-After, or allow a longer timeout",
            Self::Closed => "send the request to another instance of the server",
        }
        .into()
    }
}

/// An admitted entry got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Its deadline passed while it waited.
    #[error("the answer could not be ready by its deadline")]
    Late,
    /// It waited longer than entries of its priority may.
    #[error("the request waited longer than requests of its priority may")]
    Expired,
    /// The model failed on this entry, run by itself.
    #[error("the model failed on this input: {0}")]
    Failed(String),
    /// Everyone who waited for the run had gone.
    #[error("the run was stopped because nobody waited for it")]
    Abandoned,
    /// The instances are gone.
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
            Self::Late => "allow a longer timeout_ms, or send fewer requests at once",
            Self::Expired => "try again when there is less to do, or give it a higher priority",
            Self::Failed(_) => "check the input against what the model takes: GET /v2/models/{model}",
            Self::Abandoned => "keep the connection open until the answer is there",
            Self::Closed => "send the request to another instance of the server",
        }
        .into()
    }
}
