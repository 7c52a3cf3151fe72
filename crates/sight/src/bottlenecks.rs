//! Bottlenecks: sections that take too long.

use caudal_observe::Summary;
use serde::Serialize;

use crate::SectionRow;

/// Fewer calls than this are no basis for a statement.
const MIN_CALLS: u64 = 5;

/// Severity of a bottleneck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It takes a large share of its group's time, although it is fast.
    Low,
    /// Its mean is above the threshold.
    Medium,
    /// Its mean is above twice the threshold.
    High,
}

/// A section that takes too long.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bottleneck {
    /// Its severity.
    pub severity: Severity,
    /// Its share of its group's own time, from 0 to 1.
    pub share: f64,
    /// The reason in words.
    pub reason: String,
    /// Its figures.
    #[serde(flatten)]
    pub row: SectionRow,
}

/// The share of its group's time from which a section is reported.
const LARGE_SHARE: f64 = 0.5;

/// The sections whose mean is above `threshold_ms`, or that take most of their group's time, the most severe first.
/// Sections with fewer than five calls are left out.
pub fn find_bottlenecks(summaries: &[Summary], threshold_ms: f64) -> Vec<Bottleneck> {
    let spent = |summary: &Summary| (summary.own + summary.waited) as f64;
    let group = |of: &Summary| {
        let same = summaries.iter().filter(|other| other.section.group() == of.section.group());
        same.map(spent).fold((0.0, 0), |(sum, count), spent| (sum + spent, count + 1))
    };
    let mut found: Vec<Bottleneck> = summaries
        .iter()
        .filter(|summary| summary.count >= MIN_CALLS)
        .filter_map(|summary| {
            let mut row = SectionRow::from(summary);
            row.recent_ms.clear();
            let (whole, others) = group(summary);
            let share = if whole > 0.0 { spent(summary) / whole } else { 0.0 };
            let times = row.mean_ms / threshold_ms;
            let severity = match () {
                () if times > 2.0 => Severity::High,
                () if times > 1.0 => Severity::Medium,
                () if share >= LARGE_SHARE && others > 1 => Severity::Low,
                () => return None,
            };
            let mut reason = format!("{:.0} % of the time of {}", share * 100.0, row.group);
            if severity > Severity::Low {
                reason = format!("{:.1} ms on average, {times:.1} times the threshold; {reason}", row.mean_ms);
            }
            Some(Bottleneck { severity, share, reason, row })
        })
        .collect();
    found.sort_by(|a, b| b.severity.cmp(&a.severity).then(b.row.total_ms.total_cmp(&a.row.total_ms)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_observe::{Section, summaries};

    static QUICK: Section = Section::new("quick", "bottlenecks");
    static SLOW: Section = Section::new("slow", "bottlenecks");
    static SLOWER: Section = Section::new_waiting("slower", "bottlenecks");
    static RARE: Section = Section::new("rare", "bottlenecks");
    static MOST: Section = Section::new("most", "shares");
    static REST: Section = Section::new("rest", "shares");

    #[test]
    fn severity_depends_on_mean_then_share() {
        for _ in 0..5 {
            QUICK.record(1_000_000);
            SLOW.record(150_000_000);
            SLOWER.record(250_000_000);
            MOST.record(9_000_000);
            REST.record(1_000_000);
        }
        RARE.record(10_000_000_000);
        let found = find_bottlenecks(&summaries(), 100.0);
        let mine = |found: &[Bottleneck]| {
            let mine = found.iter().filter(|found| ["bottlenecks", "shares"].contains(&found.row.group));
            mine.map(|found| (found.row.name, found.severity)).collect::<Vec<_>>()
        };
        assert_eq!(mine(&found), [("slower", Severity::High), ("slow", Severity::Medium), ("most", Severity::Low)]);
        assert!(found.iter().any(|found| found.reason.contains("90 % of the time of shares")), "{found:?}");
    }
}
