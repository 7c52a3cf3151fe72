//! How steps are run. One way for all: a step begins, is given its input, is tried, and ends; what differs is in
//! between (`kinds`).

mod again;
mod kinds;
mod leaf;
mod merge;
mod one;
mod reduce;
mod search;
mod states;
mod talk;

use std::{sync::Arc, time::Duration};

use caudal_types::Deadline;
use futures_util::future::BoxFuture;

pub(crate) use self::leaf::panicked;
use self::states::{Left, Within};
use crate::{
    budget::Quota,
    error::{Fault, RunError, StepError},
    live::Live,
    log::{Label, Place},
    step::{Kind, Step, Steps},
    value::{Map, Value},
};

/// Steps that are done at once after which others on the thread get their turn.
const TURN: u32 = 128;
/// Milliseconds that a run may keep a thread before other runs get it.
const TURN_MS: u32 = 5;

/// Milliseconds, as far as they fit: differences are right all the same.
fn millis(time: Duration) -> u32 {
    time.as_millis() as u32
}

/// What a run was given, for whoever asks the context.
pub(crate) const PROMPT: &str = "initial_prompt";

/// Where a run is: what goes from step to step.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// What the last step gave.
    pub(crate) value: Value,
    /// What the run knows.
    pub(crate) context: Map,
    /// When the last step ended, from the run's start: to end one step is to begin the next, so there is no gap.
    pub(crate) moment: Duration,
    /// Steps since others on the thread had their turn.
    pub(crate) turn: u32,
    /// When they had it, from the run's start, in milliseconds.
    pub(crate) rested: u32,
}

/// What holds for the steps within a step.
#[derive(Clone)]
pub(crate) struct Scope {
    pub(crate) place: Place,
    pub(crate) quota: Option<Arc<Quota>>,
    pub(crate) deadline: Deadline,
    /// The state of a state machine around, if it may be left when somebody has answered.
    pub(crate) within: Option<Arc<Within>>,
}

impl Scope {
    /// The same within another entry of the log.
    pub(crate) fn at(&self, place: Place) -> Self {
        Self { place, ..self.clone() }
    }
}

/// Why steps did not come to their end.
#[derive(Debug, Clone)]
pub(crate) enum Stop {
    /// A step failed.
    Failed(Box<(Arc<str>, StepError)>),
    /// Somebody is asked.
    Paused(Vec<Prompt>),
    /// A state is left before its end.
    Left(Box<Left>),
    /// The run was cancelled.
    Cancelled,
    /// The run is left where it is.
    Interrupted,
    /// The run itself cannot go on.
    Broken(Box<RunError>),
}

impl Stop {
    pub(crate) fn failed(step: impl Into<Arc<str>>, error: StepError) -> Self {
        Self::Failed(Box::new((step.into(), error)))
    }

    /// Whether another run would have been stopped by it as well: not by this run's end, its time, or what it may spend.
    pub(crate) fn is_the_steps(&self) -> bool {
        matches!(self, Self::Failed(failed) if !matches!(failed.1.fault, Fault::Budget | Fault::TimedOut))
    }
}

impl From<RunError> for Stop {
    fn from(error: RunError) -> Self {
        Self::Broken(Box::new(error))
    }
}

/// What somebody is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Which step asks.
    pub path: Arc<str>,
    /// What.
    pub message: Value,
    /// What answers are taken: a JSON schema, or `null`.
    pub schema: Value,
    /// Why the answer that was given is none.
    pub refused: Option<Arc<str>>,
}

/// What comes of steps.
pub(crate) type Went = Result<State, Stop>;

/// Runs steps one after the other.
pub(crate) async fn steps(live: &Arc<Live>, steps: &Steps, scope: &Scope, mut state: State) -> Went {
    for step in steps.iter() {
        live.may_go_on()?;
        state = match (&step.kind, &step.policy, &live.journal) {
            // What needs nothing but its function is spared the rest.
            (Kind::Act(action), None, None) => match leaf::quick(live, step, &**action, scope, state) {
                leaf::Quick::Done(went) => went?,
                leaf::Quick::Later(later) => later.await?,
            },
            _ => one::one(live, step, scope, state).await?,
        };
        state.turn += 1;
        if state.turn >= TURN || millis(state.moment).wrapping_sub(state.rested) >= TURN_MS {
            tokio::task::yield_now().await;
            (state.turn, state.rested) = (0, millis(live.log.now()));
        }
    }
    Ok(state)
}

/// Runs steps under an entry of their own: a branch, a turn, an item.
pub(crate) fn under<'a>(
    live: &'a Arc<Live>,
    label: Label,
    kind: &'static str,
    body: &'a Steps,
    scope: &'a Scope,
    state: State,
) -> BoxFuture<'a, Went> {
    inside(live, live.log.begin(scope.place, label, kind, state.moment), body, scope, state)
}

/// Runs steps under an entry that has begun.
pub(crate) fn inside<'a>(
    live: &'a Arc<Live>,
    place: Place,
    body: &'a Steps,
    scope: &'a Scope,
    state: State,
) -> BoxFuture<'a, Went> {
    let scope = scope.at(place);
    Box::pin(async move {
        let went = steps(live, body, &scope, state).await;
        end(live, place, &went);
        went
    })
}

/// Runs a step under an entry of its own and gives its output alone.
async fn apart(live: &Arc<Live>, label: String, step: &Step, scope: &Scope, state: State) -> Result<Value, Stop> {
    live.may_go_on()?;
    let place = live.log.begin(scope.place, Label::Name(label.into()), "node", live.log.now());
    let went = one::one(live, step, &scope.at(place), state).await;
    end(live, place, &went);
    went?.value.plain().map_err(|error| Stop::failed("", StepError::failed(error.to_string())))
}

/// Notes how an entry ended.
pub(crate) fn end(live: &Live, place: Place, went: &Went) {
    use crate::log::Status;
    match went {
        Ok(state) => live.log.end(place, state.moment, Status::Completed, state.value.clone(), None),
        Err(Stop::Left(left)) => live.log.end(place, live.log.now(), Status::Completed, left.state.value.clone(), None),
        Err(Stop::Failed(failed)) => live.log.end(place, live.log.now(), Status::Failed, Value::Null, Some(&failed.1)),
        Err(Stop::Paused(_)) => live.log.end(place, live.log.now(), Status::Paused, Value::Null, None),
        Err(Stop::Cancelled | Stop::Interrupted | Stop::Broken(_)) => {
            live.log.end(place, live.log.now(), Status::Cancelled, Value::Null, None);
        }
    }
}
