//! Numbers as JSON has them, without a limit on the digits of whole ones.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer, ser::Error as _};
use serde_json::value::RawValue;

/// A number: a whole one of any size, or a float.
#[derive(Clone, PartialEq)]
pub struct Number(Repr);

#[derive(Clone, PartialEq)]
enum Repr {
    Signed(i64),
    /// Beyond `i64`.
    Unsigned(u64),
    /// Finite.
    Float(f64),
    /// A whole number beyond 64 bits: its digits, without needless zeros.
    Digits(Arc<str>),
}

impl Number {
    /// A float; JSON has neither infinities nor NaN.
    pub fn from_f64(number: f64) -> Option<Self> {
        number.is_finite().then_some(Self(Repr::Float(number)))
    }

    /// A whole number from its digits, of which any number may follow a sign.
    pub fn from_digits(digits: &str) -> Option<Self> {
        let (minus, plain) = match digits.strip_prefix('-') {
            Some(plain) => ("-", plain),
            None => ("", digits.strip_prefix('+').unwrap_or(digits)),
        };
        if plain.is_empty() || !plain.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let plain = plain.trim_start_matches('0');
        let whole = format!("{minus}{}", if plain.is_empty() { "0" } else { plain });
        Some(match (whole.parse::<i64>(), whole.parse::<u64>()) {
            (Ok(number), _) => number.into(),
            (_, Ok(number)) => number.into(),
            _ => Self(Repr::Digits(whole.into())),
        })
    }

    /// A number as JSON writes it.
    pub(super) fn from_json(token: &str) -> Result<Self, serde_json::Error> {
        let whole = !token.contains(['.', 'e', 'E']) && token != "-0";
        match Self::from_digits(token).filter(|_| whole) {
            Some(number) => Ok(number),
            None => serde_json::from_str::<serde_json::Number>(token).map(Self::from),
        }
    }

    /// The number, if it is whole and fits.
    pub fn as_i64(&self) -> Option<i64> {
        match &self.0 {
            Repr::Signed(number) => Some(*number),
            _ => None,
        }
    }

    /// The number, if it is whole and fits.
    pub fn as_u64(&self) -> Option<u64> {
        match &self.0 {
            Repr::Signed(number) => u64::try_from(*number).ok(),
            Repr::Unsigned(number) => Some(*number),
            _ => None,
        }
    }

    /// The number, if it is whole and fits.
    pub fn as_i128(&self) -> Option<i128> {
        match &self.0 {
            Repr::Signed(number) => Some(i128::from(*number)),
            Repr::Unsigned(number) => Some(i128::from(*number)),
            Repr::Digits(digits) => digits.parse().ok(),
            Repr::Float(_) => None,
        }
    }

    /// The nearest float, if one is near.
    pub fn as_f64(&self) -> Option<f64> {
        match &self.0 {
            Repr::Signed(number) => Some(*number as f64),
            Repr::Unsigned(number) => Some(*number as f64),
            Repr::Float(number) => Some(*number),
            Repr::Digits(digits) => digits.parse().ok().filter(|number: &f64| number.is_finite()),
        }
    }

    /// The digits of a whole number beyond 64 bits.
    pub fn digits(&self) -> Option<&str> {
        match &self.0 {
            Repr::Digits(digits) => Some(digits),
            _ => None,
        }
    }

    /// For those who know no more than 64 bits: beyond these, the nearest float.
    pub(super) fn approximate(&self) -> serde_json::Number {
        match &self.0 {
            Repr::Signed(number) => (*number).into(),
            Repr::Unsigned(number) => (*number).into(),
            Repr::Float(number) => serde_json::Number::from_f64(*number).unwrap_or(0.into()),
            Repr::Digits(digits) => {
                let largest = if digits.starts_with('-') { f64::MIN } else { f64::MAX };
                serde_json::Number::from_f64(self.as_f64().unwrap_or(largest)).unwrap_or(0.into())
            }
        }
    }
}

impl From<i64> for Number {
    fn from(number: i64) -> Self {
        Self(Repr::Signed(number))
    }
}

impl From<i32> for Number {
    fn from(number: i32) -> Self {
        i64::from(number).into()
    }
}

impl From<u32> for Number {
    fn from(number: u32) -> Self {
        i64::from(number).into()
    }
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self(i64::try_from(number).map_or(Repr::Unsigned(number), Repr::Signed))
    }
}

impl From<usize> for Number {
    fn from(number: usize) -> Self {
        (number as u64).into()
    }
}

impl From<i128> for Number {
    fn from(number: i128) -> Self {
        match (i64::try_from(number), u64::try_from(number)) {
            (Ok(number), _) => number.into(),
            (_, Ok(number)) => number.into(),
            _ => Self(Repr::Digits(number.to_string().into())),
        }
    }
}

impl From<serde_json::Number> for Number {
    fn from(number: serde_json::Number) -> Self {
        match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => Self(Repr::Float(number.as_f64().unwrap_or_default())),
        }
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Repr::Signed(number) => serializer.serialize_i64(*number),
            Repr::Unsigned(number) => serializer.serialize_u64(*number),
            Repr::Float(number) => serializer.serialize_f64(*number),
            Repr::Digits(digits) => {
                RawValue::from_string(digits.to_string()).map_err(S::Error::custom)?.serialize(serializer)
            }
        }
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.digits() {
            Some(digits) => f.write_str(digits),
            None => write!(f, "{}", self.approximate()),
        }
    }
}
