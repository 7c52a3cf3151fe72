//! Why no load could be sent.

use std::{borrow::Cow, io, path::PathBuf};

use caudal_types::{ErrorKind, Explain};

/// Why no load could be sent.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The URL names no server that we could ask.
    #[error("{url:?} is no URL of a server: {reason}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody listens there, or nobody who answers.
    #[error("{url} cannot be reached: {reason}")]
    Unreachable {
        /// The server.
        url: String,
        /// What the connection said.
        reason: String,
    },
    /// A line of a trace is no arrival.
    #[error("line {line} of the trace: {reason}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The trace holds nothing that could be sent again.
    #[error("nothing of the trace can be sent again: {0}")]
    NothingToSend(String),
    /// A figure beyond its bounds.
    #[error("{what} is {given}; it is {bounds}")]
    Bounds {
        /// Which.
        what: &'static str,
        /// As given.
        given: String,
        /// What it may be.
        bounds: String,
    },
    /// A file cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds nothing that can be sent.
    #[error("{}: {reason}", path.display())]
    Input {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file of authorities' certificates is not one.
    #[error("{} has no certificates in PEM that can be trusted: {reason}", path.display())]
    Authorities {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The generator itself failed.
    #[error("the load generator failed: {0}")]
    Generator(String),
}

impl LoadError {
    pub(crate) fn bounds(what: &'static str, given: impl ToString, bounds: impl Into<String>) -> Self {
        Self::Bounds { what, given: given.to_string(), bounds: bounds.into() }
    }
}

impl Explain for LoadError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Url { .. } | Self::Bounds { .. } | Self::Authorities { .. } => ErrorKind::InvalidParameter,
            Self::Line { .. } | Self::NothingToSend(_) | Self::Input { .. } => ErrorKind::InvalidRequest,
            Self::Unreachable { .. } | Self::File { .. } => ErrorKind::NotFound,
            Self::Generator(_) => ErrorKind::Internal,
        }
    }

    fn hint(&self) -> Cow<'static, str> {
        match self {
            Self::Url { .. } => "it is one such as http://127.0.0.1:8000 or https://ai.example".into(),
            Self::Unreachable { .. } => "start it with `caudal serve`, or name another with --url".into(),
            Self::Line { .. } => "a trace is what GET /admin/requests/trace?format=arrivals answers".into(),
            Self::NothingToSend(_) => "record while requests for models are served".into(),
            Self::Bounds { .. } => "choose another value".into(),
            Self::File { .. } => "name a file that exists and may be read".into(),
            Self::Authorities { .. } => "give the certificate of the authority that signed the server's, in PEM".into(),
            Self::Input { .. } => "give pictures, texts (.txt), or bodies of tensors or embeddings (.json)".into(),
            Self::Generator(_) => "run it again; if it happens again, it is a fault of Caudal".into(),
        }
    }
}
