//! The document as a validator of answers.

use std::fmt::Write as _;

use caudal_testkit::{Server, http::Answer};
use serde_json::{Value, json};

/// The description of a running server.
pub(crate) struct Document(Value);

impl Document {
    pub(crate) fn of(server: &Server) -> Self {
        Self(server.get("/openapi.json").json())
    }

    /// Checks that `answer` is one that the document declares for an operation: its status, its media type, and each
    /// member of its JSON, none of which may be undeclared.
    pub(crate) fn check(&self, operation_id: &str, answer: &Answer) {
        let responses = &self.operation(operation_id)["responses"];
        let (status, range) = (answer.status.to_string(), format!("{}XX", answer.status / 100));
        let at = format!("{operation_id}, {status}");
        let response = responses.get(&status).or_else(|| responses.get(&range));
        let response = response.unwrap_or_else(|| panic!("{at} is not declared: {}", answer.text()));
        let media = answer.header("content-type").split(';').next().unwrap();
        if answer.body.is_empty() {
            return assert!(response.get("content").is_none(), "{at} has no body, and one is declared");
        }
        let content = response["content"].get(media).unwrap_or_else(|| panic!("{at}: {media} is not declared"));
        if media == "application/json" {
            let (json, schema) = (answer.json(), &content["schema"]);
            self.check_schema(&at, schema, &json);
            let undeclared = self.undeclared(schema, &json, "");
            assert!(undeclared.is_empty(), "{at}: members that are not declared: {undeclared}\n{json:#}");
        }
    }

    fn operation(&self, id: &str) -> &Value {
        let items = self.0["paths"].as_object().unwrap().values();
        let operation = items.flat_map(|item| item.as_object().unwrap().values()).find(|one| one["operationId"] == id);
        operation.unwrap_or_else(|| panic!("there is no operation {id}"))
    }

    fn check_schema(&self, at: &str, schema: &Value, json: &Value) {
        let whole = json!({"allOf": [schema], "components": self.0["components"]});
        let validator = jsonschema::validator_for(&whole).unwrap_or_else(|error| panic!("{at}: {error}"));
        let wrong = validator.iter_errors(json).fold(String::new(), |mut all, error| {
            let _ = writeln!(all, "{}: {error}", error.instance_path());
            all
        });
        assert!(wrong.is_empty(), "{at}: the answer is not what is declared\n{wrong}{json:#}");
    }

    /// Checks the body of a request.
    pub(crate) fn check_request(&self, operation_id: &str, body: &Value) {
        let schema = &self.operation(operation_id)["requestBody"]["content"]["application/json"]["schema"];
        self.check_schema(&format!("{operation_id}, request"), schema, body);
        let undeclared = self.undeclared(schema, body, "");
        assert!(undeclared.is_empty(), "{operation_id}, request: members that are not declared: {undeclared}");
    }

    /// The paths of the members of `json` that `schema` does not name.
    fn undeclared(&self, schema: &Value, json: &Value, path: &str) -> String {
        let schemas = self.parts(schema);
        let mut found = String::new();
        match json {
            Value::Object(members) => {
                let open = |part: &&Value| !part["additionalProperties"].is_null() || part.get("properties").is_none();
                for (name, value) in members {
                    let path = format!("{path}/{name}");
                    let named: Vec<&Value> = schemas.iter().filter_map(|part| part["properties"].get(name)).collect();
                    match &named[..] {
                        [] if schemas.iter().any(open) => {}
                        [] => found += &format!("{path} "),
                        named => {
                            // Of alternatives, one that names all will do.
                            let each: Vec<String> =
                                named.iter().map(|one| self.undeclared(one, value, &path)).collect();
                            found += each.iter().min_by_key(|text| text.len()).unwrap();
                        }
                    }
                }
            }
            Value::Array(items) => {
                for part in schemas.iter().filter(|part| part.get("items").is_some()) {
                    let each = items.iter().enumerate();
                    found += &each
                        .map(|(place, item)| self.undeclared(&part["items"], item, &format!("{path}/{place}")))
                        .collect::<String>();
                }
            }
            _ => {}
        }
        found
    }

    /// A schema with references followed and combinations taken apart.
    fn parts<'a>(&'a self, schema: &'a Value) -> Vec<&'a Value> {
        if let Some(place) = schema["$ref"].as_str() {
            return self.parts(self.0.pointer(place.trim_start_matches('#')).unwrap());
        }
        let combined = ["allOf", "oneOf", "anyOf"].iter().filter_map(|word| schema[*word].as_array()).flatten();
        let parts: Vec<&Value> = combined.flat_map(|part| self.parts(part)).collect();
        if parts.is_empty() { vec![schema] } else { parts }
    }
}
