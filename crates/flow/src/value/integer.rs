//! Whole numbers beyond 64 bits. `serde_json` reads them as floats, which loses digits; so a JSON text that may hold one
//! is read by its parts.

use std::{borrow::Cow, fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor},
    ser,
};
use serde_json::value::RawValue;

use super::{
    Value,
    json::{Tree, object},
};

/// By this name `serde_json` gives the text of a value to who reads it. A deserializer that does not know it gives the
/// value itself.
const TEXT: &str = "$serde_json::private::RawValue";
/// Every whole number of fewer digits fits into 64 bits.
const LONG: usize = 19;
/// How deep a text may be that is read by its parts: as `serde_json` has it.
const DEPTH: usize = 128;

/// A whole number beyond 64 bits, by its digits.
#[derive(Clone, PartialEq, Eq)]
pub struct Integer(Arc<str>);

impl Integer {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// About what it is; none where it is beyond floats.
    pub fn as_f64(&self) -> Option<f64> {
        self.0.parse().ok().filter(|number: &f64| number.is_finite())
    }

    /// The number, if it has no more than 128 bits.
    pub fn as_i128(&self) -> Option<i128> {
        self.0.parse().ok()
    }
}

impl Value {
    /// The whole number that `text` is: an optional minus sign, and digits of which the first is 0 only if it is the only
    /// one. None if the text is no such number.
    pub fn whole_number(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let is_one = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_one || (digits.len() > 1 && digits.starts_with('0')) {
            return None;
        }
        Some(match (text.parse::<i64>(), text.parse::<u64>()) {
            (Ok(number), _) => number.into(),
            (_, Ok(number)) => number.into(),
            _ => Self::Integer(Integer(text.into())),
        })
    }
}

impl fmt::Debug for Integer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Integer {
    /// For JSON: other forms have no such numbers.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.0.to_string()).map_err(ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(TEXT, Whole)
    }
}

/// Takes the text of a value, or the value.
struct Whole;

impl<'de> Visitor<'de> for Whole {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Tree::deserialize(deserializer).map(|Tree(value)| value)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        match map.next_key::<Text<'de>>()? {
            Some(Text(name)) if name == TEXT => read(&map.next_value::<Text<'de>>()?.0).map_err(de::Error::custom),
            _ => Err(de::Error::custom("the text of a JSON value is wanted")),
        }
    }
}

/// Reads a JSON text.
pub(super) fn read(text: &str) -> Result<Value, serde_json::Error> {
    read_within(text, DEPTH)
}

fn read_within(text: &str, depth: usize) -> Result<Value, serde_json::Error> {
    if !may_hold_long_number(text) {
        return serde_json::from_str::<Tree>(text).map(|Tree(value)| value);
    }
    let less =
        || depth.checked_sub(1).ok_or_else(|| <serde_json::Error as de::Error>::custom("recursion limit exceeded"));
    match text.as_bytes().first() {
        Some(b'[') => {
            let (less, parts) = (less()?, serde_json::from_str::<Vec<&RawValue>>(text)?);
            let values: Result<Vec<Value>, _> = parts.into_iter().map(|part| read_within(part.get(), less)).collect();
            Ok(values?.into())
        }
        Some(b'{') => {
            let (less, Parts(parts)) = (less()?, serde_json::from_str(text)?);
            let entry = |(name, part): (Cow<'_, str>, &RawValue)| Ok((name.into(), read_within(part.get(), less)?));
            let entries: Result<Vec<(Arc<str>, Value)>, serde_json::Error> = parts.into_iter().map(entry).collect();
            object(entries?)
        }
        _ => match Value::whole_number(text) {
            Some(number @ Value::Integer(_)) => Ok(number),
            _ => serde_json::from_str::<Tree>(text).map(|Tree(value)| value),
        },
    }
}

/// Whether so many digits follow each other anywhere that they may be a number beyond 64 bits.
fn may_hold_long_number(text: &str) -> bool {
    let mut run = 0;
    text.bytes().any(|byte| {
        run = if byte.is_ascii_digit() { run + 1 } else { 0 };
        run >= LONG
    })
}

/// The members of an object as they are written, in their order.
struct Parts<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Parts<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Parts<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parts<'de>, A::Error> {
                let mut parts = Vec::new();
                while let Some(Text(name)) = map.next_key()? {
                    parts.push((name, map.next_value()?));
                }
                Ok(Parts(parts))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// A text, borrowed unless it holds escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Map;

    const BIG: &str = "12345678901234567890123";

    fn json(text: &str) -> Value {
        Value::from_json(text.as_bytes()).unwrap()
    }

    #[test]
    fn whole_numbers_keep_their_digits_wherever_they_stand() {
        for text in [
            BIG.to_owned(),
            format!("-{BIG}"),
            "18446744073709551616".to_owned(),
            "-9223372036854775809".to_owned(),
            format!(r#"{{"a":[{BIG},{{"b":{BIG},"c":null}}],"é\n":"{BIG}"}}"#),
            "9".repeat(400),
        ] {
            assert_eq!(json(&text).to_json(), text);
            let mut written = Vec::new();
            crate::write_canonical(&json(&text), &mut written).unwrap();
            assert_eq!(super::super::Reading(&written).value(), Some(json(&text)), "it is kept and read back");
        }
        for (text, same) in [("18446744073709551615", "18446744073709551615"), ("[1e+25,-1]", "[1e+25,-1]")] {
            let read = json(text);
            assert_eq!(read.to_json(), same);
            assert!(!matches!(read, Value::Integer(_)));
        }
    }

    #[test]
    fn values_within_other_types_keep_their_digits() {
        #[derive(Deserialize)]
        struct Asked {
            input: Value,
            context: Map,
        }
        let text = format!(r#"{{"input": [{BIG}], "context": {{"n": {BIG}}}}}"#);
        let from_text: Asked = serde_json::from_str(&text).unwrap();
        let from_reader: Asked = serde_json::from_reader(text.as_bytes()).unwrap();
        for asked in [from_text, from_reader] {
            assert_eq!(
                (asked.input.to_json(), Value::Map(asked.context).to_json()),
                (format!("[{BIG}]"), format!(r#"{{"n":{BIG}}}"#))
            );
        }
        assert_eq!(json(BIG).to::<u128>().unwrap().to_string(), BIG);
        let bytes = json(&format!(r#"{{"$bytes": "{}"}}"#, "1".repeat(40)));
        assert!(matches!(bytes, Value::Bytes(_)), "digits in a text are no number");
    }

    #[test]
    fn texts_that_are_no_json_are_refused() {
        let deep = "[".repeat(100_000) + BIG + &"]".repeat(100_000);
        for text in
            [&format!("0{BIG}"), &format!("{BIG}x"), &format!("[{BIG}"), &format!("{{{BIG}: 1}}"), &deep, "1e400"]
        {
            assert!(Value::from_json(text.as_bytes()).is_err(), "{:.40}", text);
        }
    }

    #[test]
    fn integer_is_true_a_number_and_about_a_float() {
        let value = json(BIG);
        assert!(value.truthy());
        assert_eq!((value.sort(), value.as_f64(), value.as_i64()), ("number", Some(1.2345678901234568e22), None));
    }
}
