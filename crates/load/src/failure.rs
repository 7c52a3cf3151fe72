//! Ways in which a request gets no answer.

use std::{error::Error, fmt, io};

use rustix::io::Errno;
use serde::Serialize;

/// Why a request got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Nobody listened.
    Refused,
    /// Its time was over.
    Timeout,
    /// The connection broke before the answer was whole.
    Reset,
    /// The machine of the generator had no socket left: its limit, not the server's.
    OwnLimit,
    /// Anything else, such as an answer that is no HTTP.
    Other,
}

impl FailureKind {
    /// Its name in reports.
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
    pub(crate) words: String,
}

impl Failure {
    pub(crate) fn timeout(seconds: f64) -> Self {
        Self { kind: FailureKind::Timeout, words: format!("no answer within {seconds} s") }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.words)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self { kind: kind_of(&error), words: error.to_string() }
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        let mut source: Option<&(dyn Error + 'static)> = Some(&error);
        let mut words = Vec::new();
        let mut kind = None;
        while let Some(cause) = source {
            words.push(cause.to_string());
            kind = kind.or_else(|| cause.downcast_ref::<io::Error>().map(kind_of));
            source = cause.source();
        }
        let broken = error.is_incomplete_message() || error.is_canceled() || error.is_closed();
        let otherwise = if broken { FailureKind::Reset } else { FailureKind::Other };
        Self { kind: kind.unwrap_or(otherwise), words: words.join(": ") }
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
    fn what_the_kernel_says_is_sorted() {
        let kind = |errno: Errno| Failure::from(io::Error::from(errno)).kind;
        assert_eq!(kind(Errno::CONNREFUSED), FailureKind::Refused);
        assert_eq!(kind(Errno::CONNRESET), FailureKind::Reset);
        assert_eq!(kind(Errno::PIPE), FailureKind::Reset);
        assert_eq!(kind(Errno::TIMEDOUT), FailureKind::Timeout);
        assert_eq!(kind(Errno::MFILE), FailureKind::OwnLimit);
        assert_eq!(kind(Errno::INVAL), FailureKind::Other);
    }
}
