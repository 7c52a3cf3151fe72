//! What time it is. Tests bring a clock of their own.

use std::{
    fmt,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::record::Time;

/// Tells the time. It may stand still or go backwards; a stream's times do not (see [`Clock::after`]).
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Time + Send + Sync>);

impl Clock {
    /// The machine's.
    pub fn system() -> Self {
        Self::new(|| match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Time::try_from(since.as_micros()).unwrap_or(Time::MAX),
            Err(before) => -Time::try_from(before.duration().as_micros()).unwrap_or(Time::MAX),
        })
    }

    /// Any other.
    pub fn new(now: impl Fn() -> Time + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// What time it is.
    pub fn now(&self) -> Time {
        (self.0)()
    }

    /// What time it is, and never earlier than `last`: where the clock was put back, time stands still.
    pub fn after(&self, last: Time) -> Time {
        self.now().max(last)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
