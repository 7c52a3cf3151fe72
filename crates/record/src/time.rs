//! Times as people and JSON write them: RFC 3339, in UTC, with microseconds.

use std::time::{Duration, UNIX_EPOCH};

use caudal_store::Time;

/// `2026-11-21T22:36:39.000001Z` for microseconds since 1970. Times before, which only a broken clock tells, count as 1970.
pub fn iso(time: Time) -> String {
    let since = Duration::from_micros(u64::try_from(time).unwrap_or(0));
    humantime::format_rfc3339_micros(UNIX_EPOCH + since).to_string()
}
