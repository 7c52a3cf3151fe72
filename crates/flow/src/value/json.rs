//! Values from and to JSON.

use std::{borrow::Cow, collections::BTreeMap, fmt, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
    ser::{Error as _, SerializeMap, SerializeSeq},
};
use serde_json::value::RawValue;

use super::{Map, Number, Value};

/// The name under which bytes stand.
const BYTES: &str = "$bytes";
/// How deep lists and maps may lie within each other: `serde_json` reads 128 levels, and some stand around a value where
/// it is kept.
pub(super) const DEPTH: usize = 100;
/// The most that a value may hold, in bytes. What it holds more than once counts each time, for so it is written: a list
/// that holds itself twice, again and again, is small in memory and has no end when it is written.
const VALUE_BYTES: usize = 256 << 20;
/// How deep `serde_json` reads.
const JSON_DEPTH: usize = 127;
/// Digits of which a whole number may need more than 64 bits.
const LONG: usize = 19;

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
    /// Reads JSON. Whole numbers have all of their digits.
    pub fn from_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        if has_long_digits(json) { exact(serde_json::from_slice(json)?, JSON_DEPTH) } else { quick(json) }
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

/// From JSON alone: other forms have no text from which a long number could be read.
impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::from_json(raw.get().as_bytes()).map_err(D::Error::custom)
    }
}

/// Whether so many digits stand side by side that a number may have more than 64 bits.
fn has_long_digits(json: &[u8]) -> bool {
    json.split(|byte| !byte.is_ascii_digit()).any(|digits| digits.len() >= LONG)
}

/// Reads JSON without long numbers: these come as floats.
fn quick(json: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice::<Quick>(json).map(|Quick(value)| value)
}

/// Reads JSON level by level, so that each number is read from its own text.
fn exact(raw: &RawValue, depth: usize) -> Result<Value, serde_json::Error> {
    let text = raw.get();
    let too_deep = || <serde_json::Error as serde::de::Error>::custom("recursion limit exceeded");
    let deeper = || depth.checked_sub(1).ok_or_else(too_deep);
    match text.as_bytes().first() {
        Some(b'[') => {
            let (depth, items) = (deeper()?, serde_json::from_str::<Vec<&RawValue>>(text)?);
            let items = items.into_iter().map(|item| exact(item, depth));
            items.collect::<Result<Vec<_>, _>>().map(Value::from)
        }
        Some(b'{') => {
            let (depth, entries) = (deeper()?, serde_json::from_str::<BTreeMap<Cow<'_, str>, &RawValue>>(text)?);
            let entry = |(name, value): (Cow<'_, str>, &RawValue)| Ok((Arc::from(&*name), exact(value, depth)?));
            object(entries.into_iter().map(entry).collect::<Result<_, serde_json::Error>>()?)
        }
        Some(b'-' | b'0'..=b'9') => Number::from_json(text).map(Value::Number),
        _ => quick(text.as_bytes()),
    }
}

/// An object, or the bytes that it stands for.
fn object<E: serde::de::Error>(entries: Vec<(Arc<str>, Value)>) -> Result<Value, E> {
    if let [(name, Value::Text(text))] = &entries[..]
        && &**name == BYTES
    {
        let bytes = BASE64_STANDARD.decode(text.as_bytes());
        return bytes.map(|bytes| Value::Bytes(Bytes::from(bytes))).map_err(E::custom);
    }
    Ok(Value::Map(entries.into_iter().collect()))
}

/// A value of which no number is long.
struct Quick(Value);

impl<'de> Deserialize<'de> for Quick {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
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
        while let Some(Quick(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries: Vec<(Arc<str>, Value)> = Vec::new();
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            let Quick(value) = map.next_value()?;
            entries.push((Arc::from(&*name), value));
        }
        object(entries)
    }
}

impl From<serde_json::Value> for Value {
    fn from(json: serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(yes) => Self::Bool(yes),
            serde_json::Value::Number(number) => Self::Number(number.into()),
            serde_json::Value::String(text) => text.into(),
            serde_json::Value::Array(values) => Self::list(values.into_iter().map(Self::from)),
            serde_json::Value::Object(map) => {
                Self::Map(map.into_iter().map(|(name, value)| (name, Self::from(value))).collect())
            }
        }
    }
}

/// Whole numbers of more than 64 bits become floats, so this is for looking at values and not for handing them on.
impl From<&Value> for serde_json::Value {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(yes) => Self::Bool(*yes),
            Value::Number(number) => Self::Number(number.approximate()),
            Value::Text(text) => Self::String(text.to_string()),
            Value::List(values) => values.iter().map(Self::from).collect(),
            Value::Map(map) => map.iter().map(|(name, value)| (name.to_string(), Self::from(value))).collect(),
            Value::Bytes(bytes) => serde_json::json!({ BYTES: BASE64_STANDARD.encode(bytes) }),
            Value::Native(native) => native.plain().map_or(Self::Null, |plain| Self::from(&plain)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written_again(json: &str) {
        let value = Value::from_json(json.as_bytes()).unwrap();
        assert_eq!(value.to_json(), json);
        let within = serde_json::from_str::<BTreeMap<String, Value>>(&format!("{{\"a\":{json}}}")).unwrap();
        assert_eq!(within["a"], value);
    }

    #[test]
    fn whole_numbers_keep_their_digits() {
        for number in [
            "9223372036854775807",
            "-9223372036854775808",
            "18446744073709551615",
            "18446744073709551616",
            "-9223372036854775809",
            "12345678901234567890123",
            "170141183460469231731687303715884105728",
        ] {
            written_again(number);
            written_again(&format!("{{\"a\":[{number},1,2.5,\"x\",null,true],\"b\":{{\"c\":{number}}}}}"));
        }
        written_again(&"9".repeat(500));
        written_again("[\"01234567890123456789\",0.5,-7]");
        written_again("{\"$bytes\":\"MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkw\"}");
    }

    #[test]
    fn long_numbers_are_read_like_all_json() {
        let read = |json: &str| Value::from_json(json.as_bytes()).map(|value| value.to_json());
        let long = "12345678901234567890123";
        assert_eq!(read(&format!("{{\"a\": 1, \"a\": {long}}}")).unwrap(), format!("{{\"a\":{long}}}"));
        assert_eq!(read("[0.12345678901234567890, 1e3, -0]").unwrap(), read("[0.12345678901234568, 1e3, -0]").unwrap());
        for wrong in [format!("[{long}"), format!("{long} 1"), format!("0{long}"), format!("[{long},]")] {
            assert!(read(&wrong).is_err(), "{wrong}");
        }
        let deep = |levels: usize| format!("{}{long}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(read(&deep(JSON_DEPTH)).is_ok());
        assert!(read(&deep(JSON_DEPTH + 1)).is_err() && read(&deep(100_000)).is_err());
    }

    #[test]
    fn those_who_know_64_bits_get_the_nearest_float() {
        let json = |number: &str| serde_json::Value::from(&Value::from_json(number.as_bytes()).unwrap());
        assert_eq!(json("12345678901234567890123"), serde_json::json!(12345678901234567890123f64));
        assert_eq!(json(&format!("-{}", "9".repeat(500))), serde_json::json!(f64::MIN));
        assert_eq!(json("18446744073709551615"), serde_json::json!(u64::MAX));
    }
}
