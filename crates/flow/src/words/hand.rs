//! Values handed to the language, which looks into them where they are, and values taken back.

use std::{fmt, sync::Arc};

use minijinja::{
    Error, ErrorKind,
    value::{Enumerator, Object, ObjectExt, ObjectRepr, Value as Word, ValueKind},
};

use super::{DEPTH, OUTPUT_VALUES, meter, miss};
use crate::value::{Map, Value};

/// One of our lists, objects or bytes, which the language only looks into.
#[derive(Debug)]
pub(super) struct Handed(pub(super) Value);

impl Object for Handed {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        match &self.0 {
            Value::Map(_) => ObjectRepr::Map,
            Value::List(_) => ObjectRepr::Seq,
            _ => ObjectRepr::Plain,
        }
    }

    fn get_value(self: &Arc<Self>, key: &Word) -> Option<Word> {
        match &self.0 {
            Value::List(list) => {
                let place = key.as_usize()?;
                let item = list.get(place);
                if item.is_none() {
                    miss::note(place.to_string(), &self.0);
                }
                item.and_then(counted)
            }
            Value::Map(_) => self.get_value_by_str(key.as_str()?),
            _ => None,
        }
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Word> {
        let value = self.0.as_map()?.get(key);
        if value.is_none() {
            miss::note(key, &self.0);
        }
        value.map(hand)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match &self.0 {
            Value::List(list) => Enumerator::Seq(list.len()),
            Value::Map(_) => self.mapped_rev_enumerator(|this| {
                let names = this.0.as_map().into_iter().flat_map(Map::iter);
                let names: Vec<Word> = names.map(|(name, _)| Word::from(Arc::clone(name))).collect();
                Box::new(names.into_iter())
            }),
            _ => Enumerator::NonEnumerable,
        }
    }

    fn is_true(self: &Arc<Self>) -> bool {
        self.0.truthy()
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A value may hold the same often: what it is as text may be much more than what it is.
        if meter::whole(&self.0) { write!(f, "{}", self.0) } else { Ok(()) }
    }
}

/// Hands a value over, unless the expression has worked through as much as it may.
pub(super) fn counted(value: &Value) -> Option<Word> {
    meter::handed(value).then(|| hand(value))
}

/// Hands a value over.
pub(super) fn hand(value: &Value) -> Word {
    match value {
        Value::Null => Word::from(()),
        Value::Bool(yes) => Word::from(*yes),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Word::from(number),
            (None, Some(number)) => Word::from(number),
            (None, None) => Word::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::Text(text) => Word::from(Arc::clone(text)),
        Value::List(_) | Value::Map(_) | Value::Bytes(_) => Word::from_object(Handed(value.clone())),
        // What cannot be written is nothing that can be looked into.
        Value::Native(_) => value.plain().map_or_else(|_| Word::from(()), |plain| hand(&plain)),
    }
}

/// Takes a value back: one of ours as it was, others made anew.
pub(super) fn take(word: &Word) -> Result<Value, Error> {
    let mut left = OUTPUT_VALUES;
    within(word, DEPTH, &mut left)
}

fn within(word: &Word, depth: usize, left: &mut usize) -> Result<Value, Error> {
    let Some(less) = left.checked_sub(1) else {
        return Err(Error::new(ErrorKind::InvalidOperation, format!("it makes more than {OUTPUT_VALUES} values")));
    };
    *left = less;
    if let Some(handed) = word.downcast_object_ref::<Handed>() {
        return Ok(handed.0.clone());
    }
    Ok(match word.kind() {
        ValueKind::Undefined | ValueKind::None => Value::Null,
        ValueKind::Bool => Value::Bool(word.is_true()),
        ValueKind::Number => number(word),
        ValueKind::String => word.to_str().map_or(Value::Null, Value::Text),
        ValueKind::Bytes => Value::Bytes(bytes::Bytes::copy_from_slice(word.as_bytes().unwrap_or_default())),
        ValueKind::Seq | ValueKind::Iterable => {
            let depth = deeper(depth)?;
            let mut values = Vec::new();
            for item in word.try_iter()? {
                values.push(within(&item, depth, left)?);
            }
            values.into()
        }
        ValueKind::Map => {
            let depth = deeper(depth)?;
            let mut entries = Vec::new();
            for key in word.try_iter()? {
                let name = key.to_str().unwrap_or_else(|| key.to_string().into());
                entries.push((name, within(&word.get_item(&key)?, depth, left)?));
            }
            Value::Map(entries.into_iter().collect())
        }
        _ => Value::text(word.to_string()),
    })
}

fn deeper(depth: usize) -> Result<usize, Error> {
    let too_deep = || Error::new(ErrorKind::InvalidOperation, format!("what it makes is more than {DEPTH} deep"));
    depth.checked_sub(1).ok_or_else(too_deep)
}

fn number(word: &Word) -> Value {
    if !word.is_integer() {
        return f64::try_from(word.clone()).map_or(Value::Null, Value::from);
    }
    match (word.as_i64(), u64::try_from(word.clone())) {
        (Some(number), _) => number.into(),
        (None, Ok(number)) => number.into(),
        (None, Err(_)) => f64::try_from(word.clone()).map_or(Value::Null, Value::from),
    }
}
