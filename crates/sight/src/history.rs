//! History of sections: statistics per span of time, and detection of changes.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use caudal_observe::{Snapshot, Summary};
use serde::Serialize;

/// Number of spans that are retained: a day of minutes.
const MAX_SPANS: usize = 1440;
/// Number of spans required on each side of a change to distinguish it from chance.
const MIN_SPANS_PER_SIDE: usize = 3;
/// A change by a smaller factor is not reported.
const MIN_CHANGE_RATIO: f64 = 1.2;
/// The multiple of the standard error that a difference of means must reach.
const MIN_STANDARD_ERRORS: f64 = 4.0;

type SectionKey = (&'static str, &'static str);

/// Statistics of a section in one span.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SpanStats {
    /// End of the span, in seconds since 1970.
    pub at: f64,
    /// Number of calls.
    pub count: u64,
    /// Mean time in milliseconds.
    pub mean_ms: f64,
    /// 95th percentile in milliseconds.
    pub p95_ms: f64,
}

/// Statistics of all sections in each of the latest spans.
#[derive(Debug)]
pub struct History {
    span: Duration,
    kept: Mutex<PastSpans>,
}

#[derive(Debug, Default)]
struct PastSpans {
    /// Totals at the end of the last span.
    before: BTreeMap<SectionKey, Snapshot>,
    spans: BTreeMap<SectionKey, VecDeque<SpanStats>>,
}

/// A section whose time has changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SectionChange {
    /// Its name.
    pub name: &'static str,
    /// Its group.
    pub group: &'static str,
    /// The change.
    #[serde(flatten)]
    pub trend: ChangePoint,
    /// The change in words.
    pub reason: String,
}

/// The times of a section before and after a change.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ChangePoint {
    /// Time of the change, in seconds since 1970.
    pub since: f64,
    /// Mean time before, in milliseconds.
    pub before_ms: f64,
    /// Mean time since, in milliseconds.
    pub now_ms: f64,
    /// `now_ms` divided by `before_ms`.
    pub ratio: f64,
}

impl History {
    /// An empty history of spans of length `span`.
    pub fn new(span: Duration) -> Self {
        Self { span, kept: Mutex::default() }
    }

    /// Length of a span.
    pub fn span_length(&self) -> Duration {
        self.span
    }

    fn lock_past(&self) -> MutexGuard<'_, PastSpans> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a span at `now`, at which the sections' totals are `summaries`.
    pub fn close_span(&self, summaries: &[Summary], now: SystemTime) {
        let mut past = self.lock_past();
        let at = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        for summary in summaries {
            let name = (summary.section.group(), summary.section.name());
            let before = past.before.insert(name, summary.times.clone());
            let within = match before {
                Some(before) => summary.times.clone().difference_from(&before),
                None => summary.times.clone(),
            };
            if within.count() == 0 {
                continue;
            }
            let mark = SpanStats {
                at,
                count: within.count(),
                mean_ms: within.sum() as f64 / within.count() as f64 / 1e6,
                p95_ms: within.quantile(0.95).unwrap_or(0) as f64 / 1e6,
            };
            let spans = past.spans.entry(name).or_default();
            if spans.len() == MAX_SPANS {
                spans.pop_front();
            }
            spans.push_back(mark);
        }
    }

    /// The spans of section `name` in `group`, the oldest first.
    pub fn section_spans(&self, group: &str, name: &str) -> Vec<SpanStats> {
        let past = self.lock_past();
        let found = past.spans.iter().find(|((of, known), _)| *of == group && *known == name);
        found.map(|(_, spans)| spans.iter().copied().collect()).unwrap_or_default()
    }

    /// Sections whose time has changed within the last `window`, the largest slowdown first.
    pub fn detect_changes(&self, window: Duration, now: SystemTime) -> Vec<SectionChange> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let from = now - window.as_secs_f64();
        let past = self.lock_past();
        let change = |((group, name), spans): (&SectionKey, &VecDeque<SpanStats>)| {
            let spans: Vec<SpanStats> = spans.iter().copied().filter(|mark| mark.at >= from).collect();
            let trend = find_change_point(&spans)?;
            let (word, times) = match trend.ratio > 1.0 {
                true => ("slower", trend.ratio),
                false => ("quicker", 1.0 / trend.ratio),
            };
            let minutes = (now - trend.since) / 60.0;
            let reason = format!(
                "{times:.1} times {word} since {minutes:.0} minutes: {:.2} ms, {:.2} ms before",
                trend.now_ms, trend.before_ms
            );
            Some(SectionChange { name, group, trend, reason })
        };
        let mut changes: Vec<SectionChange> = past.spans.iter().filter_map(change).collect();
        changes.sort_by(|a, b| b.trend.ratio.total_cmp(&a.trend.ratio));
        changes
    }
}

/// The best split of `spans` in two by least squares (a single change point, as in binary segmentation; A. J. Scott, M.
/// Knott, 1974); none if both sides are similar.
fn find_change_point(spans: &[SpanStats]) -> Option<ChangePoint> {
    let side = |spans: &[SpanStats]| {
        let count: f64 = spans.iter().map(|mark| mark.count as f64).sum();
        let mean = spans.iter().map(|mark| mark.mean_ms * mark.count as f64).sum::<f64>() / count;
        // Spans are the samples, regardless of their counts.
        let plain = spans.iter().map(|mark| mark.mean_ms).sum::<f64>() / spans.len() as f64;
        let squares = spans.iter().map(|mark| (mark.mean_ms - plain).powi(2)).sum::<f64>();
        (mean, squares)
    };
    let places = MIN_SPANS_PER_SIDE..(spans.len() + 1).saturating_sub(MIN_SPANS_PER_SIDE);
    let squares = |place: usize| side(&spans[..place]).1 + side(&spans[place..]).1;
    let place = places.min_by(|a, b| squares(*a).total_cmp(&squares(*b)))?;
    let ((before_ms, _), (now_ms, _)) = (side(&spans[..place]), side(&spans[place..]));
    let ratio = now_ms / before_ms;
    let variance = squares(place) / (spans.len() - 2) as f64;
    let error = (variance / place as f64 + variance / (spans.len() - place) as f64).sqrt();
    let clear = (ratio >= MIN_CHANGE_RATIO || ratio <= 1.0 / MIN_CHANGE_RATIO)
        && (now_ms - before_ms).abs() >= MIN_STANDARD_ERRORS * error;
    clear.then(|| ChangePoint { since: spans[place - 1].at, before_ms, now_ms, ratio })
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_observe::{Section, summaries};

    fn spans_of(means: &[f64]) -> Vec<SpanStats> {
        let mark =
            |(i, mean): (usize, &f64)| SpanStats { at: i as f64 * 60.0, count: 10, mean_ms: *mean, p95_ms: *mean };
        means.iter().enumerate().map(mark).collect()
    }

    #[test]
    fn change_point_is_found_at_step() {
        let mut means: Vec<f64> = (0..40).map(|i| 10.0 + f64::from(i % 3) * 0.3).collect();
        assert_eq!(find_change_point(&spans_of(&means)), None, "nothing has changed");
        means[25..].iter_mut().for_each(|mean| *mean *= 1.6);
        let trend = find_change_point(&spans_of(&means)).unwrap();
        assert_eq!(trend.since, 24.0 * 60.0);
        assert!((trend.ratio - 1.6).abs() < 0.02, "{trend:?}");
    }

    #[test]
    fn change_point_ignores_single_slow_span() {
        let mut means = vec![10.0; 40];
        means[20] = 100.0;
        assert_eq!(find_change_point(&spans_of(&means)), None);
        means[39] = 100.0;
        assert_eq!(find_change_point(&spans_of(&means)), None);
        assert_eq!(find_change_point(&spans_of(&[1.0, 9.0])), None, "too few to tell");
    }

    #[test]
    fn history_reports_spans_and_changes() {
        static SECTION: Section = Section::new("spans", "history");
        let history = History::new(Duration::from_secs(60));
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        for span in 0..10 {
            (0..5).for_each(|_| SECTION.record(if span < 6 { 1_000_000 } else { 3_000_000 }));
            history.close_span(&summaries(), start + span * Duration::from_secs(60));
        }
        let spans = history.section_spans("history", "spans");
        assert_eq!((spans.len(), spans[9].count, spans[9].mean_ms, spans[0].mean_ms), (10, 5, 3.0, 1.0));
        let now = start + Duration::from_secs(600);
        let changes = history.detect_changes(Duration::from_secs(3600), now);
        let change = changes.iter().find(|change| change.name == "spans").unwrap();
        assert_eq!(change.trend.since, 1_000_300.0);
        assert!(change.reason.starts_with("3.0 times slower since 5 minutes"), "{}", change.reason);
        let lately = history.detect_changes(Duration::from_secs(200), now);
        assert!(lately.iter().all(|change| change.name != "spans"), "it has been so all the time");
    }
}
