//! `flatten`: one level of lists less.

use caudal_flow::{Answer, Call, Registry, Value};

use super::Nothing;
use crate::{plain::plain, settings::arguments};

const ABOUT: &str = "Removes one level of nesting from a list (`items`): lists in it are replaced by their items, \
                    other items stay. A value that is not a list becomes an empty list.";

pub(super) fn register(registry: &mut Registry) {
    plain::<Nothing>(registry, "flatten", ABOUT, work);
}

fn work(said: &Value, settings: &Nothing, call: &Call) -> Answer {
    let (_, items) = arguments(said, settings, &call.input, "items", &[])?;
    let mut flat = Vec::new();
    for item in items.as_list().unwrap_or_default() {
        match item {
            Value::List(items) => flat.extend(items.iter().cloned()),
            other => flat.push(other.clone()),
        }
    }
    Ok(flat.into())
}
