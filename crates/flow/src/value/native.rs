//! Rust values among the others.

use std::{
    any::{Any, TypeId},
    ops::Deref,
    sync::Arc,
};

use serde::{Serialize, de::DeserializeOwned};

use super::{Number, Value};

/// What a typed step takes and gives. It is written as JSON only where that is needed: for a key of the cache, for a
/// durable run, in a template.
pub trait Data: Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Data for T {}

trait Written: Any + Send + Sync {
    fn write(&self, to: &mut Vec<u8>) -> Result<(), serde_json::Error>;

    fn reads_back(&self) -> bool;
}

impl<T: Data> Written for T {
    fn write(&self, to: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        serde_json::to_writer(to, self)
    }

    fn reads_back(&self) -> bool {
        let read = |json: &[u8]| serde_json::from_slice::<Value>(json).ok();
        let Ok(json) = serde_json::to_vec(self) else { return false };
        let again = serde_json::from_slice::<T>(&json).and_then(|again| serde_json::to_vec(&again));
        // Compared as values: some maps write their names in another order each time.
        again.is_ok_and(|again| again == json || read(&again).is_some_and(|again| Some(again) == read(&json)))
    }
}

/// A Rust value, shared.
#[derive(Clone)]
pub struct Native(Arc<dyn Written>);

impl Native {
    /// Writes it as JSON.
    pub(super) fn write(&self, to: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        self.0.write(to)
    }

    /// The same without Rust's types.
    pub(super) fn plain(&self) -> Result<Value, serde_json::Error> {
        let mut json = Vec::new();
        self.write(&mut json)?;
        serde_json::from_slice(&json)
    }

    /// Whether JSON has all that it is, as far as its own type tells.
    pub(super) fn reads_back(&self) -> bool {
        self.0.reads_back()
    }

    pub(super) fn size(&self) -> usize {
        size_of_val(&*self.0)
    }
}

/// A typed value taken out of a [`Value`].
#[derive(Debug)]
pub enum Held<T> {
    /// The one that the step before made.
    Shared(Arc<T>),
    /// One read from JSON.
    Own(T),
}

impl<T> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Shared(shared) => shared,
            Self::Own(own) => own,
        }
    }
}

impl<T: Clone> Held<T> {
    /// The value itself; a copy, if others hold it too.
    pub fn into_own(self) -> T {
        match self {
            Self::Shared(shared) => Arc::unwrap_or_clone(shared),
            Self::Own(own) => own,
        }
    }
}

/// `value` as `U`, if `T` is `U`: known when the program is compiled.
fn exactly<T: 'static, U: 'static>(value: T) -> Result<U, T> {
    if TypeId::of::<T>() != TypeId::of::<U>() {
        return Err(value);
    }
    let mut value = Some(value);
    match (&mut value as &mut dyn Any).downcast_mut::<Option<U>>().and_then(Option::take) {
        Some(same) => Ok(same),
        None => unreachable!("the types are the same"),
    }
}

macro_rules! simple {
    ($value:ident, $($type:ty => $made:expr,)+) => {
        $(let $value = match exactly::<_, $type>($value) {
            Ok(simple) => return $made(simple),
            Err(other) => other,
        };)+
    };
}

impl Value {
    /// The value that is `data`. Numbers, texts and the like need no room of their own.
    pub fn of<T: Data>(data: T) -> Self {
        simple!(
            data,
            Self => |value| value,
            () => |()| Self::Null,
            bool => Self::Bool,
            i64 => |number: i64| Self::Number(number.into()),
            u64 => |number: u64| Self::Number(number.into()),
            i32 => |number: i32| Self::Number(number.into()),
            u32 => |number: u32| Self::Number(number.into()),
            f64 => |number: f64| Number::from_f64(number).map_or(Self::Null, Self::Number),
            String => |text: String| Self::Text(text.into()),
        );
        Self::Native(Native(Arc::new(data)))
    }

    /// The typed value; `None` in place of an error if it is of another type.
    pub fn to<T: Data>(&self) -> Result<Held<T>, serde_json::Error> {
        if let Self::Native(native) = self {
            let any: Arc<dyn Any + Send + Sync> = native.0.clone();
            if let Ok(shared) = any.downcast::<T>() {
                return Ok(Held::Shared(shared));
            }
        }
        if let Some(simple) = self.simple::<T>() {
            return Ok(Held::Own(simple));
        }
        let mut json = Vec::new();
        self.write_json(&mut json)?;
        serde_json::from_slice(&json).map(Held::Own)
    }

    fn simple<T: Data>(&self) -> Option<T> {
        if TypeId::of::<T>() == TypeId::of::<Self>() {
            return exactly(self.clone()).ok();
        }
        match self {
            Self::Bool(yes) => exactly(*yes).ok(),
            Self::Number(number) => match number.as_i64() {
                Some(number) => exactly::<i64, T>(number).ok(),
                None => exactly::<f64, T>(number.as_f64()?).ok(),
            },
            _ => None,
        }
    }
}
