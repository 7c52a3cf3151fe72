//! A run while it goes on: what all its steps share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering::Relaxed},
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

/// Whether a run goes on.
const GO_ON: u8 = 0;
const PAUSE: u8 = 1;
const CANCEL: u8 = 2;

/// What all steps of a run share.
pub(crate) struct Live {
    pub(crate) id: Arc<str>,
    pub(crate) pipeline: Arc<str>,
    pub(crate) log: Log,
    pub(crate) deadline: Deadline,
    pub(crate) parts: Arc<Parts>,
    /// Where each step is kept before the next begins.
    pub(crate) journal: Option<Journal>,
    stop: AtomicU8,
    /// Whether the process ends, so that another one is to recover the run.
    leaving: AtomicBool,
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
            stop: AtomicU8::new(GO_ON),
            leaving: AtomicBool::new(false),
            over: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Breaks the run off.
    pub(crate) fn cancel(&self) {
        self.stop.store(CANCEL, Relaxed);
        self.wake.notify_one();
    }

    /// Leaves the run where it is, to be taken up by whoever wants to; one that is not kept is broken off.
    pub(crate) fn pause(&self) {
        let stop = if self.journal.is_some() { PAUSE } else { CANCEL };
        // What was cancelled stays so.
        self.stop.fetch_max(stop, Relaxed);
        self.wake.notify_one();
    }

    /// Leaves the run where it is because the process ends: the next one recovers it.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Relaxed);
        self.pause();
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Relaxed)
    }

    /// Why the run does not go on, if it does not.
    fn stopped(&self) -> Option<Stop> {
        match self.stop.load(Relaxed) {
            GO_ON => None,
            PAUSE => Some(Stop::Interrupted),
            _ => Some(Stop::Cancelled),
        }
    }

    /// The run has come to its end: what has not ended is broken off.
    pub(crate) fn end(&self) {
        self.log.close();
        self.over.store(true, Relaxed);
    }

    pub(crate) fn over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// Comes when the run is broken off or left.
    pub(crate) async fn stops(&self) -> Stop {
        loop {
            if let Some(stop) = self.stopped() {
                return stop;
            }
            self.wake.notified().await;
        }
    }

    /// Whether another step may begin. Steps that are done at once never wait, so it is asked between them.
    pub(crate) fn may_go_on(&self) -> Result<(), Stop> {
        if let Some(stop) = self.stopped() {
            return Err(stop);
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
