//! Loops: the same again until it is enough.

use std::sync::Arc;

use super::{Scope, State, Stop, Went, inside, kinds::own, one, talk};
use crate::{
    error::StepError,
    live::Live,
    log::Label,
    paths,
    step::{Change, How, Loop, Propagate},
    value::Value,
};

fn change(live: &Live, scope: &Scope, state: &mut State, changes: &[Change]) -> Result<(), Stop> {
    for change in changes {
        let value = change.value.value(&one::view(live, scope.place, state)).map_err(own)?;
        let there = paths::get(&state.context, &change.path);
        let value = match (change.how, there, value) {
            (How::Append, Some(Value::List(list)), value) => Value::list(list.iter().cloned().chain([value])),
            (How::Append, None | Some(Value::Null), value) => Value::list([value]),
            (How::Merge, Some(Value::Map(map)), Value::Map(value)) => Value::Map(map.merged(&value)),
            (How::Set | How::Merge, _, value) => value,
            (How::Append, Some(other), _) => {
                let message = format!("{} is {}, and nothing can be appended to it", change.path, other.sort());
                return Err(own(StepError::failed(message).hint("set it to a list first").for_good()));
            }
        };
        value.check_bounds().map_err(|deep| own(deep.into()))?;
        state.context = paths::set(&state.context, &change.path, value);
    }
    Ok(())
}

pub(super) async fn repeat(live: &Arc<Live>, again: &Loop, scope: &Scope, mut state: State) -> Went {
    change(live, scope, &mut state, &again.init)?;
    if let Some(first) = &again.first {
        state.value = first.value(&one::view(live, scope.place, &state)).map_err(own)?;
    }
    let said = again.talk.as_deref();
    talk::begin(said, &mut state).map_err(own)?;
    let mut enough = again.until.is_none();
    for turn in 0..again.most {
        live.may_go_on()?;
        let place = live.log.begin(scope.place, Label::Number(turn), "turn", state.moment);
        state = inside(live, place, &again.body, scope, state).await?;
        talk::add(said, live, place, &mut state).map_err(own)?;
        change(live, scope, &mut state, &again.state)?;
        let view = one::view(live, scope.place, &state);
        if let Some(until) = &again.until
            && until.value(&view).map_err(own)?.truthy()
        {
            enough = true;
            break;
        }
        if turn + 1 < again.most {
            state.value = match &again.next {
                Propagate::Output => state.value.clone(),
                Propagate::Context => Value::Map(state.context.clone()),
                Propagate::Rule(rule) => rule.value(&view).map_err(own)?,
            };
        }
        state.value.check_bounds().map_err(|deep| own(deep.into()))?;
    }
    if again.must_end && !enough {
        let message = format!("{} turns were not enough", again.most);
        return Err(own(StepError::failed(message).hint("raise max_loops, or mend the exit condition").for_good()));
    }
    if let Some(output) = &again.output {
        state.value = output.value(&one::view(live, scope.place, &state)).map_err(own)?;
    }
    Ok(state)
}
