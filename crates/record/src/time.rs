//! Times as people and JSON write them: RFC 3339, in UTC, with microseconds.

use std::time::{Duration, UNIX_EPOCH};

use caudal_store::Time;

/// `time` as in `2026-01-31T12:00:00.000000Z`. Times before 1970, which only a broken clock tells, count as 1970.
pub fn rfc3339(time: Time) -> String {
    let since = Duration::from_micros(u64::try_from(time).unwrap_or(0));
    humantime::format_rfc3339_micros(UNIX_EPOCH + since).to_string()
}

/// What [`rfc3339`] wrote, or anything else that is RFC 3339 in UTC.
pub fn parse(text: &str) -> Option<Time> {
    let time = humantime::parse_rfc3339(text).ok()?;
    Time::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_micros()).ok()
}
