//! A run while it goes on: what all its steps share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use caudal_types::Deadline;
use tokio::sync::Notify;

use crate::{
    engine::Parts,
    error::{Fault, StepError},
    journal::Journal,
    log::{Log, Place},
    run::Stop,
    step::Definition,
};

/// What all steps of a run share.
pub(crate) struct Live {
    pub(crate) id: Arc<str>,
    pub(crate) pipeline: Arc<str>,
    pub(crate) log: Log,
    pub(crate) deadline: Deadline,
    pub(crate) parts: Arc<Parts>,
    /// Where each step is kept before the next begins.
    pub(crate) journal: Option<Journal>,
    cancelled: AtomicBool,
    over: AtomicBool,
    wake: Notify,
}

impl Live {
    pub(crate) fn new(
        id: Arc<str>,
        definition: &Definition,
        start: Instant,
        deadline: Deadline,
        parts: Arc<Parts>,
        journal: Option<Journal>,
    ) -> Self {
        Self {
            id,
            pipeline: Arc::clone(&definition.name),
            log: Log::new(start, definition.steps.len()),
            deadline,
            parts,
            journal,
            cancelled: AtomicBool::new(false),
            over: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Breaks the run off.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
        self.wake.notify_one();
    }

    /// The run has come to its end: what has not ended is broken off.
    pub(crate) fn end(&self) {
        self.log.close();
        self.over.store(true, Relaxed);
    }

    pub(crate) fn over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// Comes when the run is broken off.
    pub(crate) async fn cancelled(&self) {
        while !self.cancelled.load(Relaxed) {
            self.wake.notified().await;
        }
    }

    /// Whether another step may begin. Steps that are done at once never wait, so it is asked between them.
    pub(crate) fn may_go_on(&self) -> Result<(), Stop> {
        if self.cancelled.load(Relaxed) {
            return Err(Stop::Cancelled);
        }
        let most = self.parts.most_steps;
        if self.log.len() < most {
            return Ok(());
        }
        let error = StepError::new(Fault::Budget, format!("the run has taken {most} steps"));
        Err(Stop::failed("", error.hint("end its loops sooner, or raise flow_max_steps").for_good()))
    }

    /// The name of a place.
    pub(crate) fn path(&self, place: Place) -> String {
        self.log.path(place)
    }
}
