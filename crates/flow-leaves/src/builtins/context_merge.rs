//! `context_merge`: an object joined with what stands at a place of the context.

use caudal_flow::{Answer, Call, Registry, StepError, Value};

use super::{context_set::Settings, paths};
use crate::plain::quick;

const ABOUT: &str = "Merges the object `value`, or the input, into the object at `path` of the context; where both \
                    have a name, the new value wins. Use it with updates_context: it returns an object of the \
                    changes.";

pub(super) fn register(registry: &mut Registry) {
    quick::<Settings>(registry, "context_merge", ABOUT, work);
}

fn work(_: &Value, settings: &Settings, call: &Call) -> Answer {
    let (path, value) = settings.target(call)?;
    let Some(more) = value.as_map() else {
        let message = format!("an object is joined with the context, not {}", value.sort());
        return Err(StepError::input(message).hint("use context_set for what is no object").for_good());
    };
    let context = Value::Map(call.context.clone());
    let there = paths::get(&context, &path).and_then(Value::as_map).cloned().unwrap_or_default();
    Ok(paths::put(&call.context, &path, there.merged(more).into()).unwrap_or_default().into())
}
