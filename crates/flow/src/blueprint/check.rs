//! Checks of values: JSON schemas, and expressions that must hold.

use std::sync::Arc;

use jsonschema::Validator;

use crate::{
    step::{Check, Formula},
    value::{Map, Value},
    view::View,
    words::Expression,
};

/// A check by a JSON schema. What it refers to is within it: nothing is fetched.
pub struct Schema {
    validator: Validator,
    schema: Value,
}

impl Schema {
    /// The schema that is written there. `Err` tells what is wrong with it.
    pub fn new(schema: &Value) -> Result<Self, String> {
        let json = serde_json::Value::from(schema);
        let validator = jsonschema::validator_for(&json).map_err(|error| error.to_string())?;
        Ok(Self { validator, schema: schema.clone() })
    }
}

impl Check for Schema {
    fn check(&self, value: &Value) -> Result<(), String> {
        let json = serde_json::Value::from(value);
        let Some(error) = self.validator.iter_errors(&json).next() else { return Ok(()) };
        let place = error.instance_path().to_string();
        let place = if place.is_empty() { String::new() } else { format!("at {place}: ") };
        Err(format!("{place}{}", caudal_types::shorten(&error.to_string())))
    }

    fn identity(&self) -> Value {
        self.schema.clone()
    }
}

/// An expression that must hold of the value: `output`.
pub(super) struct Holds(pub(super) Expression);

impl Check for Holds {
    fn check(&self, value: &Value) -> Result<(), String> {
        let context = Map::default();
        match self.0.value(&View::of(value, &context)) {
            Ok(holds) if holds.truthy() => Ok(()),
            Ok(_) => Err(format!("`{}` does not hold", caudal_types::shorten(self.0.source()))),
            Err(error) => Err(error.message.into_owned()),
        }
    }

    fn identity(&self) -> Value {
        self.0.identity()
    }
}

/// All of several rules.
pub(super) struct All(pub(super) Vec<Arc<dyn Formula>>);

impl Formula for All {
    fn value(&self, view: &View<'_>) -> Result<Value, crate::StepError> {
        for rule in &self.0 {
            if !rule.value(view)?.truthy() {
                return Ok(false.into());
            }
        }
        Ok(true.into())
    }

    fn identity(&self) -> Value {
        Value::list(self.0.iter().map(|rule| rule.identity()))
    }
}

/// A rule whose text is read as JSON, as Flujo has it for what is merged.
pub(super) struct Parsed(pub(super) Arc<dyn Formula>);

impl Formula for Parsed {
    fn value(&self, view: &View<'_>) -> Result<Value, crate::StepError> {
        match self.0.value(view)? {
            Value::Text(text) => Ok(Value::from_json(text.as_bytes()).unwrap_or(Value::Text(text))),
            other => Ok(other),
        }
    }

    fn identity(&self) -> Value {
        self.0.identity()
    }
}
