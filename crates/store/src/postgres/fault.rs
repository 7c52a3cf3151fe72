//! What PostgreSQL's faults are to us.

use std::{borrow::Cow, error::Error as _};

use deadpool_postgres::{HookError, PoolError};
use tokio_postgres::{Error, error::SqlState};

use crate::error::StoreError;

/// A fault, and whether the group that met it was certainly not committed and may be tried again at once.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) error: StoreError,
    pub(super) again: bool,
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self { error, again: false }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        // Two who wait for each other, and one who saw too old a state.
        let again = matches!(error.code().map(SqlState::code), Some("40001" | "40P01"));
        Self { error: fault(error), again }
    }
}

pub(super) fn fault(error: Error) -> StoreError {
    let Some(told) = error.as_db_error() else {
        let words = match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        return StoreError::Unreachable(words);
    };
    let code = told.code().code();
    let words = format!("{} (PostgreSQL {code})", told.message());
    match code {
        "53100" => StoreError::DiskFull,
        "23505" => StoreError::Duplicate,
        "25006" | "42501" => StoreError::ReadOnly(words),
        "XX001" | "XX002" => StoreError::Damaged(words),
        "58030" | "58P01" | "58P02" => StoreError::Io(words),
        // Of lock_timeout and statement_timeout: somebody else is in the way, or the machine is too slow.
        "55P03" | "57014" | "25P03" => StoreError::Unreachable(words),
        // Connections, shutdowns, too many connections or too little memory, logins, and those who wait for each other.
        code if ["08", "57", "53", "28", "3D", "40"].iter().any(|class| code.starts_with(class)) => {
            StoreError::Unreachable(words)
        }
        _ => StoreError::Io(words),
    }
}

/// What it is to us that the pool has no connection to give.
pub(super) fn none_free(error: PoolError) -> StoreError {
    match error {
        PoolError::Backend(error) => fault(error),
        PoolError::PostCreateHook(HookError::Backend(error)) => fault(error),
        // What the server is not fit for is said in words of our own (pool.rs).
        PoolError::PostCreateHook(HookError::Message(Cow::Borrowed(words))) => StoreError::Unsupported(words),
        PoolError::Closed => StoreError::Closed,
        error => StoreError::Unreachable(error.to_string()),
    }
}
