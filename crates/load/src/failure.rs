//! Requests without a response, by cause.

use std::{error::Error, fmt, io};

use rustix::io::Errno;
use serde::Serialize;

/// Reason for which a request got no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The connection was refused.
    Refused,
    /// The request timed out.
    Timeout,
    /// The connection was closed before the response was complete.
    Reset,
    /// The generator's machine had no socket left: a limit of the client, not of the server.
    OwnLimit,
    /// Anything else, such as a response that is not HTTP.
    Other,
}

impl FailureKind {
    /// Name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::OwnLimit => "own_limit",
            Self::Other => "other",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn timed_out(seconds: f64) -> Self {
        Self { kind: FailureKind::Timeout, message: format!("no response within {seconds} s") }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.message)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self { kind: kind_of(&error), message: error.to_string() }
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        let mut source: Option<&(dyn Error + 'static)> = Some(&error);
        let mut messages = Vec::new();
        let mut kind = None;
        while let Some(cause) = source {
            messages.push(cause.to_string());
            kind = kind.or_else(|| cause.downcast_ref::<io::Error>().map(kind_of));
            source = cause.source();
        }
        let broken = error.is_incomplete_message() || error.is_canceled() || error.is_closed();
        let otherwise = if broken { FailureKind::Reset } else { FailureKind::Other };
        Self { kind: kind.unwrap_or(otherwise), message: messages.join(": ") }
    }
}

fn kind_of(error: &io::Error) -> FailureKind {
    use io::ErrorKind as Kind;
    if let Some(Errno::MFILE | Errno::NFILE | Errno::ADDRNOTAVAIL) = Errno::from_io_error(error) {
        return FailureKind::OwnLimit;
    }
    match error.kind() {
        Kind::ConnectionRefused => FailureKind::Refused,
        Kind::TimedOut => FailureKind::Timeout,
        Kind::ConnectionReset
        | Kind::ConnectionAborted
        | Kind::BrokenPipe
        | Kind::NotConnected
        | Kind::UnexpectedEof => FailureKind::Reset,
        _ => FailureKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_kind_follows_the_errno() {
        let kind = |errno: Errno| Failure::from(io::Error::from(errno)).kind;
        assert_eq!(kind(Errno::CONNREFUSED), FailureKind::Refused);
        assert_eq!(kind(Errno::CONNRESET), FailureKind::Reset);
        assert_eq!(kind(Errno::PIPE), FailureKind::Reset);
        assert_eq!(kind(Errno::TIMEDOUT), FailureKind::Timeout);
        assert_eq!(kind(Errno::MFILE), FailureKind::OwnLimit);
        assert_eq!(kind(Errno::INVAL), FailureKind::Other);
    }
}
