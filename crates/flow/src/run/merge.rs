//! What becomes of branches: of their contexts one.

use std::sync::Arc;

use super::State;
use crate::{
    error::StepError,
    step::Merge,
    value::{Map, Value},
};

/// What of `after` is not in `before`, or is otherwise there.
pub(super) fn changes(before: &Map, after: &Map) -> Map {
    if before.same(after) {
        return Map::default();
    }
    after.iter().filter(|(name, value)| before.get(name) != Some(value)).cloned().collect()
}

/// The part of a context that branches see: the names that `keys` lists, or all of it where none are listed.
pub(super) fn seen_by_branches(keys: &[Arc<str>], context: &Map) -> Map {
    if keys.is_empty() {
        return context.clone();
    }
    context.iter().filter(|(name, _)| keys.contains(name)).cloned().collect()
}

/// Makes one context of those of the branches that did not fail. A branch's changes are those to the part of `before`
/// that it saw; under `overwrite`, only names in `keys` come back, where any are listed.
pub(super) fn contexts(
    rule: Merge,
    keys: &[Arc<str>],
    before: &Map,
    branches: &[(Arc<str>, State)],
) -> Result<Map, StepError> {
    let seen = seen_by_branches(keys, before);
    let changed: Vec<(&Arc<str>, Map)> =
        branches.iter().map(|(name, state)| (name, changes(&seen, &state.context))).collect();
    match rule {
        Merge::NoMerge => Ok(before.clone()),
        Merge::Overwrite => {
            Ok(changed.last().map_or_else(|| before.clone(), |(_, last)| before.merged(&seen_by_branches(keys, last))))
        }
        Merge::KeepFirst => Ok(changed.iter().fold(before.clone(), |context, (_, changed)| {
            let new = changed.iter().filter(|(name, _)| context.get(name).is_none_or(|value| *value == Value::Null));
            context.merged(&new.cloned().collect())
        })),
        Merge::ErrorOnConflict => changed.iter().try_fold(before.clone(), |context, (branch, changed)| {
            for (name, value) in changed {
                if let Some(there) = context.get(name).filter(|there| **there != Value::Null && *there != value) {
                    return Err(conflict(name, branch, there, value));
                }
            }
            Ok(context.merged(changed))
        }),
        Merge::ContextUpdate => {
            let mut merged = Map::default();
            for (branch, changed) in &changed {
                for (name, value) in changed {
                    let value = match merged.get(name) {
                        Some(other) => {
                            both(seen.get(name), other, value).ok_or_else(|| conflict(name, branch, other, value))?
                        }
                        None => value.clone(),
                    };
                    merged = merged.with(name, value);
                }
            }
            Ok(before.merged(&merged))
        }
    }
}

/// Two branches changed one thing: of objects, what each has changed within.
fn both(before: Option<&Value>, first: &Value, second: &Value) -> Option<Value> {
    if first == second {
        return Some(first.clone());
    }
    let (Value::Map(first), Value::Map(second)) = (first, second) else { return None };
    let empty = Map::default();
    let before = before.and_then(Value::as_map).unwrap_or(&empty);
    let mut merged = first.clone();
    for (name, was) in before.iter().filter(|(name, _)| second.get(name).is_none()) {
        match first.get(name) {
            Some(other) if other == was => merged = merged.without(name),
            // One has taken away what the other has changed.
            Some(_) => return None,
            None => {}
        }
    }
    for (name, value) in second {
        let (was, other) = (before.get(name), first.get(name));
        if was == Some(value) {
            continue;
        }
        let value = match other {
            Some(other) if was != Some(other) => both(was, other, value)?,
            None if was.is_some() => return None,
            _ => value.clone(),
        };
        merged = merged.with(name, value);
    }
    Some(Value::Map(merged))
}

fn conflict(name: &str, branch: &str, there: &Value, value: &Value) -> StepError {
    let short = |value: &Value| caudal_types::shorten(&value.to_json()).into_owned();
    let message = format!("{branch} sets context.{name} to {}, and it is {} already", short(value), short(there));
    StepError::failed(message).hint("let the branches set different names, or choose another merge_strategy").for_good()
}
