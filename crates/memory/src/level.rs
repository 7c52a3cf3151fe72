//! How short memory is. Pure: figures in, a level out.

use serde::Serialize;

/// How short memory is, and so what is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Level {
    /// There is enough.
    #[default]
    Normal,
    /// What is held for later is given back.
    Elevated,
    /// Somebody is told.
    High,
    /// New work is turned away.
    Critical,
}

impl Level {
    /// All of them, upward.
    pub const ALL: [Self; 4] = [Self::Normal, Self::Elevated, Self::High, Self::Critical];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Elevated => "elevated",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// From which percentage on a level holds; infinity where it never does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Steps {
    /// Of [`Level::Elevated`].
    pub elevated: f64,
    /// Of [`Level::High`].
    pub high: f64,
    /// Of [`Level::Critical`].
    pub critical: f64,
}

impl Steps {
    /// The highest level whose step `percent` has reached.
    fn reached(&self, percent: f64) -> Level {
        self.highest(|step| percent >= step)
    }

    /// The same, where a step is only left when `percent` is clearly below it.
    fn held(&self, percent: f64) -> Level {
        self.highest(|step| percent >= step - MARGIN.min(step / 10.0))
    }

    fn highest(&self, is_reached: impl Fn(f64) -> bool) -> Level {
        let steps = [(self.critical, Level::Critical), (self.high, Level::High), (self.elevated, Level::Elevated)];
        steps.into_iter().find(|(step, _)| is_reached(*step)).map_or(Level::Normal, |(_, level)| level)
    }
}

/// Percent by which memory must be below a step for its level to end, or a tenth of the step if that is less.
const MARGIN: f64 = 3.0;

/// Looks in a row that must agree before a level ends: memory that is given back in the middle of a burst comes again.
const CALM: u32 = 4;

/// The level of memory that is looked at again and again. It rises at once, and falls late: who sheds work sees memory
/// fall, and must not take that for a reason to let all of it in again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gauge {
    level: Level,
    calm: u32,
}

impl Gauge {
    /// The level after memory was found to be `percent` full.
    pub fn look(&mut self, percent: f64, steps: &Steps) -> Level {
        let (reached, held) = (steps.reached(percent), steps.held(percent));
        if reached >= self.level {
            *self = Self { level: reached, calm: 0 };
        } else if held < self.level {
            self.calm += 1;
            if self.calm >= CALM {
                *self = Self { level: held, calm: 0 };
            }
        } else {
            self.calm = 0;
        }
        self.level
    }

    /// The level as it is.
    pub fn level(&self) -> Level {
        self.level
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STEPS: Steps = Steps { elevated: 80.0, high: 85.0, critical: 95.0 };

    fn check(percents: &[f64], expected: &[Level]) {
        let mut gauge = Gauge::default();
        let levels: Vec<Level> = percents.iter().map(|percent| gauge.look(*percent, &STEPS)).collect();
        assert_eq!(levels, expected, "{percents:?}");
    }

    use Level::{Critical, Elevated, High, Normal};

    #[test]
    fn it_rises_at_once_and_as_far_as_it_must() {
        check(&[50.0, 79.9, 80.0, 85.0, 95.0], &[Normal, Normal, Elevated, High, Critical]);
        check(&[50.0, 99.0], &[Normal, Critical]);
    }

    #[test]
    fn it_falls_when_several_looks_agree_that_there_is_a_margin() {
        check(&[95.0, 91.9, 91.9, 91.9, 91.9], &[Critical, Critical, Critical, Critical, High]);
        check(&[95.0, 10.0, 10.0, 10.0, 10.0], &[Critical, Critical, Critical, Critical, Normal]);
        // 92 is 95 less the margin: not below it.
        check(&[95.0, 92.0, 92.0, 92.0, 92.0, 92.0], &[Critical; 6]);
        // One look that disagrees begins the count anew.
        check(&[95.0, 10.0, 10.0, 10.0, 93.0, 10.0, 10.0, 10.0], &[Critical; 8]);
    }

    #[test]
    fn a_low_step_can_be_left_too() {
        let (mut gauge, steps) = (Gauge::default(), Steps { elevated: 1.0, high: 1.0, critical: 1.0 });
        assert_eq!(gauge.look(1.0, &steps), Critical);
        let levels: Vec<Level> = (0..4).map(|_| gauge.look(0.8, &steps)).collect();
        assert_eq!(levels, [Critical, Critical, Critical, Normal]);
    }

    #[test]
    fn a_level_that_never_holds_is_never_reached() {
        let steps = Steps { critical: f64::INFINITY, ..STEPS };
        assert_eq!(Gauge::default().look(150.0, &steps), High);
    }

    proptest! {
        #[test]
        fn it_is_never_lower_than_what_is_reached(percents in prop::collection::vec(0.0..110.0f64, 1..200)) {
            let mut gauge = Gauge::default();
            for percent in percents {
                prop_assert!(gauge.look(percent, &STEPS) >= STEPS.reached(percent));
            }
        }

        #[test]
        fn it_falls_only_after_looks_that_were_all_clearly_below(percents in prop::collection::vec(60.0..110.0f64, 1..300)) {
            let (mut gauge, mut seen) = (Gauge::default(), Vec::new());
            for percent in percents {
                let before = gauge.level();
                seen.push(percent);
                if gauge.look(percent, &STEPS) < before {
                    let last = &seen[seen.len() - CALM as usize..];
                    prop_assert!(last.iter().all(|percent| STEPS.held(*percent) < before), "{before:?} {last:?}");
                }
            }
        }

        #[test]
        fn what_stays_within_the_margin_changes_it_once_at_most(wobble in prop::collection::vec(92.1..98.0f64, 1..300)) {
            let mut gauge = Gauge::default();
            gauge.look(93.0, &STEPS);
            let levels: Vec<Level> = wobble.into_iter().map(|percent| gauge.look(percent, &STEPS)).collect();
            let changes = levels.windows(2).filter(|pair| pair[0] != pair[1]).count();
            prop_assert!(changes <= 1, "{levels:?}");
        }
    }
}
