//! Errors of profiling.

use std::{borrow::Cow, io};

use caudal_types::{ErrorKind, Explain};

/// An error that prevents a profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The process is already being profiled.
    #[error("a CPU profile is already running")]
    Busy,
    /// The sampling rate is out of its bounds.
    #[error("hz is {hz}; expected a whole number from 1 to {most}")]
    Rate {
        /// The requested rate.
        hz: u32,
        /// The maximum rate.
        most: u32,
    },
    /// The process does not allocate with jemalloc.
    #[error("heap profiles are not available: this build lacks the feature jemalloc")]
    NoAllocator,
    /// jemalloc does not sample allocations.
    #[error("heap profiles are not available: jemalloc's profiling is off")]
    Off,
    /// A system call failed.
    #[error("profiling failed: {0}")]
    System(#[from] io::Error),
    /// A file is not a profile in a known format.
    #[error("not a profile: {0}")]
    Unreadable(String),
}

impl Explain for ProfileError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Busy => ErrorKind::ProfileRunning,
            Self::Rate { .. } | Self::Unreadable(_) => ErrorKind::InvalidParameter,
            Self::NoAllocator | Self::Off => ErrorKind::NotBuiltIn,
            Self::System(_) => ErrorKind::Internal,
        }
    }

    fn hint(&self) -> Cow<'static, str> {
        match self {
            Self::Busy => "wait until it has finished: a process has only one profiling signal",
            Self::Rate { .. } => "use 100",
            Self::NoAllocator => "build with --features jemalloc, which is the default",
            Self::Off => "start the process without prof:false in MALLOC_CONF",
            Self::System(_) => "see the server's log",
            Self::Unreadable(_) => "pass collapsed stacks, or pprof as `--format pprof` writes it",
        }
        .into()
    }
}
