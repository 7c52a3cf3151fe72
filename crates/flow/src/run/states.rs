//! State machines: states, of which each leads to the next.

use std::sync::Arc;

use super::{Scope, State, Stop, Went, kinds::own, one, under};
use crate::{
    error::StepError,
    live::Live,
    log::{Label, Place},
    step::{Machine, On},
    value::Value,
};

/// A state that may be left when somebody has answered in it.
pub(crate) struct Within {
    machine: Arc<Machine>,
    place: Place,
    at: Arc<str>,
}

/// A state that is left before its end.
#[derive(Debug, Clone)]
pub(crate) struct Left {
    /// Where its machine is.
    place: Place,
    to: Arc<str>,
    pub(crate) state: State,
}

/// Passes from state to state.
pub(super) async fn pass(live: &Arc<Live>, machine: &Arc<Machine>, scope: &Scope, mut state: State) -> Went {
    let mut at = Arc::clone(&machine.start);
    for turn in 0..machine.most {
        live.may_go_on()?;
        let Some((_, body)) = machine.states.iter().find(|(name, _)| *name == at) else {
            let message = format!("there is no state {at}");
            return Err(own(StepError::failed(message).hint("add it to states").for_good()));
        };
        let label = Label::Name(if turn == 0 { Arc::clone(&at) } else { format!("{at}#{}", turn + 1).into() });
        let went = under(live, label, "state", body, &inside(machine, scope, &at), state.clone()).await;
        let failed = match went {
            Ok(after) => {
                after.value.check_bounds().map_err(|deep| own(deep.into()))?;
                state = after;
                None
            }
            Err(Stop::Failed(failed)) => Some(failed),
            Err(Stop::Left(left)) if left.place == scope.place => {
                (at, state) = (left.to, left.state);
                continue;
            }
            Err(stop) => return Err(stop),
        };
        if failed.is_none() && machine.ends.contains(&at) {
            return Ok(state);
        }
        let on = if failed.is_some() { On::Failure } else { On::Success };
        let to = match (lead(live, machine, scope.place, &at, on, &state)?, &failed) {
            (None, None) => named(&at, &state),
            (to, _) => to,
        };
        match (to, failed) {
            (Some(to), _) => at = to,
            (None, Some(failed)) => return Err(Stop::Failed(failed)),
            (None, None) => return Ok(state),
        }
    }
    let message = format!("{} states were passed, and none was an end", machine.most);
    Err(own(StepError::failed(message).hint("add an end state or a transition to it").for_good()))
}

/// What holds within the state `at`.
fn inside(machine: &Arc<Machine>, scope: &Scope, at: &Arc<str>) -> Scope {
    let leads = |from: &Option<Arc<str>>| from.as_ref().is_none_or(|from| from == at);
    if !machine.transitions.iter().any(|transition| transition.on == On::Pause && leads(&transition.from)) {
        return scope.clone();
    }
    let within = Within { machine: Arc::clone(machine), place: scope.place, at: Arc::clone(at) };
    Scope { within: Some(Arc::new(within)), ..scope.clone() }
}

/// Somebody has answered: the state around may lead on from there.
pub(super) fn answered(live: &Live, scope: &Scope, state: State) -> Went {
    let Some(Within { machine, place, at }) = scope.within.as_deref() else { return Ok(state) };
    Err(match lead(live, machine, scope.place, at, On::Pause, &state)? {
        Some(to) => Stop::Left(Box::new(Left { place: *place, to, state })),
        None => return Ok(state),
    })
}

/// Where transitions lead from the state `at`: the first that fits.
fn lead(
    live: &Live,
    machine: &Machine,
    place: Place,
    at: &Arc<str>,
    on: On,
    state: &State,
) -> Result<Option<Arc<str>>, Stop> {
    let view = one::view(live, place, state);
    for transition in &machine.transitions {
        let here = transition.from.as_ref().is_none_or(|from| from == at) && transition.on == on;
        let holds = match &transition.when {
            Some(when) if here => when.value(&view).map_err(own)?.truthy(),
            _ => true,
        };
        if here && holds {
            return Ok(Some(Arc::clone(&transition.to)));
        }
    }
    Ok(None)
}

/// The next state, as the context names it, which may still name this one, or as the state's output does.
fn named(at: &Arc<str>, state: &State) -> Option<Arc<str>> {
    let context = state.context.get("next_state").and_then(Value::as_text).filter(|name| **name != **at);
    let output = || state.value.get("next_state").and_then(Value::as_text);
    context.or_else(output).map(Arc::from)
}
