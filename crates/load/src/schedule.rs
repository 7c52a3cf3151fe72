//! When requests are sent in an open loop.

use std::time::Duration;

use crate::LoadError;

/// Requests a second.
const RATES: std::ops::RangeInclusive<f64> = 0.001..=1_000_000.0;
/// Longer loads are not planned.
pub(crate) const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// When which request is meant to be sent.
#[derive(Debug, Clone)]
pub enum Schedule {
    /// At equal distances, the requests in turn.
    Constant {
        /// Requests a second.
        rate: f64,
        /// How long requests are sent, warm-up included.
        duration: Duration,
    },
    /// As from many callers who do not know of each other (a Poisson process): distances are exponential.
    Poisson {
        /// Requests a second, on average.
        rate: f64,
        /// How long requests are sent, warm-up included.
        duration: Duration,
        /// Equal seeds give equal times.
        seed: u64,
    },
    /// At these times, in order, each with the number of its request.
    At(Vec<(Duration, usize)>),
}

impl Schedule {
    /// Checks rate and length.
    pub(crate) fn check(&self) -> Result<(), LoadError> {
        if let Self::Constant { rate, .. } | Self::Poisson { rate, .. } = self {
            check_rate(*rate)?;
        }
        check_length("the duration", self.duration())
    }

    /// From the start to the last request.
    pub fn duration(&self) -> Duration {
        match self {
            Self::Constant { duration, .. } | Self::Poisson { duration, .. } => *duration,
            Self::At(arrivals) => arrivals.last().map_or(Duration::ZERO, |(at, _)| *at),
        }
    }

    /// How many requests there are; on average, where chance decides.
    pub fn requests(&self) -> u64 {
        match self {
            Self::Constant { rate, duration } => (rate * duration.as_secs_f64()).ceil() as u64,
            Self::Poisson { rate, duration, .. } => (rate * duration.as_secs_f64()).round() as u64,
            Self::At(arrivals) => arrivals.len() as u64,
        }
    }

    /// Times in order, each with the number of one of `requests` requests.
    pub(crate) fn arrivals(&self, requests: usize) -> Box<dyn Iterator<Item = (Duration, usize)> + Send + '_> {
        let in_turn = move |(number, at): (usize, Duration)| (at, number % requests.max(1));
        match self {
            Self::Constant { rate, duration } => {
                let at = move |number: u64| Duration::from_secs_f64(number as f64 / rate);
                Box::new((0..).map(at).take_while(|at| at < duration).enumerate().map(in_turn))
            }
            Self::Poisson { rate, duration, seed } => {
                let (mut chance, mut at) = (fastrand::Rng::with_seed(*seed), 0.0);
                let next = move || {
                    // 1 - x is never 0, and its logarithm never infinite.
                    at += -(1.0 - chance.f64()).ln() / rate;
                    Some(Duration::from_secs_f64(at))
                };
                Box::new(std::iter::from_fn(next).take_while(|at| at < duration).enumerate().map(in_turn))
            }
            Self::At(arrivals) => Box::new(arrivals.iter().copied()),
        }
    }
}

fn check_rate(rate: f64) -> Result<(), LoadError> {
    match RATES.contains(&rate) {
        true => Ok(()),
        false => {
            let bounds = format!("between {} and {} requests a second", RATES.start(), RATES.end());
            Err(LoadError::bounds("the rate", rate, bounds))
        }
    }
}

pub(crate) fn check_length(what: &'static str, length: Duration) -> Result<(), LoadError> {
    match length <= LONGEST {
        true => Ok(()),
        false => Err(LoadError::bounds(what, format!("{} s", length.as_secs_f64()), "at most a day")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn times(schedule: &Schedule) -> Vec<f64> {
        schedule.arrivals(1).map(|(at, _)| at.as_secs_f64()).collect()
    }

    #[test]
    fn constant_arrivals_keep_their_distance() {
        let schedule = Schedule::Constant { rate: 4.0, duration: SECOND };
        assert_eq!(times(&schedule), [0.0, 0.25, 0.5, 0.75]);
        assert_eq!(schedule.requests(), 4);
        let long = Schedule::Constant { rate: 1000.0, duration: 3600 * SECOND };
        let last = long.arrivals(1).last().unwrap().0;
        assert_eq!(last, Duration::from_millis(3_599_999), "rounding does not add up");
    }

    #[test]
    fn requests_are_sent_in_turn() {
        let schedule = Schedule::Constant { rate: 5.0, duration: SECOND };
        let turns: Vec<usize> = schedule.arrivals(3).map(|(_, request)| request).collect();
        assert_eq!(turns, [0, 1, 2, 0, 1]);
    }

    #[test]
    fn poisson_arrivals_come_in_bursts_and_again_with_the_same_seed() {
        let schedule = |seed| Schedule::Poisson { rate: 1000.0, duration: 20 * SECOND, seed };
        let times_of_one = times(&schedule(1));
        assert_eq!(times_of_one, times(&schedule(1)));
        assert_ne!(times_of_one, times(&schedule(2)));
        assert!(times_of_one.is_sorted());
        // Of 20,000, four standard deviations are 566.
        assert!(times_of_one.len().abs_diff(20_000) < 566, "{}", times_of_one.len());
        // An exponential distribution is as wide as its mean.
        let gaps: Vec<f64> = times_of_one.windows(2).map(|two| two[1] - two[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let spread = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        assert!((spread / mean - 1.0).abs() < 0.05, "{}", spread / mean);
    }

    #[test]
    fn rates_and_lengths_have_bounds() {
        let check = |rate, duration| Schedule::Constant { rate, duration }.check();
        check(0.5, SECOND).unwrap();
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e7] {
            assert!(check(rate, SECOND).is_err(), "{rate}");
        }
        assert!(check(1.0, 2 * LONGEST).is_err());
    }
}
