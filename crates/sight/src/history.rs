//! How sections change with time: a figure for each span, and since when it is another.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use caudal_observe::{Snapshot, Summary};
use serde::Serialize;

/// Spans that are kept: a day of minutes.
const SPANS: usize = 1440;
/// Spans after a change, and before it, that are needed to tell it from chance.
const LEAST: usize = 3;
/// A change by less is none.
const CLEAR: f64 = 1.2;
/// And by how many times what the means of both sides vary by chance.
const SURE: f64 = 4.0;

type Name = (&'static str, &'static str);

/// What a section did in one span.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Mark {
    /// When the span ended, in seconds since 1970.
    pub at: f64,
    /// How often it was passed.
    pub count: u64,
    /// The mean time, in milliseconds.
    pub mean_ms: f64,
    /// 95 of a hundred were at most this long.
    pub p95_ms: f64,
}

/// What sections did in each of the last spans.
#[derive(Debug)]
pub struct History {
    span: Duration,
    kept: Mutex<Past>,
}

#[derive(Debug, Default)]
struct Past {
    /// All that was counted until the last span ended.
    before: BTreeMap<Name, Snapshot>,
    marks: BTreeMap<Name, VecDeque<Mark>>,
}

/// A section that takes another time than it did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Its name.
    pub name: &'static str,
    /// What it is a part of.
    pub group: &'static str,
    /// Its trend.
    #[serde(flatten)]
    pub trend: Trend,
    /// In words.
    pub reason: String,
}

/// Two times of a section, and when the one became the other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Trend {
    /// When it changed, in seconds since 1970.
    pub since: f64,
    /// The mean time before, in milliseconds.
    pub before_ms: f64,
    /// The mean time since.
    pub now_ms: f64,
    /// The latter of the former.
    pub ratio: f64,
}

impl History {
    /// Nothing yet; spans are `span` long.
    pub fn new(span: Duration) -> Self {
        Self { span, kept: Mutex::default() }
    }

    /// How long a span is.
    pub fn span(&self) -> Duration {
        self.span
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A span ends at `now`, when sections are as `summaries` say.
    pub fn mark(&self, summaries: &[Summary], now: SystemTime) {
        let mut past = self.past();
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
            let mark = Mark {
                at,
                count: within.count(),
                mean_ms: within.sum() as f64 / within.count() as f64 / 1e6,
                p95_ms: within.quantile(0.95).unwrap_or(0) as f64 / 1e6,
            };
            let marks = past.marks.entry(name).or_default();
            if marks.len() == SPANS {
                marks.pop_front();
            }
            marks.push_back(mark);
        }
    }

    /// What the section `name` of `group` did, the latest last.
    pub fn marks(&self, group: &str, name: &str) -> Vec<Mark> {
        let past = self.past();
        let found = past.marks.iter().find(|((of, known), _)| *of == group && *known == name);
        found.map(|(_, marks)| marks.iter().copied().collect()).unwrap_or_default()
    }

    /// Sections that take another time than in the `window` before, the worst first.
    pub fn changes(&self, window: Duration, now: SystemTime) -> Vec<Change> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let from = now - window.as_secs_f64();
        let past = self.past();
        let change = |((group, name), marks): (&Name, &VecDeque<Mark>)| {
            let marks: Vec<Mark> = marks.iter().copied().filter(|mark| mark.at >= from).collect();
            let trend = trend(&marks)?;
            let (word, times) = match trend.ratio > 1.0 {
                true => ("slower", trend.ratio),
                false => ("quicker", 1.0 / trend.ratio),
            };
            let minutes = (now - trend.since) / 60.0;
            let reason = format!(
                "{times:.1} times {word} since {minutes:.0} minutes: {:.2} ms, {:.2} ms before",
                trend.now_ms, trend.before_ms
            );
            Some(Change { name, group, trend, reason })
        };
        let mut changes: Vec<Change> = past.marks.iter().filter_map(change).collect();
        changes.sort_by(|a, b| b.trend.ratio.total_cmp(&a.trend.ratio));
        changes
    }
}

/// Where `marks` are best cut in two, by least squares (a single change point, as in binary segmentation; A. J. Scott,
/// M. Knott, 1974); none if both sides are much the same.
fn trend(marks: &[Mark]) -> Option<Trend> {
    let side = |marks: &[Mark]| {
        let count: f64 = marks.iter().map(|mark| mark.count as f64).sum();
        let mean = marks.iter().map(|mark| mark.mean_ms * mark.count as f64).sum::<f64>() / count;
        // Spans are the things that vary, whatever their counts.
        let plain = marks.iter().map(|mark| mark.mean_ms).sum::<f64>() / marks.len() as f64;
        let squares = marks.iter().map(|mark| (mark.mean_ms - plain).powi(2)).sum::<f64>();
        (mean, squares)
    };
    let places = LEAST..(marks.len() + 1).saturating_sub(LEAST);
    let squares = |place: usize| side(&marks[..place]).1 + side(&marks[place..]).1;
    let place = places.min_by(|a, b| squares(*a).total_cmp(&squares(*b)))?;
    let ((before_ms, _), (now_ms, _)) = (side(&marks[..place]), side(&marks[place..]));
    let ratio = now_ms / before_ms;
    let variance = squares(place) / (marks.len() - 2) as f64;
    let error = (variance / place as f64 + variance / (marks.len() - place) as f64).sqrt();
    let clear = (ratio >= CLEAR || ratio <= 1.0 / CLEAR) && (now_ms - before_ms).abs() >= SURE * error;
    clear.then(|| Trend { since: marks[place - 1].at, before_ms, now_ms, ratio })
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_observe::{Section, summaries};

    fn marks(means: &[f64]) -> Vec<Mark> {
        let mark = |(i, mean): (usize, &f64)| Mark { at: i as f64 * 60.0, count: 10, mean_ms: *mean, p95_ms: *mean };
        means.iter().enumerate().map(mark).collect()
    }

    #[test]
    fn a_step_is_found_where_it_is() {
        let mut means: Vec<f64> = (0..40).map(|i| 10.0 + f64::from(i % 3) * 0.3).collect();
        assert_eq!(trend(&marks(&means)), None, "nothing has changed");
        means[25..].iter_mut().for_each(|mean| *mean *= 1.6);
        let trend = trend(&marks(&means)).unwrap();
        assert_eq!(trend.since, 24.0 * 60.0);
        assert!((trend.ratio - 1.6).abs() < 0.02, "{trend:?}");
    }

    #[test]
    fn one_slow_span_is_no_trend() {
        let mut means = vec![10.0; 40];
        means[20] = 100.0;
        assert_eq!(trend(&marks(&means)), None);
        means[39] = 100.0;
        assert_eq!(trend(&marks(&means)), None);
        assert_eq!(trend(&marks(&[1.0, 9.0])), None, "too few to tell");
    }

    #[test]
    fn each_span_counts_for_itself() {
        static SECTION: Section = Section::new("spans", "history");
        let history = History::new(Duration::from_secs(60));
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        for span in 0..10 {
            (0..5).for_each(|_| SECTION.record(if span < 6 { 1_000_000 } else { 3_000_000 }));
            history.mark(&summaries(), start + span * Duration::from_secs(60));
        }
        let marks = history.marks("history", "spans");
        assert_eq!((marks.len(), marks[9].count, marks[9].mean_ms, marks[0].mean_ms), (10, 5, 3.0, 1.0));
        let now = start + Duration::from_secs(600);
        let changes = history.changes(Duration::from_secs(3600), now);
        let change = changes.iter().find(|change| change.name == "spans").unwrap();
        assert_eq!(change.trend.since, 1_000_300.0);
        assert!(change.reason.starts_with("3.0 times slower since 5 minutes"), "{}", change.reason);
        let lately = history.changes(Duration::from_secs(200), now);
        assert!(lately.iter().all(|change| change.name != "spans"), "it has been so all the time");
    }
}
