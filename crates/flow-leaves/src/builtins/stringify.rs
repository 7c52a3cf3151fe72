//! `stringify`: a value as a text.

use caudal_flow::{Call, Registry, Value};

use super::{Nothing, text};
use crate::plain::plain;

pub(super) fn register(registry: &mut Registry) {
    plain::<Nothing>(registry, "stringify", "Returns its input as text: text unchanged, anything else as JSON.", work);
}

fn work(_: &Value, _: &Nothing, call: &Call) -> caudal_flow::Answer {
    Ok(match &call.input {
        Value::Text(_) => call.input.clone(),
        other => text(other).into(),
    })
}
