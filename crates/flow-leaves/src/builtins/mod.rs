//! Small things between the steps that matter, as Flujo's users know them: texts, lists, tables, the context.

mod aggregate;
mod check_user_confirmation;
mod context_get;
mod context_merge;
mod context_set;
mod extract_from_text;
mod fail;
mod flatten;
mod now;
mod passthrough;
mod paths;
mod select_fields;
mod sleep;
mod stringify;
mod to_csv;

use caudal_flow::{Map, Registry, Value};

/// Adds all of them.
pub(crate) fn register(registry: &mut Registry) {
    aggregate::register(registry);
    check_user_confirmation::register(registry);
    context_get::register(registry);
    context_merge::register(registry);
    context_set::register(registry);
    extract_from_text::register(registry);
    fail::register(registry);
    flatten::register(registry);
    now::register(registry);
    passthrough::register(registry);
    select_fields::register(registry);
    sleep::register(registry);
    stringify::register(registry);
    to_csv::register(registry);
}

/// Settings of a leaf of which nothing may be said.
#[derive(Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// The objects of a table: a list of them, or a single one.
fn objects(value: &Value) -> Option<Vec<&Map>> {
    match value {
        Value::Map(map) => Some(vec![map]),
        Value::List(values) => values.iter().map(Value::as_map).collect(),
        _ => None,
    }
}

/// A value as a text: a text as it is, bytes as UTF-8, all else as JSON.
fn text(value: &Value) -> String {
    match value {
        Value::Text(text) => text.to_string(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => other.to_json(),
    }
}
