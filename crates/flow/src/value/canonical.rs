//! Values as bytes of which equal values have equal ones, and others never.

use super::{Map, Value};

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
