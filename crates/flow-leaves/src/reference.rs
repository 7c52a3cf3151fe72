//! Reference page of the actions, generated from their descriptions and settings.

use std::fmt::Write as _;

use caudal_flow::{Leaf, Map, Registry, Value};

use crate::plain::ALIAS;

const HEAD: &str = "# Pipeline actions\n\n\
    The actions that steps of pipelines can run. `uses` names an action and `with` holds its settings, as listed below. \
    Text in settings may contain expressions in `{{ }}`. Each action is also registered as `flujo.builtins.NAME`, its name \
    in Flujo's blueprints.\n";

/// The actions of `registry` with their descriptions and settings, by name.
pub fn reference(registry: &Registry) -> String {
    let mut text = HEAD.to_owned();
    for (name, leaf) in registry.iter().filter(|(name, _)| !name.starts_with(ALIAS)) {
        // Writing to a text does not fail.
        let _ = write!(text, "\n## {name}\n\n{}\n", leaf.about);
        settings(&mut text, leaf);
    }
    text
}

fn settings(text: &mut String, leaf: &Leaf) {
    let Some(properties) = leaf.settings.get("properties").and_then(Value::as_map).filter(|all| !all.is_empty()) else {
        return;
    };
    let must = leaf.settings.get("required").and_then(Value::as_list).unwrap_or_default();
    text.push_str("\n| setting | type | meaning |\n|---|---|---|\n");
    for (name, schema) in properties {
        let about = schema.get("description").and_then(Value::as_text).unwrap_or_default();
        let sort = sort(schema, &leaf.settings).unwrap_or_else(|| "any value".to_owned());
        let needed = if must.iter().any(|own| own.as_text() == Some(name)) { ", required" } else { "" };
        let _ = writeln!(text, "| `{name}` | {sort}{needed} | {} |", about.replace('\n', " "));
    }
}

/// Of which sort a setting is, for people.
fn sort(schema: &Value, root: &Value) -> Option<String> {
    let joined = |all: &[Value], each: &dyn Fn(&Value) -> Option<String>| {
        let all: Vec<String> = all.iter().filter_map(each).filter(|sort| sort != "null").collect();
        (!all.is_empty()).then(|| all.join(", "))
    };
    let word = |value: &Value| value.as_text().map(|text| format!("`{text}`"));
    let map: &Map = schema.as_map()?;
    if let Some(name) = map.get("$ref").and_then(Value::as_text).and_then(|name| name.strip_prefix("#/$defs/")) {
        return sort(root.get("$defs")?.get(name)?, root);
    }
    if let Some(one) = map.get("const") {
        return word(one);
    }
    if let Some(Value::List(all)) = map.get("enum") {
        return joined(all, &word);
    }
    if let Some(Value::List(all)) = map.get("oneOf").or_else(|| map.get("anyOf")) {
        return joined(all, &|one| sort(one, root));
    }
    let plain = match map.get("type")? {
        Value::List(all) => joined(all, &|one| one.as_text().map(str::to_owned))?,
        one => one.as_text()?.to_owned(),
    };
    match map.get("items").and_then(|items| sort(items, root)) {
        Some(items) => Some(format!("list of {items}")),
        None => Some(plain),
    }
}
