//! Times of events as files of others have them.

use std::borrow::Cow;

use caudal_store::Time;
use serde_json::value::RawValue;

use super::Members;
use crate::{event::OCCURRED_AT, time::parse};

/// The time of an event as its file has it: that of an earlier import, else the first of its members that is a time.
pub(super) fn own_time(members: &Members<'_>) -> Option<Time> {
    let said = members.get("metadata").and_then(|said| serde_json::from_str::<Members<'_>>(said.get()).ok());
    let said = said.unwrap_or_default();
    let earlier = said.get("imported_at").and_then(|_| said.get(OCCURRED_AT));
    let own = ["timestamp", OCCURRED_AT, "created_at", "time"].into_iter().filter_map(|name| members.get(name));
    earlier.into_iter().chain(own).chain(said.get("timestamp")).find_map(|value| time_of(value))
}

/// A time as JSON: a text, or seconds, milliseconds or microseconds since 1970.
fn time_of(value: &RawValue) -> Option<Time> {
    if let Ok(text) = serde_json::from_str::<Cow<'_, str>>(value.get()) {
        return parse(&text);
    }
    let number: f64 = serde_json::from_str(value.get()).ok()?;
    let micros = match number {
        _ if number < 0.0 => return None,
        seconds if seconds < 1e11 => seconds * 1e6,
        millis if millis < 1e14 => millis * 1e3,
        micros => micros,
    };
    (micros < 253_402_300_800e6).then_some(micros as Time)
}
