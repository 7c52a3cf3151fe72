//! Who goes first when not all can.

use std::{fmt, str::FromStr};

/// Entries of a higher priority leave the queue first; among equals, the older one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub enum Priority {
    /// Served before all others.
    High,
    /// What a request has when it says nothing.
    #[default]
    Normal,
    /// Served when nothing else waits.
    Low,
}

impl Priority {
    /// All levels, first served first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// The level behind KServe's number: 1 is the highest, larger numbers are lower, 0 is the default.
    pub fn from_level(level: u64) -> Self {
        match level {
            1 => Self::High,
            0 | 2 => Self::Normal,
            _ => Self::Low,
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        })
    }
}

/// A priority that is neither a name nor a number we know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownPriority;

impl fmt::Display for UnknownPriority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("priority is high, normal or low, or KServe's number (1 is the highest)")
    }
}

impl std::error::Error for UnknownPriority {}

impl FromStr for Priority {
    type Err = UnknownPriority;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "high" => Ok(Self::High),
            "normal" => Ok(Self::Normal),
            "low" => Ok(Self::Low),
            number => number.parse().map(Self::from_level).map_err(|_| UnknownPriority),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_kserve_numbers_are_read() {
        assert_eq!("high".parse(), Ok(Priority::High));
        assert_eq!("1".parse(), Ok(Priority::High));
        assert_eq!("0".parse(), Ok(Priority::Normal));
        assert_eq!("7".parse(), Ok(Priority::Low));
        assert_eq!("urgent".parse::<Priority>(), Err(UnknownPriority));
    }

    #[test]
    fn order_is_order_of_service() {
        assert!(Priority::High < Priority::Normal && Priority::Normal < Priority::Low);
    }
}
