//! Key figures of the service: requests, errors and latency per window of time.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use caudal_observe::Snapshot;
use serde::Serialize;

/// Totals of one route since the start.
#[derive(Debug, Clone)]
pub struct RouteTotals {
    /// Times of its requests, in nanoseconds.
    pub times: Snapshot,
    /// Responses with status 400 to 499.
    pub client_errors: u64,
    /// Responses with status 500 or more.
    pub server_errors: u64,
}

impl RouteTotals {
    fn since_snapshot(self, before: &Self) -> Self {
        Self {
            times: self.times.difference_from(&before.times),
            client_errors: self.client_errors.saturating_sub(before.client_errors),
            server_errors: self.server_errors.saturating_sub(before.server_errors),
        }
    }

    fn add_totals(self, other: &Self) -> Self {
        Self {
            times: self.times.merged_with(&other.times),
            client_errors: self.client_errors + other.client_errors,
            server_errors: self.server_errors + other.server_errors,
        }
    }
}

/// One route in one bucket; only non-zero counts of the histogram are stored.
#[derive(Debug)]
struct RouteSlice {
    route: usize,
    times: Vec<(u16, u32)>,
    sum: u64,
    client_errors: u64,
    server_errors: u64,
}

impl RouteSlice {
    fn new(route: usize, counted: &RouteTotals) -> Self {
        let times = counted
            .times
            .nonempty_buckets()
            .map(|(place, count)| (place as u16, count.min(u64::from(u32::MAX)) as u32));
        let (sum, times) = (counted.times.sum(), times.collect());
        Self { route, times, sum, client_errors: counted.client_errors, server_errors: counted.server_errors }
    }

    fn to_totals(&self) -> RouteTotals {
        let parts = self.times.iter().map(|(place, count)| (usize::from(*place), u64::from(*count)));
        RouteTotals {
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
    slices: Vec<RouteSlice>,
}

#[derive(Debug, Default)]
struct KpiHistory {
    buckets: VecDeque<Bucket>,
    before: Vec<RouteTotals>,
}

/// Totals of the last day in buckets of some seconds.
#[derive(Debug)]
pub struct Kpis {
    bucket: Duration,
    /// Number of buckets that are retained.
    max_buckets: usize,
    past: Mutex<KpiHistory>,
    /// Start of the record, in seconds since 1970.
    began: f64,
}

/// Statistics of one window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WindowStats {
    /// Requests answered.
    pub requests: u64,
    /// Requests per second.
    pub requests_per_second: f64,
    /// Responses with status 400 to 499.
    pub client_errors: u64,
    /// Responses with status 500 or more.
    pub server_errors: u64,
    /// Share of responses with status 500 or more.
    pub error_rate: f64,
    /// Mean time in milliseconds.
    pub mean_ms: Option<f64>,
    /// Median time in milliseconds.
    pub p50_ms: Option<f64>,
    /// 95th percentile in milliseconds.
    pub p95_ms: Option<f64>,
    /// 99th percentile in milliseconds.
    pub p99_ms: Option<f64>,
}

/// Statistics of one bucket.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SeriesPoint {
    /// The bucket's end, in seconds since 1970.
    pub at: f64,
    /// Its statistics.
    #[serde(flatten)]
    pub stats: WindowStats,
}

impl WindowStats {
    fn new(counted: Option<&RouteTotals>, seconds: f64) -> Self {
        let requests = counted.map_or(0, |counted| counted.times.count());
        let quantile = |q| counted.and_then(|counted| counted.times.quantile(q)).map(|time| time as f64 / 1e6);
        let mean = |counted: &RouteTotals| counted.times.sum() as f64 / counted.times.count() as f64 / 1e6;
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

fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl Kpis {
    /// An empty record that retains buckets of length `bucket` for `retention`.
    pub fn new(bucket: Duration, retention: Duration) -> Self {
        let most = (retention.as_secs_f64() / bucket.as_secs_f64()).ceil().max(1.0) as usize;
        Self { bucket, max_buckets: most, past: Mutex::default(), began: unix_seconds(SystemTime::now()) }
    }

    /// Length of a bucket.
    pub fn bucket_length(&self) -> Duration {
        self.bucket
    }

    fn lock_history(&self) -> MutexGuard<'_, KpiHistory> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a bucket at `now`, at which the routes' totals are `counted`.
    pub fn close_bucket(&self, counted: Vec<RouteTotals>, now: SystemTime) {
        let mut past = self.lock_history();
        let slices =
            route_deltas(&counted, &past.before).map(|(route, counted)| RouteSlice::new(route, &counted)).collect();
        past.before = counted;
        if past.buckets.len() == self.max_buckets {
            past.buckets.pop_front();
        }
        past.buckets.push_back(Bucket { end: unix_seconds(now), slices });
    }

    /// Statistics of the `window` that ends at `now`, at which the routes' totals are `counted`, for all routes that
    /// are `wanted`; and those of the window before it. Rates refer to the time since the start if that is shorter than
    /// the window.
    pub fn window_stats(
        &self,
        window: Duration,
        wanted: impl Fn(usize) -> bool,
        counted: &[RouteTotals],
        now: SystemTime,
    ) -> (WindowStats, WindowStats) {
        let (now, length) = (unix_seconds(now), window.as_secs_f64());
        let past = self.lock_history();
        let within = |from: f64, to: f64| {
            let buckets = past.buckets.iter().filter(move |bucket| bucket.end > from && bucket.end <= to);
            let slices = buckets.flat_map(|bucket| &bucket.slices);
            slices.filter(|slice| wanted(slice.route)).map(RouteSlice::to_totals)
        };
        let latest = route_deltas(counted, &past.before).filter(|(place, _)| wanted(*place));
        let together = |a: RouteTotals, b: RouteTotals| a.add_totals(&b);
        let this = within(now - length, now).chain(latest.map(|(_, counted)| counted)).reduce(together);
        let before = within(now - 2.0 * length, now - length).reduce(together);
        let lived = Some(now - self.began).filter(|lived| *lived > 0.0).unwrap_or(length);
        (WindowStats::new(this.as_ref(), length.min(lived.max(1.0))), WindowStats::new(before.as_ref(), length))
    }

    /// Statistics of each bucket of the last `window`.
    pub fn time_series(&self, window: Duration, wanted: impl Fn(usize) -> bool, now: SystemTime) -> Vec<SeriesPoint> {
        let from = unix_seconds(now) - window.as_secs_f64();
        let past = self.lock_history();
        let point = |bucket: &Bucket| {
            let slices = bucket.slices.iter().filter(|slice| wanted(slice.route));
            let counted = slices.map(RouteSlice::to_totals).reduce(|a, b| a.add_totals(&b));
            SeriesPoint { at: bucket.end, stats: WindowStats::new(counted.as_ref(), self.bucket.as_secs_f64()) }
        };
        past.buckets.iter().filter(|bucket| bucket.end > from).map(point).collect()
    }
}

/// The increase from `before` to `counted` of each route that had requests.
fn route_deltas<'a>(
    counted: &'a [RouteTotals],
    before: &'a [RouteTotals],
) -> impl Iterator<Item = (usize, RouteTotals)> + 'a {
    let delta = |(route, counted): (usize, &RouteTotals)| {
        let delta = match before.get(route) {
            Some(before) => counted.clone().since_snapshot(before),
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
    fn window_stats_count_requests_of_window() {
        let kpis = Kpis::new(Duration::from_secs(10), Duration::from_secs(100));
        let routes = [Histogram::new(), Histogram::new()];
        let mut errors = 0;
        let counted = |errors: u64| -> Vec<RouteTotals> {
            routes
                .iter()
                .map(|times| RouteTotals { times: times.snapshot(), client_errors: 0, server_errors: errors })
                .collect()
        };
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let at = |bucket: u64| start + Duration::from_secs(10 * bucket);
        for bucket in 1..=12 {
            (0..bucket).for_each(|_| routes[0].record(10 * MS));
            routes[1].record(40 * MS);
            errors += u64::from(bucket == 12);
            kpis.close_bucket(counted(errors), at(bucket));
        }
        (0..5).for_each(|_| routes[0].record(20 * MS));
        let minute = Duration::from_secs(60);
        let (this, before) = kpis.window_stats(minute, |route| route == 0, &counted(errors), at(12));
        assert_eq!((this.requests, before.requests), (7 + 8 + 9 + 10 + 11 + 12 + 5, 3 + 4 + 5 + 6));
        assert_eq!((this.server_errors, this.requests_per_second), (1, 62.0 / 60.0));
        assert_eq!(kpis.window_stats(minute, |_| true, &counted(errors), at(12)).0.requests, 68);
        let p50 = this.p50_ms.unwrap();
        assert!((10.0..10.7).contains(&p50) && this.p99_ms.unwrap() >= 20.0, "{this:?}");
        let series = kpis.time_series(minute, |route| route == 0, at(12));
        assert_eq!(series.iter().map(|point| point.stats.requests).collect::<Vec<_>>(), [7, 8, 9, 10, 11, 12]);
        assert_eq!(kpis.time_series(Duration::from_secs(1000), |_| true, at(12)).len(), 10, "no more are kept");
        let nothing = Kpis::new(minute, minute).window_stats(minute, |_| true, &[], at(1)).0;
        assert_eq!((nothing.requests, nothing.p50_ms, nothing.error_rate), (0, None, 0.0));
    }

    #[test]
    fn window_stats_rate_uses_uptime_of_young_server() {
        let kpis = Kpis::new(Duration::from_secs(10), Duration::from_secs(100));
        let times = Histogram::new();
        (0..100).for_each(|_| times.record(MS));
        let counted = [RouteTotals { times: times.snapshot(), client_errors: 0, server_errors: 0 }];
        let later = SystemTime::now() + Duration::from_secs(20);
        let (figures, _) = kpis.window_stats(Duration::from_secs(300), |_| true, &counted, later);
        assert!((4.9..5.1).contains(&figures.requests_per_second), "{figures:?}");
    }
}
