//! What can be wrong with a JSON text.

use std::borrow::Cow;

use caudal_types::{ErrorKind, Explain, shorten};

/// A JSON text that has no canonical form, or none that would be the same for every reader.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault}, at byte {at}")]
pub struct JsonError {
    /// Where, in bytes from the start of the text, from 0.
    pub at: usize,
    /// What.
    pub fault: Fault,
}

/// What is wrong at that place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nothing but white space.
    #[error("there is no JSON value")]
    Empty,
    /// Bytes that are not UTF-8.
    #[error("the text is not UTF-8")]
    NotUtf8,
    /// The text ends within a value.
    #[error("the text ends where {0} should follow")]
    CutOff(&'static str),
    /// Something else than the grammar wants.
    #[error("{found:?} stands where {wanted} should")]
    Unexpected {
        /// What stands there.
        found: char,
        /// What may.
        wanted: &'static str,
    },
    /// Something follows the value.
    #[error("{0:?} follows the value")]
    Trailing(char),
    /// `NaN`, `Infinity` or `-Infinity`, which some writers emit and JSON does not have.
    #[error("NaN and Infinity are not JSON")]
    NotANumber,
    /// A float beyond the range of 64 bits.
    #[error("the number is beyond what a 64-bit float holds")]
    NumberTooLarge,
    /// An integer of more digits than Python reads.
    #[error("the number has more than {limit} digits", limit = super::MOST_DIGITS)]
    NumberTooLong,
    /// A control character that must be escaped.
    #[error("the control character U+{0:04X} stands in a string without an escape")]
    ControlCharacter(u8),
    /// A backslash and what JSON does not have behind one.
    #[error("a backslash must be followed by one of \"\\/bfnrt or by u and four hexadecimal digits")]
    BadEscape,
    /// Half of a pair of surrogates, which no UTF-8 can say.
    #[error("half of a surrogate pair stands alone")]
    LoneSurrogate,
    /// Two members of one object with the same key: readers disagree about which one counts.
    #[error("the key {0:?} stands twice in one object")]
    DuplicateKey(String),
    /// Arrays and objects within each other, deeper than allowed.
    #[error("arrays and objects are nested deeper than {0}")]
    TooDeep(u8),
    /// The envelope lacks a field.
    #[error("the field {0} is missing")]
    MissingField(&'static str),
    /// The envelope has a field that would be lost.
    #[error("there is no field {name:?}{}", meant(*.nearest))]
    UnknownField {
        /// Its name.
        name: String,
        /// Which one may have been meant.
        nearest: Option<&'static str>,
    },
    /// A field of the envelope with another type of value than it takes.
    #[error("{field} must be {wanted}")]
    WrongType {
        /// Its name.
        field: &'static str,
        /// What it takes.
        wanted: &'static str,
    },
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; {name} may have been meant")).unwrap_or_default()
}

impl Fault {
    pub(super) fn at(self, at: usize) -> JsonError {
        JsonError { at, fault: self }
    }

    pub(super) fn duplicate(key: &str) -> Self {
        Self::DuplicateKey(shorten(key).into_owned())
    }
}

impl Explain for JsonError {
    fn kind(&self) -> ErrorKind {
        match self.fault {
            Fault::Empty => ErrorKind::EmptyBody,
            Fault::MissingField(_) | Fault::UnknownField { .. } | Fault::WrongType { .. } => {
                ErrorKind::InvalidParameter
            }
            _ => ErrorKind::InvalidJson,
        }
    }

    fn hint(&self) -> Cow<'static, str> {
        match &self.fault {
            Fault::Empty => "send a JSON value",
            Fault::NotUtf8 => "encode the text as UTF-8",
            Fault::CutOff(_) => "send the text whole",
            Fault::Unexpected { .. } | Fault::Trailing(_) => "write the text with a JSON library",
            Fault::NotANumber => "say null where there is no number",
            Fault::NumberTooLarge | Fault::NumberTooLong => "send very large numbers as strings",
            Fault::ControlCharacter(_) | Fault::BadEscape => "escape strings as a JSON library does",
            Fault::LoneSurrogate => "send the character whole; text was cut between two UTF-16 units",
            Fault::DuplicateKey(_) => "send each key once",
            Fault::TooDeep(_) => "flatten the value",
            Fault::MissingField(_) => "send event_type and payload",
            Fault::UnknownField { .. } => {
                "put what belongs to the event into payload, what is said about it into metadata"
            }
            Fault::WrongType { .. } => "see /docs for the fields of an event",
        }
        .into()
    }
}
