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
