//! What goes from step to step: values that are shared and never change, so that whoever holds one needs no copy.

mod canonical;
mod json;
mod map;
mod native;

use std::{fmt, sync::Arc};

use bytes::Bytes;
use serde_json::Number;

pub(crate) use canonical::Reading;
pub use canonical::{Canonical, write_canonical};
pub use json::OutOfBounds;
pub use map::Map;
pub use native::{Data, Held, Native};

/// A value. To clone one is to count one more that holds it.
#[derive(Clone, Default)]
pub enum Value {
    /// Nothing.
    #[default]
    Null,
    /// Yes or no.
    Bool(bool),
    /// A number, as JSON has them.
    Number(Number),
    /// A text.
    Text(Arc<str>),
    /// Values in an order.
    List(Arc<[Value]>),
    /// Values by name.
    Map(Map),
    /// Bytes, such as a picture's. In JSON: `{"$bytes": "<base64>"}`.
    Bytes(Bytes),
    /// A Rust value of a typed pipeline. In JSON: as its `Serialize` says.
    Native(Native),
}

impl Value {
    /// A text.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Text(text.into())
    }

    /// Values in an order.
    pub fn list(values: impl IntoIterator<Item = Self>) -> Self {
        Self::List(values.into_iter().collect())
    }

    /// What stands under `name`, if this is a map that has it.
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Map(map) => map.get(name),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is one.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Number(number) => number.as_f64(),
            _ => None,
        }
    }

    /// The whole number, if it is one.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Number(number) => number.as_i64(),
            _ => None,
        }
    }

    /// The map, if it is one.
    pub fn as_map(&self) -> Option<&Map> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The values, if it is a list.
    pub fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::List(values) => Some(values),
            _ => None,
        }
    }

    /// Whether it counts as yes: as Python has it, all but nothing, zero and what is empty.
    pub fn truthy(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(yes) => *yes,
            Self::Number(number) => number.as_f64() != Some(0.0),
            Self::Text(text) => !text.is_empty(),
            Self::List(values) => !values.is_empty(),
            Self::Map(map) => !map.is_empty(),
            Self::Bytes(bytes) => !bytes.is_empty(),
            Self::Native(native) => native.plain().is_ok_and(|value| value.truthy()),
        }
    }

    /// What sort of value it is, in JSON's words.
    pub fn sort(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Number(_) => "number",
            Self::Text(_) => "string",
            Self::List(_) => "array",
            Self::Map(_) => "object",
            Self::Bytes(_) => "bytes",
            Self::Native(_) => "native",
        }
    }

    /// Without Rust values: what others than their own step can look into. Fails if one cannot be written as JSON.
    pub fn plain(&self) -> Result<Self, serde_json::Error> {
        match self {
            Self::Native(native) => native.plain(),
            other => Ok(other.clone()),
        }
    }

    /// Whether no Rust value is in it.
    pub(crate) fn is_plain(&self) -> bool {
        match self {
            Self::Native(_) => false,
            Self::List(values) => values.iter().all(Self::is_plain),
            Self::Map(map) => map.iter().all(|(_, value)| value.is_plain()),
            _ => true,
        }
    }

    /// Whether all Rust values in it are the same once they have been written and read.
    pub(crate) fn reads_back(&self) -> bool {
        match self {
            Self::Native(native) => native.reads_back(),
            Self::List(values) => values.iter().all(Self::reads_back),
            Self::Map(map) => map.iter().all(|(_, value)| value.reads_back()),
            _ => true,
        }
    }

    /// About how many bytes it holds on the heap.
    pub fn size(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) | Self::Number(_) => 0,
            Self::Text(text) => text.len() + 16,
            Self::List(values) => values.iter().map(|value| size_of::<Self>() + value.size()).sum::<usize>() + 16,
            Self::Map(map) => map.iter().map(|(name, value)| name.len() + 56 + value.size()).sum::<usize>() + 16,
            Self::Bytes(bytes) => bytes.len() + 32,
            Self::Native(native) => native.size(),
        }
    }
}

impl PartialEq for Value {
    /// Rust values are equal where their JSON is.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Number(a), Self::Number(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::List(a), Self::List(b)) => Arc::ptr_eq(a, b) || a == b,
            (Self::Map(a), Self::Map(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Native(_), _) | (_, Self::Native(_)) => match (self.plain(), other.plain()) {
                (Ok(a), Ok(b)) => a == b,
                _ => false,
            },
            _ => false,
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Value {
    /// As JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_json())
    }
}

macro_rules! from {
    ($($type:ty => |$value:ident| $made:expr,)+) => {
        $(impl From<$type> for Value {
            fn from($value: $type) -> Self {
                $made
            }
        })+
    };
}

from! {
    bool => |yes| Self::Bool(yes),
    i32 => |number| Self::Number(number.into()),
    i64 => |number| Self::Number(number.into()),
    u32 => |number| Self::Number(number.into()),
    u64 => |number| Self::Number(number.into()),
    usize => |number| Self::Number(number.into()),
    // JSON has neither infinities nor NaN.
    f64 => |number| Number::from_f64(number).map_or(Self::Null, Self::Number),
    &str => |text| Self::text(text),
    String => |text| Self::text(text),
    Arc<str> => |text| Self::Text(text),
    Bytes => |bytes| Self::Bytes(bytes),
    Map => |map| Self::Map(map),
    Vec<Value> => |values| Self::List(values.into()),
}

/// A value as one writes JSON: `value!({"name": "x", "numbers": [1, 2]})`.
#[macro_export]
macro_rules! value {
    ($($json:tt)+) => { $crate::Value::from($crate::serde_json::json!($($json)+)) };
}
