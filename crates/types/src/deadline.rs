//! When an answer stops being worth anything.

use std::time::{Duration, Instant};

/// The moment after which nobody waits for the answer any more; `NEVER` for callers who set none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// No deadline.
    pub const NEVER: Self = Self(None);

    /// The deadline at `moment`.
    pub fn at(moment: Instant) -> Self {
        Self(Some(moment))
    }

    /// The deadline `timeout` after `start`; a timeout too far away to be represented is none.
    pub fn after(start: Instant, timeout: Duration) -> Self {
        Self(start.checked_add(timeout))
    }

    /// The moment itself, if there is one.
    pub fn moment(self) -> Option<Instant> {
        self.0
    }

    /// Whether the deadline lies at or before `now`.
    pub fn passed(self, now: Instant) -> bool {
        self.0.is_some_and(|moment| moment <= now)
    }

    /// The earlier of two deadlines.
    #[must_use]
    pub fn sooner(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(a), Some(b)) => Self(Some(a.min(b))),
            (a, b) => Self(a.or(b)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sooner_of_two_wins_and_never_loses_to_any() {
        let now = Instant::now();
        let soon = Deadline::after(now, Duration::from_millis(5));
        let late = Deadline::after(now, Duration::from_secs(5));
        assert_eq!(soon.sooner(late), soon);
        assert_eq!(late.sooner(soon), soon);
        assert_eq!(Deadline::NEVER.sooner(late), late);
        assert_eq!(Deadline::NEVER.sooner(Deadline::NEVER), Deadline::NEVER);
    }

    #[test]
    fn a_deadline_has_passed_from_its_very_moment_on() {
        let now = Instant::now();
        assert!(Deadline::at(now).passed(now));
        assert!(!Deadline::after(now, Duration::from_nanos(1)).passed(now));
        assert!(!Deadline::NEVER.passed(now));
    }

    #[test]
    fn an_endless_timeout_is_no_deadline() {
        assert_eq!(Deadline::after(Instant::now(), Duration::MAX), Deadline::NEVER);
    }
}
