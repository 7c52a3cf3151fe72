//! Values as bytes of which equal values have equal ones, and others never; and back.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Number;

use super::{Map, Value, json::DEPTH};

/// Something that can be written in canonical form.
pub trait Canonical {
    /// Appends its canonical form, which tells where it ends.
    fn write(&self, to: &mut Vec<u8>) -> Result<(), serde_json::Error>;
}

/// Appends the canonical form of `value`: a letter for its sort, then its bytes, with their number before them where
/// that varies. Names of maps are in order already. Not JSON: nothing is escaped, so it is little more than a copy.
pub fn write_canonical(value: &Value, to: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    value.write(to)
}

fn bytes(sort: u8, bytes: &[u8], to: &mut Vec<u8>) {
    to.push(sort);
    to.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    to.extend_from_slice(bytes);
}

impl Canonical for Value {
    fn write(&self, to: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        match self {
            Self::Null => to.push(b'0'),
            Self::Bool(false) => to.push(b'n'),
            Self::Bool(true) => to.push(b'y'),
            Self::Number(number) => {
                let (sort, bits) = match (number.as_i64(), number.as_u64(), number.as_f64()) {
                    (Some(number), ..) => (b'i', number.to_le_bytes()),
                    (_, Some(number), _) => (b'u', number.to_le_bytes()),
                    (.., number) => (b'f', number.unwrap_or(f64::NAN).to_le_bytes()),
                };
                to.push(sort);
                to.extend_from_slice(&bits);
            }
            Self::Text(text) => bytes(b't', text.as_bytes(), to),
            Self::Bytes(raw) => bytes(b'b', raw, to),
            Self::List(values) => {
                to.push(b'l');
                to.extend_from_slice(&(values.len() as u64).to_le_bytes());
                values.iter().try_for_each(|value| value.write(to))?;
            }
            Self::Map(map) => map.write(to)?,
            // Through JSON, so that what a run reads back from its journal has the same key as what a step made.
            Self::Native(native) => native.plain()?.write(to)?,
        }
        Ok(())
    }
}

impl Canonical for Map {
    fn write(&self, to: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        to.push(b'm');
        to.extend_from_slice(&(self.len() as u64).to_le_bytes());
        self.iter().try_for_each(|(name, value)| {
            bytes(b't', name.as_bytes(), to);
            value.write(to)
        })
    }
}

impl Canonical for str {
    fn write(&self, to: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        bytes(b't', self.as_bytes(), to);
        Ok(())
    }
}

/// Reads canonical forms, one after the other. JSON would read some values as others: numbers in their last bit, and an
/// object of which the one name is `$bytes`.
pub(crate) struct Reading<'a>(pub(crate) &'a [u8]);

impl Reading<'_> {
    /// The next value; none where the bytes are no form of one.
    pub(crate) fn value(&mut self) -> Option<Value> {
        self.within(DEPTH)
    }

    fn within(&mut self, left: usize) -> Option<Value> {
        Some(match self.take(1)? {
            b"0" => Value::Null,
            b"n" => Value::Bool(false),
            b"y" => Value::Bool(true),
            b"i" => Value::Number(i64::from_le_bytes(self.word()?).into()),
            b"u" => Value::Number(u64::from_le_bytes(self.word()?).into()),
            b"f" => Value::Number(Number::from_f64(f64::from_le_bytes(self.word()?))?),
            b"t" => Value::Text(self.text()?),
            b"b" => Value::Bytes(Bytes::copy_from_slice(self.counted()?)),
            b"l" => {
                let (count, left) = (self.count()?, left.checked_sub(1)?);
                Value::List((0..count).map(|_| self.within(left)).collect::<Option<_>>()?)
            }
            b"m" => {
                let (count, left) = (self.count()?, left.checked_sub(1)?);
                let entries = (0..count).map(|_| Some((self.name()?, self.within(left)?)));
                Value::Map(entries.collect::<Option<Vec<(Arc<str>, Value)>>>()?.into_iter().collect())
            }
            _ => return None,
        })
    }

    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn word(&mut self) -> Option<[u8; 8]> {
        self.take(8)?.try_into().ok()
    }

    /// How many follow: each has a byte at least, so no more than there are bytes.
    fn count(&mut self) -> Option<usize> {
        let count = usize::try_from(u64::from_le_bytes(self.word()?)).ok()?;
        (count <= self.0.len()).then_some(count)
    }

    fn counted(&mut self) -> Option<&[u8]> {
        let count = self.count()?;
        self.take(count)
    }

    fn text(&mut self) -> Option<Arc<str>> {
        str::from_utf8(self.counted()?).ok().map(Arc::from)
    }

    fn name(&mut self) -> Option<Arc<str>> {
        if self.take(1)? == b"t" { self.text() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any plain value.
    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
            prop::collection::vec(any::<u8>(), 0..8).prop_map(|bytes| Value::Bytes(bytes.into())),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            let name = prop_oneof![Just("$bytes".to_owned()), "[a-c]{0,2}"];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((name, inner), 0..5)
                    .prop_map(|entries| Value::Map(entries.into_iter().collect())),
            ]
        })
    }

    fn written(value: &Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        value.write(&mut bytes).unwrap();
        bytes
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_as_it_was(value in values(), behind in prop::collection::vec(any::<u8>(), 0..4)) {
            let bytes = [written(&value), behind.clone()].concat();
            let mut reading = Reading(&bytes);
            let again = reading.value().unwrap();
            prop_assert_eq!(written(&again), written(&value), "sorts and bits are the same, too");
            prop_assert_eq!(reading.0, &behind[..], "it ends where it ended");
        }

        #[test]
        fn nothing_that_is_read_does_harm(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Reading(&bytes).value();
        }

        #[test]
        fn a_part_is_nothing(value in values(), cut in 0.0f64..1.0) {
            let bytes = written(&value);
            let part = &bytes[..(bytes.len() as f64 * cut) as usize];
            prop_assert!(Reading(part).value().is_none());
        }
    }

    #[test]
    fn what_lies_too_deep_is_not_read() {
        let deep = |levels: usize| (0..levels).fold(Value::Null, |value, _| Value::list([value]));
        assert!(Reading(&written(&deep(DEPTH))).value().is_some());
        assert!(Reading(&written(&deep(DEPTH + 1))).value().is_none());
    }
}
