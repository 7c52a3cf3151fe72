//! What a service owner watches: requests, failures and latency of the last minute, hour and day.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use caudal_observe::Snapshot;
use serde::Serialize;

/// What was counted of one route since the start.
#[derive(Debug, Clone)]
pub struct Counted {
    /// Times of all its requests, in nanoseconds.
    pub times: Snapshot,
    /// Answers whose status is 400 to 499.
    pub client_errors: u64,
    /// Answers whose status is 500 or more.
    pub server_errors: u64,
}

impl Counted {
    fn after(self, before: &Self) -> Self {
        Self {
            times: self.times.difference_from(&before.times),
            client_errors: self.client_errors.saturating_sub(before.client_errors),
            server_errors: self.server_errors.saturating_sub(before.server_errors),
        }
    }

    fn add(self, other: &Self) -> Self {
        Self {
            times: self.times.merged_with(&other.times),
            client_errors: self.client_errors + other.client_errors,
            server_errors: self.server_errors + other.server_errors,
        }
    }
}

/// One route in one bucket; times as places and counts of those that are not zero.
#[derive(Debug)]
struct Slice {
    route: usize,
    times: Vec<(u16, u32)>,
    sum: u64,
    client_errors: u64,
    server_errors: u64,
}

impl Slice {
    fn new(route: usize, counted: &Counted) -> Self {
        let times = counted
            .times
            .nonempty_buckets()
            .map(|(place, count)| (place as u16, count.min(u64::from(u32::MAX)) as u32));
        let (sum, times) = (counted.times.sum(), times.collect());
        Self { route, times, sum, client_errors: counted.client_errors, server_errors: counted.server_errors }
    }

    fn counted(&self) -> Counted {
        let parts = self.times.iter().map(|(place, count)| (usize::from(*place), u64::from(*count)));
        Counted {
            times: Snapshot::from_buckets(parts, self.sum),
            client_errors: self.client_errors,
            server_errors: self.server_errors,
        }
    }
}

#[derive(Debug)]
struct Bucket {
    /// Its end, in seconds since 1970.
    end: f64,
    slices: Vec<Slice>,
}

#[derive(Debug, Default)]
struct Past {
    buckets: VecDeque<Bucket>,
    before: Vec<Counted>,
}

/// Keeps figures of the last day in buckets of some seconds.
#[derive(Debug)]
pub struct Kpis {
    bucket: Duration,
    /// Buckets that are kept.
    most: usize,
    past: Mutex<Past>,
    /// When it was begun, in seconds since 1970.
    began: f64,
}

/// Figures of one window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figures {
    /// Requests answered.
    pub requests: u64,
    /// The same a second.
    pub requests_per_second: f64,
    /// Of them those whose status was 400 to 499.
    pub client_errors: u64,
    /// Those whose status was 500 or more.
    pub server_errors: u64,
    /// The latter as a part of all.
    pub error_rate: f64,
    /// The mean time, in milliseconds.
    pub mean_ms: Option<f64>,
    /// Half took at most this long.
    pub p50_ms: Option<f64>,
    /// 95 of a hundred did.
    pub p95_ms: Option<f64>,
    /// 99 of a hundred did.
    pub p99_ms: Option<f64>,
}

/// Figures of one bucket.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// The bucket's end, in seconds since 1970.
    pub at: f64,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
}

impl Figures {
    fn new(counted: Option<&Counted>, seconds: f64) -> Self {
        let requests = counted.map_or(0, |counted| counted.times.count());
        let quantile = |q| counted.and_then(|counted| counted.times.quantile(q)).map(|time| time as f64 / 1e6);
        let mean = |counted: &Counted| counted.times.sum() as f64 / counted.times.count() as f64 / 1e6;
        let server_errors = counted.map_or(0, |counted| counted.server_errors);
        Self {
            requests,
            requests_per_second: requests as f64 / seconds,
            client_errors: counted.map_or(0, |counted| counted.client_errors),
            server_errors,
            error_rate: server_errors as f64 / requests.max(1) as f64,
            mean_ms: counted.filter(|_| requests > 0).map(mean),
            p50_ms: quantile(0.5),
            p95_ms: quantile(0.95),
            p99_ms: quantile(0.99),
        }
    }
}

fn seconds(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl Kpis {
    /// Nothing yet; figures are kept for `retention` in spans of `bucket`.
    pub fn new(bucket: Duration, retention: Duration) -> Self {
        let most = (retention.as_secs_f64() / bucket.as_secs_f64()).ceil().max(1.0) as usize;
        Self { bucket, most, past: Mutex::default(), began: seconds(SystemTime::now()) }
    }

    /// How long a bucket is.
    pub fn bucket(&self) -> Duration {
        self.bucket
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A bucket ends at `now`, when routes are as `counted` says.
    pub fn mark(&self, counted: Vec<Counted>, now: SystemTime) {
        let mut past = self.past();
        let slices = since(&counted, &past.before).map(|(route, counted)| Slice::new(route, &counted)).collect();
        past.before = counted;
        if past.buckets.len() == self.most {
            past.buckets.pop_front();
        }
        past.buckets.push_back(Bucket { end: seconds(now), slices });
    }

    /// Figures of the last `window` until `now`, when routes are as `counted` says: of all routes that are `wanted`; and of
    /// the window before. A second's share is of the time since the beginning where that is shorter than the window.
    pub fn figures(
        &self,
        window: Duration,
        wanted: impl Fn(usize) -> bool,
        counted: &[Counted],
        now: SystemTime,
    ) -> (Figures, Figures) {
        let (now, length) = (seconds(now), window.as_secs_f64());
        let past = self.past();
        let within = |from: f64, to: f64| {
            let buckets = past.buckets.iter().filter(move |bucket| bucket.end > from && bucket.end <= to);
            let slices = buckets.flat_map(|bucket| &bucket.slices);
            slices.filter(|slice| wanted(slice.route)).map(Slice::counted)
        };
        let latest = since(counted, &past.before).filter(|(place, _)| wanted(*place));
        let together = |a: Counted, b: Counted| a.add(&b);
        let this = within(now - length, now).chain(latest.map(|(_, counted)| counted)).reduce(together);
        let before = within(now - 2.0 * length, now - length).reduce(together);
        let lived = Some(now - self.began).filter(|lived| *lived > 0.0).unwrap_or(length);
        (Figures::new(this.as_ref(), length.min(lived.max(1.0))), Figures::new(before.as_ref(), length))
    }

    /// Figures of each bucket of the last `window`.
    pub fn series(&self, window: Duration, wanted: impl Fn(usize) -> bool, now: SystemTime) -> Vec<Point> {
        let from = seconds(now) - window.as_secs_f64();
        let past = self.past();
        let point = |bucket: &Bucket| {
            let slices = bucket.slices.iter().filter(|slice| wanted(slice.route));
            let counted = slices.map(Slice::counted).reduce(|a, b| a.add(&b));
            Point { at: bucket.end, figures: Figures::new(counted.as_ref(), self.bucket.as_secs_f64()) }
        };
        past.buckets.iter().filter(|bucket| bucket.end > from).map(point).collect()
    }
}

/// What came to `counted` since `before`, by route, where anything did.
fn since<'a>(counted: &'a [Counted], before: &'a [Counted]) -> impl Iterator<Item = (usize, Counted)> + 'a {
    let delta = |(route, counted): (usize, &Counted)| {
        let delta = match before.get(route) {
            Some(before) => counted.clone().after(before),
            None => counted.clone(),
        };
        (route, delta)
    };
    counted.iter().enumerate().map(delta).filter(|(_, delta)| delta.times.count() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_observe::Histogram;

    const MS: u64 = 1_000_000;

    #[test]
    fn windows_hold_what_came_in_them() {
        let kpis = Kpis::new(Duration::from_secs(10), Duration::from_secs(100));
        let routes = [Histogram::new(), Histogram::new()];
        let mut errors = 0;
        let counted = |errors: u64| -> Vec<Counted> {
            routes
                .iter()
                .map(|times| Counted { times: times.snapshot(), client_errors: 0, server_errors: errors })
                .collect()
        };
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let at = |bucket: u64| start + Duration::from_secs(10 * bucket);
        for bucket in 1..=12 {
            (0..bucket).for_each(|_| routes[0].record(10 * MS));
            routes[1].record(40 * MS);
            errors += u64::from(bucket == 12);
            kpis.mark(counted(errors), at(bucket));
        }
        (0..5).for_each(|_| routes[0].record(20 * MS));
        let minute = Duration::from_secs(60);
        let (this, before) = kpis.figures(minute, |route| route == 0, &counted(errors), at(12));
        assert_eq!((this.requests, before.requests), (7 + 8 + 9 + 10 + 11 + 12 + 5, 3 + 4 + 5 + 6));
        assert_eq!((this.server_errors, this.requests_per_second), (1, 62.0 / 60.0));
        assert_eq!(kpis.figures(minute, |_| true, &counted(errors), at(12)).0.requests, 68);
        let p50 = this.p50_ms.unwrap();
        assert!((10.0..10.7).contains(&p50) && this.p99_ms.unwrap() >= 20.0, "{this:?}");
        let series = kpis.series(minute, |route| route == 0, at(12));
        assert_eq!(series.iter().map(|point| point.figures.requests).collect::<Vec<_>>(), [7, 8, 9, 10, 11, 12]);
        assert_eq!(kpis.series(Duration::from_secs(1000), |_| true, at(12)).len(), 10, "no more are kept");
        let nothing = Kpis::new(minute, minute).figures(minute, |_| true, &[], at(1)).0;
        assert_eq!((nothing.requests, nothing.p50_ms, nothing.error_rate), (0, None, 0.0));
    }

    #[test]
    fn rate_of_a_young_server_is_of_its_own_time() {
        let kpis = Kpis::new(Duration::from_secs(10), Duration::from_secs(100));
        let times = Histogram::new();
        (0..100).for_each(|_| times.record(MS));
        let counted = [Counted { times: times.snapshot(), client_errors: 0, server_errors: 0 }];
        let later = SystemTime::now() + Duration::from_secs(20);
        let (figures, _) = kpis.figures(Duration::from_secs(300), |_| true, &counted, later);
        assert!((4.9..5.1).contains(&figures.requests_per_second), "{figures:?}");
    }
}
