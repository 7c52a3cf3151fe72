//! Places in the context: names with points between.

use crate::value::{Map, Value};

/// The names of a path; `context.` before them may be left out.
fn names(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix("context.").unwrap_or(path).split('.')
}

/// What stands there.
pub(crate) fn get<'a>(context: &'a Map, path: &str) -> Option<&'a Value> {
    let mut names = names(path);
    let first = context.get(names.next()?);
    names.try_fold(first?, |value, name| value.get(name))
}

/// The same with `value` there; what is no object on the way becomes one.
#[must_use]
pub(crate) fn set(context: &Map, path: &str, value: Value) -> Map {
    fn put(map: &Map, names: &[&str], value: Value) -> Map {
        let Some((name, rest)) = names.split_first() else { return map.clone() };
        if rest.is_empty() {
            return map.with(name, value);
        }
        let within = map.get(name).and_then(Value::as_map).cloned().unwrap_or_default();
        map.with(name, Value::Map(put(&within, rest, value)))
    }
    put(context, &names(path).collect::<Vec<_>>(), value)
}
