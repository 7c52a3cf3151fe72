//! Memory levels, computed from percentages with hysteresis.

use serde::Serialize;

/// Severity of memory pressure, which decides the reaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Level {
    /// Enough memory.
    #[default]
    Normal,
    /// Cached memory is freed.
    Elevated,
    /// An alert is sent.
    High,
    /// New work is refused.
    Critical,
}

impl Level {
    /// All levels, in ascending order.
    pub const ALL: [Self; 4] = [Self::Normal, Self::Elevated, Self::High, Self::Critical];

    /// Name of the level.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Elevated => "elevated",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// Percentages at which levels start; infinity disables one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LevelThresholds {
    /// Start of [`Level::Elevated`].
    pub elevated: f64,
    /// Start of [`Level::High`].
    pub high: f64,
    /// Start of [`Level::Critical`].
    pub critical: f64,
}

impl LevelThresholds {
    /// The highest level whose threshold `percent` has reached.
    fn level_at(&self, percent: f64) -> Level {
        self.highest_where(|threshold| percent >= threshold)
    }

    /// The highest level whose threshold, less a margin, `percent` has reached.
    fn level_with_margin(&self, percent: f64) -> Level {
        self.highest_where(|threshold| percent >= threshold - HYSTERESIS_PERCENT.min(threshold / 10.0))
    }

    fn highest_where(&self, is_reached: impl Fn(f64) -> bool) -> Level {
        let thresholds = [(self.critical, Level::Critical), (self.high, Level::High), (self.elevated, Level::Elevated)];
        thresholds.into_iter().find(|(threshold, _)| is_reached(*threshold)).map_or(Level::Normal, |(_, level)| level)
    }
}

/// Percentage points below a threshold at which its level ends; a tenth of the threshold if that is less.
const HYSTERESIS_PERCENT: f64 = 3.0;

/// Consecutive readings that must be lower before a level falls, because memory freed during a burst is taken again.
const READINGS_BEFORE_FALL: u32 = 4;

/// The level over several readings. It rises immediately and falls late: while work is refused, memory falls, which
/// must not lead to accepting all of it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LevelTracker {
    level: Level,
    readings_below: u32,
}

impl LevelTracker {
    /// Updates the level with a reading of `percent`.
    pub fn update(&mut self, percent: f64, thresholds: &LevelThresholds) -> Level {
        let (reached, held) = (thresholds.level_at(percent), thresholds.level_with_margin(percent));
        if reached >= self.level {
            *self = Self { level: reached, readings_below: 0 };
        } else if held < self.level {
            self.readings_below += 1;
            if self.readings_below >= READINGS_BEFORE_FALL {
                *self = Self { level: held, readings_below: 0 };
            }
        } else {
            self.readings_below = 0;
        }
        self.level
    }

    /// The current level.
    pub fn level(&self) -> Level {
        self.level
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const THRESHOLDS: LevelThresholds = LevelThresholds { elevated: 80.0, high: 85.0, critical: 95.0 };

    fn check(percents: &[f64], expected: &[Level]) {
        let mut tracker = LevelTracker::default();
        let levels: Vec<Level> = percents.iter().map(|percent| tracker.update(*percent, &THRESHOLDS)).collect();
        assert_eq!(levels, expected, "{percents:?}");
    }

    use Level::{Critical, Elevated, High, Normal};

    #[test]
    fn level_rises_immediately() {
        check(&[50.0, 79.9, 80.0, 85.0, 95.0], &[Normal, Normal, Elevated, High, Critical]);
        check(&[50.0, 99.0], &[Normal, Critical]);
    }

    #[test]
    fn level_falls_after_several_readings_below_the_margin() {
        check(&[95.0, 91.9, 91.9, 91.9, 91.9], &[Critical, Critical, Critical, Critical, High]);
        check(&[95.0, 10.0, 10.0, 10.0, 10.0], &[Critical, Critical, Critical, Critical, Normal]);
        // 92 is 95 less the margin, so it is not below the margin.
        check(&[95.0, 92.0, 92.0, 92.0, 92.0, 92.0], &[Critical; 6]);
        // One higher reading restarts the count.
        check(&[95.0, 10.0, 10.0, 10.0, 93.0, 10.0, 10.0, 10.0], &[Critical; 8]);
    }

    #[test]
    fn level_falls_below_a_low_threshold() {
        let (mut tracker, thresholds) =
            (LevelTracker::default(), LevelThresholds { elevated: 1.0, high: 1.0, critical: 1.0 });
        assert_eq!(tracker.update(1.0, &thresholds), Critical);
        let levels: Vec<Level> = (0..4).map(|_| tracker.update(0.8, &thresholds)).collect();
        assert_eq!(levels, [Critical, Critical, Critical, Normal]);
    }

    #[test]
    fn disabled_level_is_never_reached() {
        let thresholds = LevelThresholds { critical: f64::INFINITY, ..THRESHOLDS };
        assert_eq!(LevelTracker::default().update(150.0, &thresholds), High);
    }

    proptest! {
        #[test]
        fn level_is_at_least_the_one_of_the_reading(percents in prop::collection::vec(0.0..110.0f64, 1..200)) {
            let mut tracker = LevelTracker::default();
            for percent in percents {
                prop_assert!(tracker.update(percent, &THRESHOLDS) >= THRESHOLDS.level_at(percent));
            }
        }

        #[test]
        fn level_falls_only_after_readings_below_the_margin(percents in prop::collection::vec(60.0..110.0f64, 1..300)) {
            let (mut tracker, mut seen) = (LevelTracker::default(), Vec::new());
            for percent in percents {
                let before = tracker.level();
                seen.push(percent);
                if tracker.update(percent, &THRESHOLDS) < before {
                    let last = &seen[seen.len() - READINGS_BEFORE_FALL as usize..];
                    prop_assert!(last.iter().all(|percent| THRESHOLDS.level_with_margin(*percent) < before), "{before:?} {last:?}");
                }
            }
        }

        #[test]
        fn level_is_stable_within_the_margin(wobble in prop::collection::vec(92.1..98.0f64, 1..300)) {
            let mut tracker = LevelTracker::default();
            tracker.update(93.0, &THRESHOLDS);
            let levels: Vec<Level> = wobble.into_iter().map(|percent| tracker.update(percent, &THRESHOLDS)).collect();
            let changes = levels.windows(2).filter(|pair| pair[0] != pair[1]).count();
            prop_assert!(changes <= 1, "{levels:?}");
        }
    }
}
