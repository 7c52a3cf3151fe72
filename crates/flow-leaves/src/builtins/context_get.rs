//! `context_get`: what stands at a place of the context.

use caudal_flow::{Answer, Call, Registry, Value};
use schemars::JsonSchema;
use serde::Deserialize;

use super::paths;
use crate::{plain::quick, settings};

const ABOUT: &str = "Returns the value at `path` in the context (names separated by dots), or `default` if there is \
                    none. Both may also be given in the input.";

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Path in the context: names separated by dots.
    #[serde(default)]
    path: Option<String>,
    /// Value to return if the path does not exist.
    #[serde(default)]
    #[schemars(with = "serde_json::Value")]
    default: Value,
}

pub(super) fn register(registry: &mut Registry) {
    quick::<Settings>(registry, "context_get", ABOUT, work);
}

fn work(said: &Value, settings: &Settings, call: &Call) -> Answer {
    let (mut settings, path) = settings::arguments(said, settings, &call.input, "path", &["default"])?;
    // An input that is no object of arguments is what the step before gave, or the path alone.
    let asked = call.input.get("path").or(Some(&path).filter(|_| settings.path.is_none()));
    settings.path = asked.and_then(Value::as_text).map(str::to_owned).or(settings.path);
    let context = Value::Map(call.context.clone());
    let found = paths::get(&context, paths::check(settings.path.as_deref())?);
    Ok(found.cloned().unwrap_or(settings.default))
}
