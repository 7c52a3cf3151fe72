//! What sorts of events there are, and what the payload of each holds. One table: the check on the way in, the JSON
//! schemas and `docs/events.md` are made of it.

mod check;
mod schema;
mod table;

use std::borrow::Cow;

use caudal_types::{ErrorKind, Explain, nearest, shorten};

pub use check::{PayloadError, PayloadFault};
pub use table::Kind;
pub(crate) use table::LEVELS;

/// Most bytes of an event type's name.
pub const LONGEST_NAME: usize = 100;

/// A field of a payload.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// What it is called; names after the first are understood as well.
    pub names: &'static [&'static str],
    /// What its value is; `null` stands for "not said" everywhere.
    pub shape: Shape,
    /// Whether an event is nothing without it.
    pub required: bool,
    /// What it says.
    pub meaning: &'static str,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    /// A string.
    Text,
    /// A string that is one of these.
    OneOf(&'static [&'static str]),
    /// A number within these bounds.
    Number(f64, f64),
    /// A number without a fraction within these bounds.
    Integer(i64, i64),
    /// `true` or `false`.
    Flag,
    /// An array.
    List,
    /// An object.
    Object,
    /// Anything.
    Any,
}

/// A name that is no event type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KindError {
    /// No type of ours, and none that says whose it is.
    #[error("there is no event type {name:?}{}", nearest.map(|name| format!("; did you mean {name}?")).unwrap_or_default())]
    Unknown {
        /// The name.
        name: String,
        /// Which one may have been meant.
        nearest: Option<&'static str>,
    },
    /// A name of somebody's own that cannot be one.
    #[error("{0:?} is no name of an event type")]
    Malformed(String),
}

impl Explain for KindError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidEvent
    }

    fn hint(&self) -> Cow<'static, str> {
        match self {
            Self::Unknown { nearest: Some(_), .. } => "docs/events.md lists all types".into(),
            Self::Unknown { .. } => {
                "docs/events.md lists all; put a name of your own before a colon or dot, such as clinic:TRIAGE_NOTE".into()
            }
            Self::Malformed(_) => {
                "write NAMESPACE:NAME or NAMESPACE.NAME, at most 100 letters, digits, dots, colons, dashes and underscores"
                    .into()
            }
        }
    }
}

impl Kind {
    /// Which type `name` is: one of ours, or `None` for one that belongs to somebody else, which has a namespace before
    /// a colon or dot (`clinic:TRIAGE_NOTE`) and may say whatever it likes.
    ///
    /// # Errors
    /// It is neither.
    pub fn read(name: &str) -> Result<Option<Self>, KindError> {
        if let Some(kind) = Self::from_name(name) {
            return Ok(Some(kind));
        }
        let said = || shorten(name).into_owned();
        let Some((space, rest)) = name.split_once([':', '.']) else {
            return Err(KindError::Unknown {
                nearest: nearest(name, Self::ALL.iter().map(|kind| kind.name())),
                name: said(),
            });
        };
        let letters = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte))
        };
        let fits = name.len() <= LONGEST_NAME && letters(space) && letters(rest);
        if fits { Ok(None) } else { Err(KindError::Malformed(said())) }
    }
}

impl Shape {
    /// What it is, in words.
    pub fn words(self) -> Cow<'static, str> {
        match self {
            Self::Text => "a string".into(),
            Self::OneOf(words) => format!("one of {}", words.join(", ")).into(),
            Self::Number(least, most) => format!("a number{}", bounds(least, most, f64::MAX)).into(),
            Self::Integer(least, most) => format!("a whole number{}", bounds(least, most, i64::MAX)).into(),
            Self::Flag => "true or false".into(),
            Self::List => "an array".into(),
            Self::Object => "an object".into(),
            Self::Any => "anything".into(),
        }
    }
}

fn bounds<N: std::fmt::Display + PartialEq>(least: N, most: N, endless: N) -> String {
    if most == endless { format!(" from {least}") } else { format!(" from {least} to {most}") }
}
