//! Table of sections: ranking, and rendering as CSV and text.

use std::{fmt::Write, str::FromStr};

use caudal_observe::{Kind, Summary};
use serde::Serialize;

/// A section's figures, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SectionRow {
    /// Its name.
    pub name: &'static str,
    /// Its group: a module, or a route.
    pub group: &'static str,
    /// `work` or `wait`.
    pub kind: &'static str,
    /// Number of calls.
    pub count: u64,
    /// Total time.
    pub total_ms: f64,
    /// Total time without nested sections.
    pub self_ms: f64,
    /// Total time spent waiting.
    pub waited_ms: f64,
    /// Mean time.
    pub mean_ms: f64,
    /// Shortest time.
    pub min_ms: f64,
    /// Longest time.
    pub max_ms: f64,
    /// Latest time.
    pub last_ms: f64,
    /// Median, within 6.25 %.
    pub p50_ms: f64,
    /// 95th percentile.
    pub p95_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// Bytes allocated within it.
    pub allocated_bytes: u64,
    /// The latest times, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recent_ms: Vec<f64>,
}

fn ns_to_ms(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

impl From<&Summary> for SectionRow {
    fn from(summary: &Summary) -> Self {
        let quantile = |q| ns_to_ms(summary.times.quantile(q).unwrap_or(0).min(summary.max));
        Self {
            name: summary.section.name(),
            group: summary.section.group(),
            kind: match summary.section.kind() {
                Kind::Work => "work",
                Kind::Wait => "wait",
            },
            count: summary.count,
            total_ms: ns_to_ms(summary.total),
            self_ms: ns_to_ms(summary.own),
            waited_ms: ns_to_ms(summary.waited),
            mean_ms: ns_to_ms(summary.mean()),
            min_ms: ns_to_ms(summary.min),
            max_ms: ns_to_ms(summary.max),
            last_ms: ns_to_ms(summary.last()),
            p50_ms: quantile(0.5),
            p95_ms: quantile(0.95),
            p99_ms: quantile(0.99),
            allocated_bytes: summary.allocated,
            recent_ms: summary.recent.iter().map(|time| ns_to_ms(*time)).collect(),
        }
    }
}

/// Sort key of sections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SortOrder {
    /// Total time.
    #[default]
    Total,
    /// Own time.
    Own,
    /// Mean time.
    Mean,
    /// Longest time.
    Max,
    /// 95th percentile.
    P95,
    /// 99th percentile.
    P99,
    /// Number of calls.
    Count,
    /// Bytes allocated.
    Allocated,
    /// Name, ascending.
    Name,
}

impl SortOrder {
    /// All sort keys by name.
    pub const ALL: [(&'static str, Self); 9] = [
        ("total", Self::Total),
        ("self", Self::Own),
        ("mean", Self::Mean),
        ("max", Self::Max),
        ("p95", Self::P95),
        ("p99", Self::P99),
        ("count", Self::Count),
        ("allocated", Self::Allocated),
        ("name", Self::Name),
    ];
}

impl FromStr for SortOrder {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        // Python's profilers use this name.
        let name = if name == "avg" { "mean" } else { name };
        let found = Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, order)| *order);
        found.ok_or_else(|| Self::ALL.map(|(name, _)| name).join(", "))
    }
}

/// `summaries` as rows, sorted by `order`; with their latest times if `recent`.
pub fn rank_sections(summaries: &[Summary], order: SortOrder, recent: bool) -> Vec<SectionRow> {
    let mut rows: Vec<SectionRow> = summaries.iter().map(SectionRow::from).collect();
    if !recent {
        rows.iter_mut().for_each(|row| row.recent_ms.clear());
    }
    let key = |row: &SectionRow| match order {
        SortOrder::Total => row.total_ms,
        SortOrder::Own => row.self_ms,
        SortOrder::Mean => row.mean_ms,
        SortOrder::Max => row.max_ms,
        SortOrder::P95 => row.p95_ms,
        SortOrder::P99 => row.p99_ms,
        SortOrder::Count => row.count as f64,
        SortOrder::Allocated => row.allocated_bytes as f64,
        SortOrder::Name => 0.0,
    };
    rows.sort_by(|a, b| key(b).total_cmp(&key(a)).then_with(|| (a.group, a.name).cmp(&(b.group, b.name))));
    rows
}

/// `rows` as comma-separated values (RFC 4180) with a header.
pub fn rows_to_csv(rows: &[SectionRow]) -> String {
    let mut text = String::from(
        "name,group,kind,count,total_ms,self_ms,waited_ms,mean_ms,min_ms,max_ms,last_ms,p50_ms,p95_ms,p99_ms,allocated_bytes\r\n",
    );
    for row in rows {
        let _ = write!(
            text,
            "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}\r\n",
            quote_csv_field(row.name),
            quote_csv_field(row.group),
            row.kind,
            row.count,
            row.total_ms,
            row.self_ms,
            row.waited_ms,
            row.mean_ms,
            row.min_ms,
            row.max_ms,
            row.last_ms,
            row.p50_ms,
            row.p95_ms,
            row.p99_ms,
            row.allocated_bytes,
        );
    }
    text
}

fn quote_csv_field(field: &str) -> String {
    match field.contains([',', '"', '\r', '\n']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.to_owned(),
    }
}

/// `rows` as a table for a terminal.
pub fn rows_to_text(rows: &[SectionRow]) -> String {
    let name = |row: &SectionRow| format!("{} · {}", row.group, row.name);
    let width = rows.iter().map(|row| name(row).chars().count()).max().unwrap_or(0).max(7);
    let mut text = format!(
        "{:width$} {:>9} {:>11} {:>11} {:>9} {:>9} {:>9} {:>9} {:>9}\n",
        "section", "count", "total ms", "self ms", "mean ms", "p50 ms", "p95 ms", "p99 ms", "max ms"
    );
    for row in rows {
        let _ = writeln!(
            text,
            "{:width$} {:>9} {:>11.1} {:>11.1} {:>9.3} {:>9.3} {:>9.3} {:>9.3} {:>9.3}",
            name(row),
            row.count,
            row.total_ms,
            row.self_ms,
            row.mean_ms,
            row.p50_ms,
            row.p95_ms,
            row.p99_ms,
            row.max_ms
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_observe::{Section, summaries};

    static OFTEN: Section = Section::new("often", "tests, \"quoted\"");
    static LONG: Section = Section::new_waiting("long", "tests");

    fn test_rows(order: SortOrder) -> Vec<SectionRow> {
        let mut rows = rank_sections(&summaries(), order, false);
        rows.retain(|row| row.group.starts_with("tests"));
        rows
    }

    #[test]
    fn sections_are_ranked_and_rendered() {
        (0..100).for_each(|_| OFTEN.record(1_000_000));
        (0..2).for_each(|_| LONG.record(20_000_000));
        let first = |order| test_rows(order)[0].name;
        assert_eq!(
            (first(SortOrder::Total), first(SortOrder::Count), first(SortOrder::Own)),
            ("often", "often", "often")
        );
        assert_eq!((first(SortOrder::Mean), first(SortOrder::P99), first(SortOrder::Name)), ("long", "long", "long"));
        let row = &test_rows(SortOrder::Mean)[0];
        assert_eq!((row.kind, row.count, row.mean_ms, row.waited_ms, row.p50_ms), ("wait", 2, 20.0, 40.0, 20.0));
        let csv = rows_to_csv(&test_rows(SortOrder::Total));
        assert!(csv.contains("often,\"tests, \"\"quoted\"\"\",work,100,100,100,0,1,1,1,1,1,1,1,0\r\n"), "{csv}");
        assert!(rows_to_text(&test_rows(SortOrder::Total)).contains("tests · long"));
        assert_eq!("self".parse(), Ok(SortOrder::Own));
        assert!("slowest".parse::<SortOrder>().unwrap_err().contains("p99"));
    }
}
