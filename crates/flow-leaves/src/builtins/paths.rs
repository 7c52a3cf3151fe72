//! Places in a value: names with points between.

use caudal_flow::{Map, Value};

/// The names of a path; `context.` before them may be left out.
fn names(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix("context.").unwrap_or(path).split('.').filter(|name| !name.is_empty())
}

/// What stands there; in a list, a number is a place.
pub(super) fn get<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    names(path).try_fold(value, |value, name| match value {
        Value::List(values) => values.get(name.parse::<usize>().ok()?),
        other => other.get(name),
    })
}

/// The part of `context` that changes where `value` is put at `path`: its first name, with all that stands under it. What
/// is no object on the way becomes one.
pub(super) fn put(context: &Map, path: &str, value: Value) -> Option<Map> {
    fn within(map: &Map, names: &[&str], value: Value) -> Value {
        let Some((name, rest)) = names.split_first() else { return value };
        let inner = map.get(name).and_then(Value::as_map).cloned().unwrap_or_default();
        Value::Map(map.with(name, within(&inner, rest, value)))
    }
    let names: Vec<&str> = names(path).collect();
    let (first, rest) = names.split_first()?;
    let inner = context.get(first).and_then(Value::as_map).cloned().unwrap_or_default();
    Some(Map::default().with(first, within(&inner, rest, value)))
}

/// Refuses a path without a name.
pub(super) fn check(path: Option<&str>) -> Result<&str, caudal_flow::StepError> {
    path.filter(|path| names(path).next().is_some()).ok_or_else(|| {
        let error = caudal_flow::StepError::input("nobody says which place of the context is meant");
        error.hint("say path: names with points between, such as settings.theme").for_good()
    })
}
