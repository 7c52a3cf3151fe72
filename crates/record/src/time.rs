//! Times as people and JSON write them: RFC 3339, in UTC, with microseconds.

use std::time::{Duration, UNIX_EPOCH};

use caudal_store::Time;

/// `2026-11-21T22:36:39.000001Z` for microseconds since 1970. Times before, which only a broken clock tells, count as 1970.
pub fn iso(time: Time) -> String {
    let since = Duration::from_micros(u64::try_from(time).unwrap_or(0));
    humantime::format_rfc3339_micros(UNIX_EPOCH + since).to_string()
}

/// Reads a time as other systems write it: `2025-10-29T10:00:00.5-06:00`, with a space for the `T`, or without an offset,
/// which counts as UTC. Times before 1970 are none.
pub(crate) fn parse(text: &str) -> Option<Time> {
    let text = text.trim();
    let (date, rest) = text.split_at_checked(10)?;
    let clock = rest.strip_prefix(['T', 't', ' '])?;
    let (clock, offset) = match clock.find(['Z', 'z', '+', '-']) {
        Some(at) => (&clock[..at], offset(&clock[at..])?),
        None => (clock, 0),
    };
    // humantime asks for seconds and for at most nine digits behind them.
    let clock = if clock.len() == 5 { format!("{clock}:00") } else { clock.get(..clock.len().min(18))?.to_owned() };
    let moment = humantime::parse_rfc3339(&format!("{date}T{clock}Z")).ok()?;
    let micros = Time::try_from(moment.duration_since(UNIX_EPOCH).ok()?.as_micros()).ok()?;
    Some(micros - offset * 1_000_000).filter(|micros| *micros >= 0)
}

/// Seconds of `Z`, `+05:30`, `-0600` or `+02`.
fn offset(text: &str) -> Option<Time> {
    if text.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let digits: String = text[1..].chars().filter(|letter| *letter != ':').collect();
    let (hours, minutes) = digits.split_at_checked(2)?;
    let minutes: Time = if minutes.is_empty() { 0 } else { minutes.parse().ok()? };
    let hours: Time = hours.parse().ok()?;
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_other_systems_are_read() {
        for (text, expected) in [
            ("2025-10-29T10:00:00+00:00", "2025-10-29T10:00:00.000000Z"),
            ("2025-10-29T10:00:00.123456-06:00", "2025-10-29T16:00:00.123456Z"),
            ("2025-10-29 10:00:00.5+0530", "2025-10-29T04:30:00.500000Z"),
            ("2025-10-29T10:00:00", "2025-10-29T10:00:00.000000Z"),
            ("2025-10-29T10:00Z", "2025-10-29T10:00:00.000000Z"),
            ("2025-10-29T10:00:00.123456789123Z", "2025-10-29T10:00:00.123456Z"),
        ] {
            assert_eq!(parse(text).map(iso).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn text_that_is_no_time_is_none() {
        for text in [
            "",
            "yesterday",
            "2025-10-29",
            "2025-13-29T10:00:00Z",
            "1950-01-01T00:00:00Z",
            "2025-10-29T10:00:00+99:00",
            "ñañañañañañ",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
