//! Schedules of requests in an open loop.

use std::time::Duration;

use crate::LoadError;

/// Requests per second.
const RATE_RANGE: std::ops::RangeInclusive<f64> = 0.001..=1_000_000.0;
/// Maximum duration of a load.
pub(crate) const MAX_DURATION: Duration = Duration::from_secs(24 * 3600);

/// Times of requests.
#[derive(Debug, Clone)]
pub enum Schedule {
    /// At equal intervals, with the requests in turn.
    Constant {
        /// Requests per second.
        rate: f64,
        /// Duration, including the warm-up.
        duration: Duration,
    },
    /// As from many independent clients (a Poisson process): intervals are distributed exponentially.
    Poisson {
        /// Mean requests per second.
        rate: f64,
        /// Duration, including the warm-up.
        duration: Duration,
        /// Random seed; equal seeds produce equal times.
        seed: u64,
    },
    /// At these times, in ascending order, each with the number of its request.
    At(Vec<(Duration, usize)>),
}

impl Schedule {
    /// Checks rate and duration.
    pub(crate) fn check_bounds(&self) -> Result<(), LoadError> {
        if let Self::Constant { rate, .. } | Self::Poisson { rate, .. } = self {
            check_rate(*rate)?;
        }
        check_duration("the duration", self.duration())
    }

    /// Time from the start to the last request.
    pub fn duration(&self) -> Duration {
        match self {
            Self::Constant { duration, .. } | Self::Poisson { duration, .. } => *duration,
            Self::At(arrivals) => arrivals.last().map_or(Duration::ZERO, |(at, _)| *at),
        }
    }

    /// Number of requests; its mean for a random schedule.
    pub fn request_count(&self) -> u64 {
        match self {
            Self::Constant { rate, duration } => (rate * duration.as_secs_f64()).ceil() as u64,
            Self::Poisson { rate, duration, .. } => (rate * duration.as_secs_f64()).round() as u64,
            Self::At(arrivals) => arrivals.len() as u64,
        }
    }

    /// Times in ascending order, each with the number of one of `requests` requests.
    pub(crate) fn arrival_times(&self, requests: usize) -> Box<dyn Iterator<Item = (Duration, usize)> + Send + '_> {
        let round_robin = move |(number, at): (usize, Duration)| (at, number % requests.max(1));
        match self {
            Self::Constant { rate, duration } => {
                let at = move |number: u64| Duration::from_secs_f64(number as f64 / rate);
                Box::new((0..).map(at).take_while(|at| at < duration).enumerate().map(round_robin))
            }
            Self::Poisson { rate, duration, seed } => {
                let (mut chance, mut at) = (fastrand::Rng::with_seed(*seed), 0.0);
                let next = move || {
                    // 1 - x is never 0, so its logarithm is finite.
                    at += -(1.0 - chance.f64()).ln() / rate;
                    Some(Duration::from_secs_f64(at))
                };
                Box::new(std::iter::from_fn(next).take_while(|at| at < duration).enumerate().map(round_robin))
            }
            Self::At(arrivals) => Box::new(arrivals.iter().copied()),
        }
    }
}

fn check_rate(rate: f64) -> Result<(), LoadError> {
    match RATE_RANGE.contains(&rate) {
        true => Ok(()),
        false => {
            let bounds = format!("between {} and {} requests per second", RATE_RANGE.start(), RATE_RANGE.end());
            Err(LoadError::out_of_bounds("the rate", rate, bounds))
        }
    }
}

pub(crate) fn check_duration(what: &'static str, length: Duration) -> Result<(), LoadError> {
    match length <= MAX_DURATION {
        true => Ok(()),
        false => Err(LoadError::out_of_bounds(what, format!("{} s", length.as_secs_f64()), "at most a day")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn times(schedule: &Schedule) -> Vec<f64> {
        schedule.arrival_times(1).map(|(at, _)| at.as_secs_f64()).collect()
    }

    #[test]
    fn constant_schedule_has_equal_intervals() {
        let schedule = Schedule::Constant { rate: 4.0, duration: SECOND };
        assert_eq!(times(&schedule), [0.0, 0.25, 0.5, 0.75]);
        assert_eq!(schedule.request_count(), 4);
        let long = Schedule::Constant { rate: 1000.0, duration: 3600 * SECOND };
        let last = long.arrival_times(1).last().unwrap().0;
        assert_eq!(last, Duration::from_millis(3_599_999), "rounding errors do not accumulate");
    }

    #[test]
    fn constant_schedule_uses_requests_in_turn() {
        let schedule = Schedule::Constant { rate: 5.0, duration: SECOND };
        let turns: Vec<usize> = schedule.arrival_times(3).map(|(_, request)| request).collect();
        assert_eq!(turns, [0, 1, 2, 0, 1]);
    }

    #[test]
    fn poisson_schedule_is_exponential_and_reproducible() {
        let schedule = |seed| Schedule::Poisson { rate: 1000.0, duration: 20 * SECOND, seed };
        let times_of_one = times(&schedule(1));
        assert_eq!(times_of_one, times(&schedule(1)));
        assert_ne!(times_of_one, times(&schedule(2)));
        assert!(times_of_one.is_sorted());
        // Of 20,000, four standard deviations are 566.
        assert!(times_of_one.len().abs_diff(20_000) < 566, "{}", times_of_one.len());
        // The standard deviation of an exponential distribution equals its mean.
        let gaps: Vec<f64> = times_of_one.windows(2).map(|two| two[1] - two[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let spread = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        assert!((spread / mean - 1.0).abs() < 0.05, "{}", spread / mean);
    }

    #[test]
    fn schedule_rejects_values_out_of_bounds() {
        let check = |rate, duration| Schedule::Constant { rate, duration }.check_bounds();
        check(0.5, SECOND).unwrap();
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e7] {
            assert!(check(rate, SECOND).is_err(), "{rate}");
        }
        assert!(check(1.0, 2 * MAX_DURATION).is_err());
    }
}
