//! `extract_from_text`: JSON, or a field, out of a text such as a model writes.

use caudal_flow::{Answer, Call, Fault, Registry, StepError, Value};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{paths, text};
use crate::{plain::plain, settings::arguments};

const ABOUT: &str = "Finds the first JSON object or list in a text (`text`) and ignores the text around it. With \
                    `field`, returns the value of that field in it, or the value after `name:` on a line of its own.";

/// Places at which JSON may begin that are tried.
const TRIES: usize = 256;

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The field to return: names separated by dots.
    #[serde(default)]
    field: Option<String>,
    /// Value to return if nothing is found; without it, the step fails.
    #[serde(default)]
    #[schemars(with = "Option<serde_json::Value>")]
    default: Option<Value>,
}

pub(super) fn register(registry: &mut Registry) {
    plain::<Settings>(registry, "extract_from_text", ABOUT, work);
}

fn work(said: &Value, settings: &Settings, call: &Call) -> Answer {
    let (settings, input) = arguments(said, settings, &call.input, "text", &["field", "default"])?;
    // What is an object already needs no looking for.
    let within = match &input {
        Value::Map(_) | Value::List(_) => Some(input.clone()),
        _ => json(&text(&input)),
    };
    let found = match &settings.field {
        None => within,
        Some(field) => {
            within.as_ref().and_then(|json| paths::get(json, field).cloned()).or_else(|| line(&text(&input), field))
        }
    };
    found.or(settings.default).ok_or_else(|| {
        let what = settings.field.map_or_else(|| "no JSON".to_owned(), |field| format!("no field {field:?}"));
        let error = StepError::new(Fault::Input, format!("the text has {what}"));
        error.hint("say what to give then: default").for_good()
    })
}

/// The first object or list in a text.
fn json(text: &str) -> Option<Value> {
    let begins = text.match_indices(['{', '[']).take(TRIES);
    let mut read = begins.map(|(place, _)| {
        let mut values = serde_json::Deserializer::from_str(&text[place..]).into_iter::<Value>();
        values.next().and_then(Result::ok)
    });
    read.find_map(|found| found)
}

/// What stands behind a name in a line of its own.
fn line(text: &str, name: &str) -> Option<Value> {
    let found = text.lines().find_map(|line| {
        let line = line.trim().trim_start_matches(['-', '*', ' ']);
        let (own, value) = line.split_once([':', '='])?;
        own.trim_matches(['*', '"', ' ']).eq_ignore_ascii_case(name).then(|| value.trim_matches(['*', ' ']))
    })?;
    Some(Value::from_json(found.as_bytes()).unwrap_or_else(|_| Value::text(found)))
}
