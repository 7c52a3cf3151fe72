//! What travels with a request the whole way.

use std::{future::Future, time::Instant};

use caudal_types::{Deadline, Priority, Trace};

/// A request on its way: how urgent it is, until when it matters, where its time went.
#[derive(Debug, Clone)]
pub struct Call {
    /// Who goes first.
    pub priority: Priority,
    /// When its answer stops being worth anything.
    pub deadline: Deadline,
    /// Its way so far.
    pub trace: Trace,
}

impl Call {
    /// A call that began at `start` and asks for nothing special.
    pub fn new(start: Instant) -> Self {
        Self { priority: Priority::default(), deadline: Deadline::NEVER, trace: Trace::new(start) }
    }
}

/// Awaits `work` until `deadline`, wherever it waits then: for bytes, for memory, for a decode thread, in the queue
/// or for the model. What it holds is given back at once, and `late` is the answer.
///
/// The tasks of this room do not watch the clock themselves: whoever calls them does, once, around everything.
pub async fn within<T, E>(
    deadline: Deadline,
    late: impl FnOnce() -> E,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match deadline.moment() {
        None => work.await,
        Some(moment) if moment <= Instant::now() => Err(late()),
        Some(moment) => match tokio::time::timeout_at(moment.into(), work).await {
            // The answer may have become ready in the very moment in which it was late.
            Ok(Ok(_)) if moment <= Instant::now() => Err(late()),
            Ok(done) => done,
            Err(_) => Err(late()),
        },
    }
}
