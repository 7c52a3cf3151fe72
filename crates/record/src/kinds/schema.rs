//! The same table as JSON schemas (draft 2020-12) and as a page of the documents.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::{Field, Kind, Shape};

impl Kind {
    /// The JSON schema of its payloads.
    pub fn schema(self) -> Value {
        let mut properties = Map::new();
        for field in self.fields() {
            for name in field.names {
                let mut schema = field.shape.schema();
                schema.insert("description".into(), field.meaning.into());
                properties.insert((*name).into(), schema.into());
            }
        }
        let mut schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": self.name(),
            "description": self.meaning(),
            "type": "object",
            "properties": properties,
        });
        let required: Vec<Value> = self.fields().iter().filter(|field| field.required).map(required).collect();
        if !required.is_empty() {
            schema["allOf"] = required.into();
        }
        schema
    }

    /// The schemas of all types, by name.
    pub fn schemas() -> Value {
        Self::ALL.iter().map(|kind| (kind.name().to_owned(), kind.schema())).collect::<Map<_, _>>().into()
    }

    /// `docs/events.md`.
    pub fn reference() -> String {
        let mut page = "# Event types\n\nGenerated from the code: `CAUDAL_TEST_BLESS=1 cargo test --workspace reference`.\n\n\
            An event's `event_type` is one of the types below, or a custom type with a namespace before a colon or dot, such as\n\
            `clinic:TRIAGE_NOTE`: at most 100 letters, digits, dots, colons, dashes and underscores. The payload of a custom type\n\
            has no required fields: the event is recorded, chained and counted, and changes no state.\n\n\
            Payloads are objects. **Bold** fields are required; further names in a row are accepted aliases; `null` means\n\
            \"not given\"; fields that are not listed are stored with the event.\n"
            .to_owned();
        for kind in Self::ALL {
            let _ = writeln!(page, "\n## {}\n\n{}\n", kind.name(), kind.meaning());
            if !kind.fields().is_empty() {
                page += "| field | value | |\n|---|---|---|\n";
            }
            for field in kind.fields() {
                let names: Vec<String> = field.names.iter().map(|name| format!("`{name}`")).collect();
                let names = names.join(", ");
                let names = if field.required { format!("**{names}**") } else { names };
                let _ = writeln!(page, "| {names} | {} | {} |", field.shape.words(), field.meaning);
            }
        }
        page
    }
}

/// That one of a field's names must be there, and not null.
fn required(field: &Field) -> Value {
    let one = |name: &&str| json!({ "required": [name], "properties": { *name: { "not": { "type": "null" } } } });
    match field.names {
        [name] => one(name),
        names => json!({ "anyOf": names.iter().map(one).collect::<Vec<_>>() }),
    }
}

impl Shape {
    fn schema(self) -> Map<String, Value> {
        let schema = match self {
            Self::Text => json!({ "type": ["string", "null"] }),
            Self::OneOf(words) => {
                let words: Vec<Value> = words.iter().map(|word| (*word).into()).chain([Value::Null]).collect();
                json!({ "enum": words })
            }
            Self::Number(least, f64::MAX) => json!({ "type": ["number", "null"], "minimum": least }),
            Self::Number(least, most) => json!({ "type": ["number", "null"], "minimum": least, "maximum": most }),
            Self::Integer(least, most) => json!({ "type": ["integer", "null"], "minimum": least, "maximum": most }),
            Self::Flag => json!({ "type": ["boolean", "null"] }),
            Self::List => json!({ "type": ["array", "null"] }),
            Self::Object => json!({ "type": ["object", "null"] }),
            Self::Any => json!({}),
        };
        match schema {
            Value::Object(schema) => schema,
            _ => Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::KindError;
    use super::*;
    use crate::canonical::canonical;

    fn check(kind: Kind, payload: &str, expected: Result<(), &str>) {
        let payload = canonical(payload.as_bytes()).unwrap();
        let found = kind.check(&payload).map_err(|error| error.to_string());
        assert_eq!(
            found.as_ref().map_err(|error| &**error).copied(),
            expected,
            "{}",
            String::from_utf8_lossy(&payload)
        );
    }

    #[test]
    fn there_are_twenty_eight_and_names_of_ones_own() {
        assert_eq!(Kind::ALL.len(), 28);
        for kind in Kind::ALL {
            assert_eq!(Kind::read(kind.name()), Ok(Some(*kind)));
        }
        for name in ["clinic:TRIAGE_NOTE", "x-clinic.TRIAGE_NOTE", "a:b", "mx.clinic:note.v2"] {
            assert_eq!(Kind::read(name), Ok(None), "{name}");
        }
        for name in [":NOTE", "clinic:", "cli nic:NOTE", "clínica:NOTA", &format!("a:{}", "x".repeat(99))] {
            assert!(matches!(Kind::read(name), Err(KindError::Malformed(_))), "{name}");
        }
        let error = Kind::read("MESAGE_RECEIVED").unwrap_err().to_string();
        assert_eq!(error, "there is no event type \"MESAGE_RECEIVED\"; did you mean MESSAGE_RECEIVED?");
        assert_eq!(
            Kind::read("message-received").unwrap_err().to_string().matches("did you mean MESSAGE_RECEIVED?").count(),
            1
        );
        assert_eq!(Kind::read("HELLO").unwrap_err().to_string(), "there is no event type \"HELLO\"");
    }

    #[test]
    fn payloads_hold_what_their_type_asks_for() {
        let message = Kind::MessageReceived;
        check(message, r#"{"message":"Hola"}"#, Ok(()));
        check(message, r#"{"message_content":"Hola","message_role":"user","extra":[1]}"#, Ok(()));
        check(message, r#"{"message_role":"user"}"#, Err("payload of MESSAGE_RECEIVED: message_content is missing"));
        check(message, r#"{"message":null}"#, Err("payload of MESSAGE_RECEIVED: message_content is missing"));
        check(message, r#"{"message":7}"#, Err("payload of MESSAGE_RECEIVED: message must be a string"));
        let urgency = Kind::UrgencyClassified;
        check(urgency, r#"{"urgency_level":"high","gravity_score":10}"#, Ok(()));
        check(
            urgency,
            r#"{"urgency_level":"dire"}"#,
            Err("payload of URGENCY_CLASSIFIED: urgency_level must be one of critical, high, medium, low"),
        );
        check(
            urgency,
            r#"{"urgency_level":"low","gravity_score":11}"#,
            Err("payload of URGENCY_CLASSIFIED: gravity_score must be a whole number from 1 to 10"),
        );
        let who = Kind::DemographicsUpdated;
        check(who, r#"{"age":54,"gender":null,"weight":71.5,"height":160}"#, Ok(()));
        check(who, r#"{"age":54.0}"#, Ok(()));
        check(who, r#"{"age":54.5}"#, Err("payload of DEMOGRAPHICS_UPDATED: age must be a whole number from 0 to 150"));
        check(who, r#"{"weight":-1}"#, Err("payload of DEMOGRAPHICS_UPDATED: weight must be a number from 0 to 1000"));
        check(Kind::SoapSectionCompleted, r#"{"section":"P","content":"reposo"}"#, Ok(()));
        check(Kind::MessagesCleared, "{}", Ok(()));
    }

    #[test]
    fn schemas_say_the_same() {
        let schema = Kind::MessageUpdated.schema();
        assert_eq!(schema["properties"]["message_id"]["type"], json!(["string", "null"]));
        assert_eq!(schema["allOf"][0]["required"], json!(["message_id"]));
        assert_eq!(schema["allOf"][1]["anyOf"].as_array().unwrap().len(), 4);
        assert_eq!(Kind::schemas().as_object().unwrap().len(), Kind::ALL.len());
    }

    /// What a Python's `jsonschema` says of payloads, where there is one.
    #[test]
    fn schemas_and_check_agree() {
        let pool = [
            json!(null),
            json!("x"),
            json!(""),
            json!("low"),
            json!("plan"),
            json!(0),
            json!(1),
            json!(-1),
            json!(1.5),
            json!(7.0),
            json!(100),
            json!(101),
            json!(1e22),
            json!(i64::MAX),
            json!(true),
            json!([]),
            json!([1]),
            json!({}),
            json!({ "a": null }),
        ];
        let (mut lines, mut turn) = (String::new(), 0u64);
        for kind in Kind::ALL {
            let names: Vec<_> = kind.fields().iter().flat_map(|field| field.names).collect();
            for round in 0..60 {
                let mut payload = Map::new();
                for name in &names {
                    // Without order, the same each time; every third field is left out.
                    turn = (turn * 1_103_515_245 + 12_345 + round) & 0x7fff_ffff;
                    if turn / 65_536 % 3 > 0 {
                        payload.insert((**name).to_owned(), pool[(turn / 262_144) as usize % pool.len()].clone());
                    }
                }
                let form = canonical(Value::Object(payload.clone()).to_string().as_bytes()).unwrap();
                let passes = kind.check(&form).is_ok();
                let line = json!({ "kind": kind.name(), "payload": payload, "passes": passes });
                let _ = writeln!(lines, "{line}");
            }
        }
        let script = "import json,sys\ntry: from jsonschema import Draft202012Validator as V\n\
            except ImportError: print('skipped: no jsonschema'); sys.exit()\n\
            s={k:V(v) for k,v in json.loads(sys.stdin.readline()).items()}\n\
            for v in s.values(): V.check_schema(v.schema)\n\
            for l in sys.stdin:\n  l=json.loads(l)\n  \
            if s[l['kind']].is_valid(l['payload'])!=l['passes']: print(l)";
        let input = format!("{}\n{lines}", Kind::schemas());
        let Some(said) = crate::canonical::tests::python(script, &input) else { return };
        if said.starts_with("skipped") {
            eprintln!("{said}");
        } else {
            assert_eq!(said, "");
        }
    }

    #[test]
    fn the_events_reference_is_what_the_code_says() {
        caudal_testkit::check_document("events.md", &Kind::reference());
    }
}
