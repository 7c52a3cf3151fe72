//! A leaf is run: its panics are its own.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use futures_util::{FutureExt, future::BoxFuture};

use super::{Scope, State, Stop, Went};
use crate::{
    action::{Action, Answer, Call, Outcome},
    error::{Fault, StepError},
    live::Live,
    log::{Place, Status},
    step::Step,
    value::Value,
};

/// What comes of a leaf that needs nothing but its function.
pub(super) enum Quick<'a> {
    Done(Went),
    Later(BoxFuture<'a, Went>),
}

fn call(live: &Arc<Live>, scope: &Scope, place: Place, state: &State, attempt: u32) -> Call {
    Call {
        input: state.value.clone(),
        context: state.context.clone(),
        deadline: scope.deadline,
        attempt,
        place,
        quota: scope.quota.clone(),
        live: Arc::clone(live),
    }
}

/// What panicked, as a failure.
pub(crate) fn panicked(what: &(dyn Any + Send)) -> StepError {
    let words = what
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| what.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a word");
    StepError::new(Fault::Panicked, format!("the step panicked: {words}"))
}

fn start(action: &dyn Action, call: Call) -> Outcome<'_> {
    catch_unwind(AssertUnwindSafe(|| action.start(call))).unwrap_or_else(|what| Outcome::Done(Err(panicked(&*what))))
}

/// What a step gave, if it can go on.
fn bounded(answer: Answer) -> Answer {
    let value = answer?;
    value.check_bounds()?;
    Ok(value)
}

async fn later(answer: BoxFuture<'_, Answer>) -> Answer {
    AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|what| Err(panicked(&*what)))
}

/// Runs a leaf within an entry that there is already.
pub(super) async fn act(live: &Arc<Live>, action: &dyn Action, scope: &Scope, state: &State, attempt: u32) -> Answer {
    bounded(match start(action, call(live, scope, scope.place, state, attempt)) {
        Outcome::Done(answer) => answer,
        Outcome::Later(answer) => later(answer).await,
    })
}

/// Runs a leaf that needs nothing but its function.
pub(super) fn quick<'a>(
    live: &'a Arc<Live>,
    step: &'a Step,
    action: &'a dyn Action,
    scope: &Scope,
    state: State,
) -> Quick<'a> {
    if let Some(quota) = &scope.quota
        && let Err(refusal) = quota.step()
    {
        return Quick::Done(Err(Stop::failed(Arc::clone(&step.name), refusal.into())));
    }
    let place = live.log.begin(scope.place, step.label.clone(), "step", state.moment);
    match start(action, call(live, scope, place, &state, 1)) {
        Outcome::Done(answer) => Quick::Done(ended(live, step, place, state, answer)),
        Outcome::Later(answer) => {
            Quick::Later(Box::pin(async move { ended(live, step, place, state, later(answer).await) }))
        }
    }
}

fn ended(live: &Live, step: &Step, place: Place, state: State, answer: Answer) -> Went {
    let moment = live.log.now();
    match bounded(answer) {
        Ok(value) => {
            live.log.end(place, moment, Status::Completed, value.clone(), None);
            Ok(State { value, moment, ..state })
        }
        Err(error) => {
            live.log.end(place, moment, Status::Failed, Value::Null, Some(&error));
            Err(Stop::failed(Arc::clone(&step.name), error))
        }
    }
}
