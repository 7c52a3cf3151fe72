//! Errors of load generation.

use std::{borrow::Cow, io, path::PathBuf};

use caudal_types::{ErrorKind, Explain};

/// An error that prevents a load from being sent.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The URL is not the URL of a server.
    #[error("invalid URL {url:?}: {reason}")]
    Url {
        /// The given URL.
        url: String,
        /// The fault in it.
        reason: String,
    },
    /// The server does not accept connections or does not respond.
    #[error("cannot reach {url}: {reason}")]
    Unreachable {
        /// The server.
        url: String,
        /// The cause.
        reason: String,
    },
    /// A line of a trace is not an arrival.
    #[error("invalid trace: line {line}: {reason}")]
    Line {
        /// Line number, from 1.
        line: usize,
        /// The fault in it.
        reason: String,
    },
    /// The trace has no requests that can be replayed.
    #[error("nothing to replay: {0}")]
    NothingToSend(String),
    /// A value is out of its bounds.
    #[error("{what} is {given}; expected {bounds}")]
    Bounds {
        /// Name of the value.
        what: &'static str,
        /// The given value.
        given: String,
        /// The allowed values.
        bounds: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file has no valid request body.
    #[error("{}: {reason}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// The fault in it.
        reason: String,
    },
    /// A file has no valid CA certificates.
    #[error("no trusted certificates in {}: {reason}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// The fault in it.
        reason: String,
    },
    /// The generator itself failed.
    #[error("the load generator failed: {0}")]
    Generator(String),
}

impl LoadError {
    pub(crate) fn out_of_bounds(what: &'static str, given: impl ToString, bounds: impl Into<String>) -> Self {
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
            Self::Url { .. } => "use a URL such as http://127.0.0.1:8000 or https://ai.example".into(),
            Self::Unreachable { .. } => "start the server with `caudal serve`, or name another one with --url".into(),
            Self::Line { .. } => "use the output of GET /admin/requests/trace?format=arrivals".into(),
            Self::NothingToSend(_) => "record a trace while models are serving requests".into(),
            Self::Bounds { .. } => "choose another value".into(),
            Self::File { .. } => "name a file that exists and can be read".into(),
            Self::Authorities { .. } => "provide the PEM certificate of the authority that signed the server's".into(),
            Self::Input { .. } => "use an image, a text (.txt), or a request body with tensors or texts (.json)".into(),
            Self::Generator(_) => "try again; if it fails again, report a bug in Caudal".into(),
        }
    }
}
