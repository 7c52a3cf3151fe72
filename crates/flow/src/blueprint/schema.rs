//! The JSON schema of files, for editors: made from the table by which files are read.

use serde_json::{Map, Value, json};

use super::keys::{FILE, Form, KINDS, Key, STEP};

/// The JSON schema of files.
pub fn schema() -> Value {
    let kinds: Vec<Value> = KINDS.iter().map(|(kind, keys)| of_kind(kind, keys)).collect();
    let mut file = section(FILE, &["steps"]);
    file["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    file["title"] = "Pipeline".into();
    file["$defs"] = json!({
        "step": { "type": "object", "oneOf": kinds },
        "steps": { "anyOf": [
            { "type": "array", "items": { "$ref": "#/$defs/step" } },
            { "type": "object", "required": ["steps"], "properties": { "steps": { "$ref": "#/$defs/steps" } } },
            { "$ref": "#/$defs/step" },
        ] },
    });
    file
}

fn of_kind(kind: &str, keys: &[Key]) -> Value {
    let mut step = object(STEP.iter().chain(keys));
    step["properties"]["kind"] = json!({ "const": kind, "description": STEP[0].about });
    step["anyOf"] = json!([{ "required": ["name"] }, { "required": ["step"] }]);
    if kind != "step" {
        step["required"] = json!(["kind"]);
    }
    step
}

fn section(keys: &[Key], required: &[&str]) -> Value {
    let mut section = object(keys.iter());
    if !required.is_empty() {
        section["required"] = json!(required);
    }
    section
}

fn object<'a>(keys: impl Iterator<Item = &'a Key>) -> Value {
    let properties: Map<String, Value> = keys
        .map(|key| {
            let mut form = of(key.form);
            form["description"] = key.about.into();
            (key.name.to_owned(), form)
        })
        .collect();
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

fn of(form: Form) -> Value {
    match form {
        Form::Text | Form::Expression => json!({ "type": ["string", "number", "boolean"] }),
        Form::Template | Form::Any => json!({}),
        Form::Bool => json!({ "type": "boolean" }),
        Form::Count => json!({ "type": ["integer", "string"], "minimum": 0 }),
        Form::Number => json!({ "type": ["number", "string"], "minimum": 0 }),
        // Files are read whatever the case of these words is; editors offer them as they are written.
        Form::OneOf(texts) => json!({ "enum": versions(texts) }),
        Form::Names => json!({ "type": "array", "items": { "type": "string" } }),
        Form::TextsByName => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Form::Schema => json!({ "type": ["object", "boolean"] }),
        Form::Section(keys) => section(keys, &[]),
        Form::TextOr(keys) => json!({ "anyOf": [{ "type": "string" }, section(keys, &[])] }),
        Form::SectionsByName(keys) => json!({ "type": "object", "additionalProperties": section(keys, &[]) }),
        Form::Sections(keys) => json!({ "type": "array", "items": section(keys, &[]) }),
        Form::Step => json!({ "$ref": "#/$defs/step" }),
        Form::Steps => json!({ "$ref": "#/$defs/steps" }),
        Form::Branches => json!({ "type": "object", "additionalProperties": { "$ref": "#/$defs/steps" } }),
        Form::Leaf => json!({ "anyOf": [
            { "type": "string" },
            { "type": "object", "required": ["id"], "properties": { "id": { "type": "string" }, "params": {} } },
        ] }),
    }
}

/// A version may be written as a number.
fn versions(texts: &[&str]) -> Vec<Value> {
    let numbers = texts.iter().filter_map(|text| text.parse::<f64>().ok()).map(Value::from);
    texts.iter().map(|text| Value::from(*text)).chain(numbers).collect()
}
