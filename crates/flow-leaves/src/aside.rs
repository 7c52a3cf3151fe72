//! Work that would keep others waiting is done on a thread of its own.

use caudal_flow::{Fault, StepError};

/// Bytes that are worked through where they are.
pub(crate) const SMALL: usize = 64 << 10;

/// Does `work` on `bytes` bytes, aside if these are many.
pub(crate) async fn aside<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, StepError> + Send + 'static,
) -> Result<T, StepError> {
    if bytes <= SMALL {
        return work();
    }
    let broken =
        |error: tokio::task::JoinError| StepError::new(Fault::Panicked, format!("the work broke off: {error}"));
    tokio::task::spawn_blocking(work).await.map_err(broken)?
}
