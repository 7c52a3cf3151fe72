//! Why there is no profile.

use std::{borrow::Cow, io};

use caudal_types::{ErrorKind, Explain};

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The process is being sampled already.
    #[error("a CPU profile is being taken already")]
    Busy,
    /// More or fewer samples a second than we take.
    #[error("hz is a whole number from 1 to {most}, not {hz}")]
    Rate {
        /// What was asked for.
        hz: u32,
        /// What can be.
        most: u32,
    },
    /// The process allocates by something else than jemalloc.
    #[error("this build cannot tell who holds which memory: it was built without the feature jemalloc")]
    NoAllocator,
    /// jemalloc is there and does not sample.
    #[error("jemalloc does not sample what is allocated: its profiling is off")]
    Off,
    /// The kernel did not do what a profile needs.
    #[error("the process could not be profiled: {0}")]
    System(#[from] io::Error),
    /// A file is no profile that we read.
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
            Self::Busy => "wait until it is done: a process has one profiling signal",
            Self::Rate { .. } => "100 is a good choice",
            Self::NoAllocator => "build it with --features jemalloc, which is the default",
            Self::Off => "start the process without prof:false in MALLOC_CONF",
            Self::System(_) => "see the server's log",
            Self::Unreadable(_) => "pass collapsed stacks, or pprof as `--format pprof` writes it",
        }
        .into()
    }
}
