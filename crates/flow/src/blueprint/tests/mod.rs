//! Files that are read, run and refused.

mod drawings;
mod findings;
mod guards;
mod hostile;
mod runs;
mod talk;

use std::{collections::BTreeMap, sync::Arc};

use super::{Blueprint, Finding};
use crate::{Call, Definition, Leaf, Registry, StepError, Undefined, Value, action::Answer, functions, value};

fn leaf(registry: &mut Registry, name: &'static str, function: fn(&Call) -> Answer) {
    registry.action(name, "a leaf of a test", functions::function(name, function));
}

/// Leaves that tests can follow by eye.
fn registry() -> Registry {
    let mut registry = Registry::default();
    leaf(&mut registry, "passthrough", |call| Ok(call.input.clone()));
    leaf(&mut registry, "module:double", |call| Ok(Value::from(call.input.as_i64().unwrap_or_default() * 2)));
    leaf(&mut registry, "upper", |call| Ok(call.input.as_text().unwrap_or_default().to_uppercase().into()));
    leaf(&mut registry, "fail", |_| Err(StepError::failed("it always fails").for_good()));
    leaf(&mut registry, "second_try", |call| match call.attempt {
        1 => Err(StepError::failed("not yet")),
        attempt => Ok(attempt.into()),
    });
    leaf(&mut registry, "grow", |call| {
        let text = call.input.as_text().unwrap_or_default();
        Ok(value!([format!("{text}a"), format!("{text}b")]))
    });
    leaf(&mut registry, "count_b", |call| {
        let text = call.input.as_text().unwrap_or_default();
        Ok(Value::from(text.matches('b').count() as f64 / 3.0))
    });
    // Likes b, but not what was asked for.
    leaf(&mut registry, "liked", |call| {
        let solution = call.input.get("solution").and_then(Value::as_text).unwrap_or_default();
        let asked = call.input.get("task").and_then(Value::as_text) == Some(solution);
        Ok(value!({"score": if asked { -1 } else { solution.matches('b').count() as i64 }}))
    });
    leaf(&mut registry, "plan", |call| {
        Ok(match call.input.get("history").and_then(Value::as_list).map(<[Value]>::len) {
            Some(0) => value!({"type": "run_agent", "agent_name": "shout", "input_data": "hello"}),
            _ => Value::Map(
                [
                    ("type", Value::from("finish")),
                    ("final_answer", call.input.get("history").cloned().unwrap_or_default()),
                ]
                .into_iter()
                .collect(),
            ),
        })
    });
    let told = |settings: &Value, _: Undefined| {
        let settings = settings.clone();
        let function = move |call: &Call| Ok(Value::list([settings.clone(), call.input.clone()]));
        Ok(functions::function("llm", function))
    };
    let settings = value!({"type": "object", "required": ["model"], "properties": {"model": {"type": "string"}}});
    registry.add("llm", Leaf { about: "tells what it was told", settings, make: Arc::new(told) });
    let settings = value!({"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": false});
    let add = |settings: &Value, _: Undefined| {
        let more = settings.get("n").and_then(Value::as_i64).unwrap_or(1);
        let function = move |call: &Call| Ok(Value::from(call.input.as_i64().unwrap_or_default() + more));
        Ok(functions::function("add", function))
    };
    registry.add("add", Leaf { about: "adds n", settings, make: Arc::new(add) });
    registry
}

fn files(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn read(text: &str) -> Result<(Definition, Vec<Finding>), Vec<Finding>> {
    Blueprint::read(text, &(), &registry())
}

#[track_caller]
fn good(text: &str) -> Definition {
    match read(text) {
        Ok((definition, _)) => definition,
        Err(findings) => panic!("{}", findings.iter().map(|finding| format!("{finding}\n")).collect::<String>()),
    }
}
