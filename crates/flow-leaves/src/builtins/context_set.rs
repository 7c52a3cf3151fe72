//! `context_set`: something put at a place of the context.

use caudal_flow::{Answer, Call, Registry, Value};
use schemars::JsonSchema;
use serde::Deserialize;

use super::paths;
use crate::plain::quick;

const ABOUT: &str = "Sets `path` of the context (names separated by dots) to `value`, or to the input. Use it with \
                    updates_context: it returns an object of the changes. Both may also be given in the input.";

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    /// Path in the context: names separated by dots.
    #[serde(default)]
    pub(super) path: Option<String>,
    /// The new value; default: the input.
    #[serde(default)]
    #[schemars(with = "Option<serde_json::Value>")]
    pub(super) value: Option<Value>,
}

impl Settings {
    /// Where something is put, and what: as the settings say, else as the input says.
    pub(super) fn target(&self, call: &Call) -> Result<(String, Value), caudal_flow::StepError> {
        let said = |name: &str| call.input.get(name).filter(|_| call.input.get("path").is_some());
        let path = self.path.as_deref().or_else(|| said("path").and_then(Value::as_text));
        let value = self.value.as_ref().or_else(|| said("value")).unwrap_or(&call.input);
        Ok((paths::check(path)?.to_owned(), value.clone()))
    }
}

pub(super) fn register(registry: &mut Registry) {
    quick::<Settings>(registry, "context_set", ABOUT, work);
}

fn work(_: &Value, settings: &Settings, call: &Call) -> Answer {
    let (path, value) = settings.target(call)?;
    Ok(paths::put(&call.context, &path, value).unwrap_or_default().into())
}
