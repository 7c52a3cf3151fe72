//! What a step does: the contract of a leaf.

use std::sync::Arc;

use caudal_types::Deadline;
use futures_util::future::BoxFuture;

use crate::{
    budget::{Limits, Quota, Reservation, Usage},
    error::StepError,
    live::Live,
    log::Place,
    value::{Map, Value},
    view::View,
};

/// What comes of a step.
pub type Answer = Result<Value, StepError>;

/// A step's answer, now or later.
pub enum Outcome<'a> {
    /// It is there.
    Done(Answer),
    /// It comes. Dropping the future is to cancel the work.
    Later(BoxFuture<'a, Answer>),
}

/// What a step does.
///
/// It is shared by all runs, and may run in many at once. What takes longer than half a millisecond and does not wait is
/// done aside, on a thread of its own.
pub trait Action: Send + Sync + 'static {
    /// What makes it the same as another: everything but the input and the context that its answer depends on, such as a
    /// model's name, a prompt, parameters. Answers are cached by it.
    fn identity(&self) -> Value;

    /// Does it.
    fn start(&self, call: Call) -> Outcome<'_>;

    /// Whether an answer may stand for another call's with the same identity, input and context.
    fn repeatable(&self) -> bool {
        true
    }
}

/// What a step is called with.
pub struct Call {
    /// What the step before gave, or what the step's `input` says.
    pub input: Value,
    /// What the run knows.
    pub context: Map,
    /// After which nobody waits for the answer.
    pub deadline: Deadline,
    /// Which try this is, from 1.
    pub attempt: u32,
    pub(crate) place: Place,
    pub(crate) quota: Option<Arc<Quota>>,
    pub(crate) live: Arc<Live>,
}

impl Call {
    /// The run's name.
    pub fn run(&self) -> &str {
        self.live.id()
    }

    /// A name for this very step of this very run, the same however often it is tried or resumed: whoever is asked to do
    /// something once can know by it that it was done.
    pub fn key(&self) -> String {
        format!("{}/{}", self.live.id(), self.live.log.path(self.place))
    }

    /// What went wrong the last time, where a validator said so.
    pub fn feedback(&self) -> Option<Arc<str>> {
        self.live.log.feedback(self.place)
    }

    /// Sets `most` aside before it is spent; refused if less is left.
    pub fn reserve(&self, most: Usage) -> Result<Aside, StepError> {
        let reservation = self.quota.as_ref().map_or(Ok(Reservation::FREE), |quota| quota.reserve(most))?;
        Ok(Aside { reservation, place: self.place, live: Arc::clone(&self.live) })
    }

    /// What may still be set aside; `None` where nothing is limited.
    pub fn left(&self) -> Limits {
        self.quota.as_ref().map_or_else(Limits::default, |quota| quota.left())
    }

    /// Whether `most` could be set aside once other steps have given back what they do not spend.
    pub fn may_reserve_later(&self, most: Usage) -> bool {
        self.quota.as_ref().is_some_and(|quota| quota.may_reserve_later(most))
    }

    /// A part of the answer, for whoever watches.
    pub fn say(&self, part: &str) {
        self.live.log.say(self.place, part);
    }

    /// What expressions and templates see.
    pub fn view(&self) -> View<'_> {
        View { output: &self.input, context: &self.context, log: Some((&self.live.log, self.place)), resumed: None }
    }
}

/// What a step has set aside. Dropped, all of it is given back.
pub struct Aside {
    reservation: Reservation,
    place: Place,
    live: Arc<Live>,
}

impl Aside {
    /// What was spent in truth.
    pub fn settle(self, spent: Usage) {
        self.live.log.spend(self.place, spent);
        self.reservation.settle(spent);
    }
}

impl Action for Arc<dyn Action> {
    fn identity(&self) -> Value {
        (**self).identity()
    }

    fn start(&self, call: Call) -> Outcome<'_> {
        (**self).start(call)
    }

    fn repeatable(&self) -> bool {
        (**self).repeatable()
    }
}
