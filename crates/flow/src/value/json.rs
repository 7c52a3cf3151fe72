//! Values from and to JSON.

use std::{fmt, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
    ser::{Error as _, SerializeMap, SerializeSeq},
};
use serde_json::Number;

use super::{Map, Value};

/// The name under which bytes stand.
const BYTES: &str = "$bytes";
/// How deep lists and maps may lie within each other: `serde_json` reads 128 levels, and some stand around a value where
/// it is kept.
pub(super) const DEPTH: usize = 100;
/// The most that a value may hold, in bytes. What it holds more than once counts each time, for so it is written: a list
/// that holds itself twice, again and again, is small in memory and has no end when it is written.
const VALUE_BYTES: usize = 256 << 20;

/// A value is more than may go from step to step.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum OutOfBounds {
    /// It has more levels than may be.
    #[error("lists and objects lie within each other more than {DEPTH} deep")]
    Deep,
    /// It holds more than may be.
    #[error("the value holds more than {} MiB, counting what it holds more than once each time", VALUE_BYTES >> 20)]
    Large,
}

impl Value {
    /// Reads JSON.
    pub fn from_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// As JSON. A Rust value that cannot be written is `null`.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| "null".to_owned())
    }

    /// Writes JSON.
    pub fn write_json(&self, to: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        match self {
            Self::Native(native) => native.write(to),
            other => serde_json::to_writer(to, other),
        }
    }

    /// Refuses what is too deep to be read back, or holds too much to be written. Each level takes some of the thread's
    /// stack where a value is written, compared or let go, so nothing without a bound may go from step to step. To tell
    /// takes no longer than to go through as much as a value may hold.
    pub fn check_bounds(&self) -> Result<(), OutOfBounds> {
        fn within(value: &Value, depth: usize, room: &mut usize) -> Result<(), OutOfBounds> {
            let text = match value {
                Value::Text(text) => text.len(),
                Value::Bytes(bytes) => bytes.len(),
                _ => 0,
            };
            *room = room.checked_sub(text + size_of::<Value>()).ok_or(OutOfBounds::Large)?;
            match value {
                Value::List(_) | Value::Map(_) if depth == 0 => Err(OutOfBounds::Deep),
                Value::List(values) => values.iter().try_for_each(|value| within(value, depth - 1, room)),
                Value::Map(map) => map.iter().try_for_each(|(_, value)| within(value, depth - 1, room)),
                _ => Ok(()),
            }
        }
        within(self, DEPTH, &mut VALUE_BYTES.clone())
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(yes) => serializer.serialize_bool(*yes),
            Self::Number(number) => number.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(values) => {
                let mut list = serializer.serialize_seq(Some(values.len()))?;
                values.iter().try_for_each(|value| list.serialize_element(value))?;
                list.end()
            }
            Self::Map(map) => map.serialize(serializer),
            Self::Bytes(bytes) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry(BYTES, &BASE64_STANDARD.encode(bytes))?;
                map.end()
            }
            Self::Native(native) => native.plain().map_err(S::Error::custom)?.serialize(serializer),
        }
    }
}

impl Serialize for Map {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        self.iter().try_for_each(|(name, value)| map.serialize_entry(&**name, value))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Map {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Map(map) => Ok(map),
            other => Err(D::Error::custom(format_args!("an object is wanted, not {}", other.sort()))),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, yes: bool) -> Result<Value, E> {
        Ok(Value::Bool(yes))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries: Vec<(Arc<str>, Value)> = Vec::new();
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            entries.push((Arc::from(&*name), map.next_value()?));
        }
        if let [(name, Value::Text(text))] = &entries[..]
            && &**name == BYTES
        {
            let bytes = BASE64_STANDARD.decode(text.as_bytes());
            return bytes.map(|bytes| Value::Bytes(Bytes::from(bytes))).map_err(A::Error::custom);
        }
        Ok(Value::Map(entries.into_iter().collect()))
    }
}

impl From<serde_json::Value> for Value {
    fn from(json: serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(yes) => Self::Bool(yes),
            serde_json::Value::Number(number) => Self::Number(number),
            serde_json::Value::String(text) => text.into(),
            serde_json::Value::Array(values) => Self::list(values.into_iter().map(Self::from)),
            serde_json::Value::Object(map) => {
                Self::Map(map.into_iter().map(|(name, value)| (name, Self::from(value))).collect())
            }
        }
    }
}

impl From<&Value> for serde_json::Value {
    fn from(value: &Value) -> Self {
        match value {
            Value::Number(number) => Self::Number(Number::clone(number)),
            other => serde_json::to_value(other).unwrap_or_default(),
        }
    }
}
