//! An answer that fits a schema.

use caudal_flow::{Answer, Fault, StepError, Value, value};
use caudal_types::shorten;
use jsonschema::{PatternOptions, Validator};

use super::json;

/// Faults of an answer that are told at once.
const TOLD: usize = 3;

/// A schema that answers must fit.
pub(super) struct Schema {
    said: Value,
    check: Validator,
    /// Whether the provider is told of it, if it can be.
    told: bool,
}

impl Schema {
    /// Reads a schema. One that any text fits is none.
    pub(super) fn new(said: &Value, told: bool) -> Result<Option<Self>, String> {
        if matches!(said, Value::Null) || *said == value!({}) || *said == value!({"type": "string"}) {
            return Ok(None);
        }
        let json = serde_json::Value::from(said);
        // Patterns come from pipelines: none may take for ever.
        let check = jsonschema::options().with_pattern_options(PatternOptions::regex()).build(&json);
        let check = check.map_err(|error| format!("output_schema: it is no JSON schema: {error}"))?;
        Ok(Some(Self { said: said.clone(), check, told }))
    }

    fn is(&self, sort: &str) -> bool {
        self.said.get("type").and_then(Value::as_text) == Some(sort)
    }

    /// What tells the provider to keep to the schema: it takes such of objects alone.
    pub(super) fn format(&self) -> Option<Value> {
        let schema = [("name", value!("answer")), ("schema", self.said.clone())];
        let format = [("type", value!("json_schema")), ("json_schema", Value::Map(schema.into_iter().collect()))];
        (self.told && self.is("object")).then(|| Value::Map(format.into_iter().collect()))
    }

    /// What tells the model, where the provider cannot be told.
    pub(super) fn words(&self) -> Option<String> {
        let known = self.is("string") || self.format().is_some();
        (!known).then(|| {
            format!("Answer with JSON alone, without any words around it, that fits this JSON schema: {}", self.said)
        })
    }

    /// Reads an answer, which must fit. Of a text that holds JSON among other words, what fits is taken.
    pub(super) fn read(&self, text: &str) -> Answer {
        if self.is("string") {
            return self.fits(Value::text(text));
        }
        let whole = Value::from_json(text.trim().as_bytes());
        let within = || json::candidates(text).filter_map(|part| Value::from_json(part.as_bytes()).ok());
        let mut first_wrong = match whole {
            Ok(value) => return self.fits(value),
            Err(error) => unfit(format!("the answer is no JSON: {error}")),
        };
        for (number, value) in within().enumerate() {
            match self.fits(value) {
                Ok(value) => return Ok(value),
                Err(error) if number == 0 => first_wrong = error,
                Err(_) => {}
            }
        }
        Err(first_wrong)
    }

    fn fits(&self, value: Value) -> Answer {
        let json = serde_json::Value::from(&value);
        let wrong: Vec<String> = self.check.iter_errors(&json).take(TOLD).map(|error| told(&error)).collect();
        match wrong.is_empty() {
            true => Ok(value),
            false => Err(unfit(format!("the answer does not fit its schema: {}", wrong.join("; ")))),
        }
    }
}

fn told(error: &jsonschema::ValidationError<'_>) -> String {
    let (words, place) = (error.to_string(), error.instance_path().to_string());
    let words = shorten(&words);
    if place.is_empty() { words.into_owned() } else { format!("at {place}, {words}") }
}

/// The model may do better next time, told what was wrong.
fn unfit(message: String) -> StepError {
    StepError::new(Fault::Output, message).hint("allow retries (max_retries): what was wrong is told to the model")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(schema: Value, text: &str) -> Result<Value, String> {
        Schema::new(&schema, true).unwrap().unwrap().read(text).map_err(|error| error.message.into_owned())
    }

    #[test]
    fn answers_fit_or_say_where_they_do_not() {
        let schema = value!({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}});
        assert_eq!(read(schema.clone(), " {\"n\": 1}\n"), Ok(value!({"n": 1})));
        for said in [
            "```json\n{\"n\": 1}\n```",
            "Here:\n```json\n{\"n\": 1}\n```\nAs you asked.",
            "```\n{\"n\": 1}",
            "~~~JSON\n{\"n\": 1}\n~~~",
            "The answer is {\"n\": 1}.",
            "<think>maybe {\"n\": 2}?</think>\n{\"n\": 1}",
            "```python\nn = 1\n```\n```json\n{\"n\": 1}\n```",
        ] {
            assert_eq!(read(schema.clone(), said), Ok(value!({"n": 1})), "{said}");
        }
        assert!(
            read(schema.clone(), "{\"n\": \"{\\\"n\\\": 1}\"}").is_err(),
            "what is JSON as a whole is not searched"
        );
        let wrong = read(schema.clone(), r#"{"n": "x"}"#).unwrap_err();
        assert!(wrong.starts_with("the answer does not fit its schema: at /n, "), "{wrong}");
        assert!(read(schema.clone(), "{}").unwrap_err().contains("\"n\" is a required property"));
        assert!(read(schema, "well, {").unwrap_err().starts_with("the answer is no JSON"));
        assert_eq!(read(value!({"type": "string", "enum": ["yes", "no"]}), "yes"), Ok(value!("yes")));
        assert!(read(value!({"type": "string", "enum": ["yes", "no"]}), "maybe").is_err());
        assert_eq!(read(value!({"type": "array"}), "[1]"), Ok(value!([1])));
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        let wrong = |schema: Value| Schema::new(&schema, true).err().unwrap();
        assert!(wrong(value!({"type": "no such type"})).starts_with("output_schema: "));
        assert!(wrong(value!({"$ref": "http://127.0.0.1/schema.json"})).starts_with("output_schema: "));
        assert!(wrong(value!({"$ref": "file:///etc/passwd"})).starts_with("output_schema: "));
        assert!(Schema::new(&value!({"type": "string"}), true).unwrap().is_none());
    }
}
