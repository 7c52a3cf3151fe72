//! `check_user_confirmation`: a yes or no of a person as a branch's name.

use caudal_flow::{Answer, Call, Registry, Value};

use super::{Nothing, text};
use crate::{plain::plain, settings::arguments};

const ABOUT: &str = "Returns `approved` for y, yes, true or an empty answer (`user_input`), and `denied` for any \
                    other.";

pub(super) fn register(registry: &mut Registry) {
    plain::<Nothing>(registry, "check_user_confirmation", ABOUT, work);
}

fn work(said: &Value, settings: &Nothing, call: &Call) -> Answer {
    let (_, answer) = arguments(said, settings, &call.input, "user_input", &[])?;
    let approved = match &answer {
        Value::Null => true,
        other => matches!(text(other).trim().to_lowercase().as_str(), "" | "y" | "yes" | "true"),
    };
    Ok(Value::text(if approved { "approved" } else { "denied" }))
}
