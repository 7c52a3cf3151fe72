//! A run, held by whoever began it, and what came of it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::broadcast;

use crate::{
    budget::Usage,
    error::RunError,
    live::Live,
    log::{Entry, Event, Log, Place, StepChange},
    run::Prompt,
    value::{Map, Value},
};

/// How a run came to its end, for now or for good.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It gave this.
    Completed(Value),
    /// It waits for somebody.
    Paused(Vec<Prompt>),
    /// It did not.
    Failed(RunError),
}

/// A run that came to its end, for now or for good.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Its name.
    pub id: Arc<str>,
    /// How it ended.
    pub outcome: Outcome,
    /// What it knew in the end.
    pub context: Map,
    /// How long it took.
    pub took: Duration,
    /// What it spent.
    pub usage: Usage,
    /// Its steps.
    pub entries: Vec<Entry>,
}

impl Ran {
    /// What it gave.
    pub fn output(self) -> Result<Value, RunError> {
        match self.outcome {
            Outcome::Completed(value) => Ok(value),
            Outcome::Paused(_) => Err(RunError::State("paused")),
            Outcome::Failed(error) => Err(error),
        }
    }
}

/// A hold on a run that goes on.
#[derive(Clone)]
pub struct Handle {
    live: Arc<Live>,
}

impl Handle {
    pub(super) fn new(live: Arc<Live>) -> Self {
        Self { live }
    }

    /// The run's name.
    pub fn id(&self) -> &Arc<str> {
        &self.live.id
    }

    /// Which pipeline it is of.
    pub(crate) fn pipeline(&self) -> &Arc<str> {
        &self.live.pipeline
    }

    /// Breaks the run off.
    pub fn cancel(&self) {
        self.live.cancel();
    }

    /// Whether it is kept.
    pub(crate) fn is_kept(&self) -> bool {
        self.live.journal.is_some()
    }

    /// Leaves the run where it is: it is paused, asks nobody, and goes on when it is resumed. One that is not kept is
    /// broken off.
    pub fn pause(&self) {
        self.live.pause();
    }

    /// What stands in its log so far, and what happens from now on.
    pub fn watch(&self) -> (Vec<Entry>, broadcast::Receiver<Event>) {
        self.live.log.watch()
    }

    /// One entry of its log, by its number.
    pub fn entry_at(&self, number: usize) -> Option<Entry> {
        self.live.log.entry(Place::at(number))
    }

    /// The steps that began or ended after the change of a number: see [`Log::changes_after`].
    pub fn changes_after(&self, number: u64) -> Vec<StepChange> {
        self.live.log.changes_after(number)
    }

    /// Whether it has come to its end.
    pub fn over(&self) -> bool {
        self.live.over()
    }

    /// Its log.
    pub fn log(&self) -> &Log {
        &self.live.log
    }
}

/// A run that has been begun: a future of how it ends. Dropped, it is broken off.
pub struct Run {
    handle: Handle,
    work: BoxFuture<'static, Ran>,
}

impl Run {
    pub(super) fn new(live: Arc<Live>, work: BoxFuture<'static, Ran>) -> Self {
        Self { handle: Handle::new(live), work }
    }

    /// A hold on it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Its name.
    pub fn id(&self) -> &Arc<str> {
        self.handle.id()
    }
}

impl Future for Run {
    type Output = Ran;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ran> {
        self.work.poll_unpin(context)
    }
}
