//! Whether a payload holds what its type of event asks for: a walk over its members, no tree.

use std::borrow::Cow;

use caudal_types::{ErrorKind, Explain};

use super::{Field, Kind, Shape};
use crate::members::{Members, text};

/// A payload that its type of event does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("payload of {}: {field} {fault}", kind.name())]
pub struct PayloadError {
    /// The type of event.
    pub kind: Kind,
    /// Which field.
    pub field: &'static str,
    /// What is wrong with it.
    pub fault: PayloadFault,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadFault {
    /// It must be there.
    #[error("is missing")]
    Missing,
    /// It is something else than it must be.
    #[error("must be {wanted}")]
    Wrong {
        /// What it must be.
        wanted: Cow<'static, str>,
    },
}

impl Explain for PayloadError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidEvent
    }

    fn hint(&self) -> Cow<'static, str> {
        let field = self.kind.fields().iter().find(|field| field.names.contains(&self.field));
        let shape = field.map_or(Cow::Borrowed("it"), |field| field.shape.words());
        format!("send {} in payload as {shape}; docs/events.md lists the fields of {}", self.field, self.kind.name())
            .into()
    }
}

impl Kind {
    /// Whether `payload`, a JSON object in canonical form, is one of such an event.
    ///
    /// # Errors
    /// A field is missing or something else than it must be; the first such.
    pub fn check(self, payload: &[u8]) -> Result<(), PayloadError> {
        let fields = self.fields();
        // Fields are few: a bit each says that a value was seen.
        let mut seen = 0u32;
        for (key, value) in Members::of_bytes(payload) {
            let Some(index) = fields.iter().position(|field| field.names.contains(&key)) else { continue };
            if value == "null" {
                continue;
            }
            seen |= 1 << index;
            if !fields[index].shape.takes(value) {
                let field = fields[index].names.iter().find(|name| **name == key).copied().unwrap_or_default();
                return Err(PayloadError {
                    kind: self,
                    field,
                    fault: PayloadFault::Wrong { wanted: fields[index].shape.words() },
                });
            }
        }
        let missing = |(index, field): &(usize, &Field)| field.required && seen & (1 << index) == 0;
        match fields.iter().enumerate().find(missing) {
            None => Ok(()),
            Some((_, field)) => Err(PayloadError { kind: self, field: field.names[0], fault: PayloadFault::Missing }),
        }
    }
}

impl Shape {
    /// Whether a value that stands so in JSON is of this shape.
    fn takes(self, value: &str) -> bool {
        let first = value.bytes().next().unwrap_or_default();
        match self {
            Self::Any => true,
            Self::Text => first == b'"',
            Self::OneOf(words) => text(value).is_some_and(|word| words.contains(&&*word)),
            Self::Flag => matches!(first, b't' | b'f'),
            Self::List => first == b'[',
            Self::Object => first == b'{',
            Self::Number(least, most) => value.parse::<f64>().is_ok_and(|number| (least..=most).contains(&number)),
            // 36.0 is a whole number, as JSON schemas have it.
            Self::Integer(least, most) => match value.parse::<i64>() {
                Ok(number) => (least..=most).contains(&number),
                Err(_) => value
                    .parse::<f64>()
                    .is_ok_and(|number| number.fract() == 0.0 && (least as f64..=most as f64).contains(&number)),
            },
        }
    }
}
