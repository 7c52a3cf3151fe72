//! JSON values kept as they stand.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::members::{Members, text};

/// A JSON value as it stood in a payload.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Raw(Box<RawValue>);

impl Raw {
    /// The value that stands so; `None` if it is no JSON.
    pub(crate) fn new(value: &str) -> Option<Self> {
        RawValue::from_string(value.to_owned()).ok().map(Self)
    }

    /// The JSON value that `bytes` are; what is none, as a string.
    pub(crate) fn json_or_text(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        Self::new(&text).unwrap_or_else(|| Self(to_raw_value(&text).unwrap_or_default()))
    }

    /// The value as JSON.
    pub fn as_json(&self) -> &str {
        self.0.get()
    }

    /// What it says, if it is a string.
    pub fn as_text(&self) -> Option<Cow<'_, str>> {
        text(self.as_json())
    }

    /// Its member `key`, if it is an object that has one.
    pub(crate) fn member(&self, key: &str) -> Option<&str> {
        member(self.as_json(), key)
    }
}

impl PartialEq for Raw {
    fn eq(&self, other: &Self) -> bool {
        self.as_json() == other.as_json()
    }
}

impl Eq for Raw {}

/// `json` over several lines, each level two spaces further in. Numbers and strings stay as they are written.
pub(crate) fn indented(json: &str) -> String {
    let mut out = String::with_capacity(json.len() + json.len() / 2);
    let mut letters = json.chars().peekable();
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(letter) = letters.next() {
        if in_string {
            (in_string, escaped) = (letter != '"' || escaped, letter == '\\' && !escaped);
            out.push(letter);
            continue;
        }
        match letter {
            '{' | '[' => {
                out.push(letter);
                while letters.next_if(char::is_ascii_whitespace).is_some() {}
                match letters.next_if(|next| matches!(next, '}' | ']')) {
                    Some(end) => out.push(end),
                    None => {
                        depth += 1;
                        line(&mut out, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(letter);
            }
            ',' => {
                out.push(letter);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            letter if letter.is_ascii_whitespace() => {}
            letter => {
                in_string = letter == '"';
                out.push(letter);
            }
        }
    }
    out
}

/// The member `key` of an object, `null` being none.
pub(crate) fn member<'a>(object: &'a str, key: &str) -> Option<&'a str> {
    Members::of(object).find(|(name, value)| *name == key && *value != "null").map(|(_, value)| value)
}

/// Whether a value says something: it is not null, and holds more than space.
pub(crate) fn is_filled(value: &str) -> bool {
    match value.bytes().next() {
        None | Some(b'n') => false,
        Some(b'"') => text(value).is_some_and(|said| !said.trim().is_empty()),
        Some(b'[') => value.bytes().skip(1).any(|byte| !byte.is_ascii_whitespace() && byte != b']'),
        // One that is filled makes it so: a section of empty fields is empty.
        Some(b'{') => Members::of(value).any(|(_, value)| is_filled(value)),
        Some(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indented_json_is_what_serde_json_writes_and_keeps_numbers() {
        for json in [
            r#"{"a": [1, {"b": null}, []], "c": {}, "d": "x, {y}: [\"z\\"}"#,
            r#"[true,  "á\n", {"k":[[ ], { }]}]"#,
            "12",
            "\"\"",
        ] {
            let value: serde_json::Value = serde_json::from_str(json).unwrap();
            assert_eq!(indented(json), serde_json::to_string_pretty(&value).unwrap());
        }
        assert_eq!(
            indented(r#"{"n": 12345678901234567890123, "f": 1.10}"#).matches("12345678901234567890123").count(),
            1
        );
    }
}
