//! `passthrough`: gives what it is given.

use caudal_flow::{Call, Registry, Value};

use super::Nothing;
use crate::plain::quick;

pub(super) fn register(registry: &mut Registry) {
    quick::<Nothing>(registry, "passthrough", "Returns its input unchanged.", work);
}

fn work(_: &Value, _: &Nothing, call: &Call) -> caudal_flow::Answer {
    Ok(call.input.clone())
}
