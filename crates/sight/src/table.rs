//! Sections as a table: ranked, and written as people and programs read them.

use std::{fmt::Write, str::FromStr};

use caudal_observe::{Kind, Summary};
use serde::Serialize;

/// A section, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// What it is a part of: a module, or a route.
    pub group: &'static str,
    /// `work` or `wait`.
    pub kind: &'static str,
    /// How often it was passed.
    pub count: u64,
    /// All times together.
    pub total_ms: f64,
    /// What of that it worked itself.
    pub self_ms: f64,
    /// What of that nobody worked.
    pub waited_ms: f64,
    /// The mean time.
    pub mean_ms: f64,
    /// The shortest.
    pub min_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// The latest.
    pub last_ms: f64,
    /// Half were at most this long, within 6.25 %.
    pub p50_ms: f64,
    /// 95 of a hundred were.
    pub p95_ms: f64,
    /// 99 of a hundred were.
    pub p99_ms: f64,
    /// Bytes allocated within.
    pub allocated_bytes: u64,
    /// The last times, the latest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recent_ms: Vec<f64>,
}

fn ms(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

impl From<&Summary> for Row {
    fn from(summary: &Summary) -> Self {
        let quantile = |q| ms(summary.times.quantile(q).unwrap_or(0).min(summary.max));
        Self {
            name: summary.section.name(),
            group: summary.section.group(),
            kind: match summary.section.kind() {
                Kind::Work => "work",
                Kind::Wait => "wait",
            },
            count: summary.count,
            total_ms: ms(summary.total),
            self_ms: ms(summary.own),
            waited_ms: ms(summary.waited),
            mean_ms: ms(summary.mean()),
            min_ms: ms(summary.min),
            max_ms: ms(summary.max),
            last_ms: ms(summary.last()),
            p50_ms: quantile(0.5),
            p95_ms: quantile(0.95),
            p99_ms: quantile(0.99),
            allocated_bytes: summary.allocated,
            recent_ms: summary.recent.iter().map(|time| ms(*time)).collect(),
        }
    }
}

/// What comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// What took most time altogether.
    #[default]
    Total,
    /// What worked most itself.
    Own,
    /// What takes longest on average.
    Mean,
    /// What took longest once.
    Max,
    /// What takes longest one time in twenty.
    P95,
    /// What takes longest one time in a hundred.
    P99,
    /// What was passed most often.
    Count,
    /// What allocated most.
    Allocated,
    /// Names from a to z.
    Name,
}

impl Order {
    /// All orders, by name.
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

impl FromStr for Order {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        // As Python's profilers say it.
        let name = if name == "avg" { "mean" } else { name };
        let found = Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, order)| *order);
        found.ok_or_else(|| Self::ALL.map(|(name, _)| name).join(", "))
    }
}

/// `summaries` as rows, in `order`, without their last times unless `recent`.
pub fn rows(summaries: &[Summary], order: Order, recent: bool) -> Vec<Row> {
    let mut rows: Vec<Row> = summaries.iter().map(Row::from).collect();
    if !recent {
        rows.iter_mut().for_each(|row| row.recent_ms.clear());
    }
    let key = |row: &Row| match order {
        Order::Total => row.total_ms,
        Order::Own => row.self_ms,
        Order::Mean => row.mean_ms,
        Order::Max => row.max_ms,
        Order::P95 => row.p95_ms,
        Order::P99 => row.p99_ms,
        Order::Count => row.count as f64,
        Order::Allocated => row.allocated_bytes as f64,
        Order::Name => 0.0,
    };
    rows.sort_by(|a, b| key(b).total_cmp(&key(a)).then_with(|| (a.group, a.name).cmp(&(b.group, b.name))));
    rows
}

/// `rows` as comma-separated values (RFC 4180) with a line of names.
pub fn csv(rows: &[Row]) -> String {
    let mut text = String::from(
        "name,group,kind,count,total_ms,self_ms,waited_ms,mean_ms,min_ms,max_ms,last_ms,p50_ms,p95_ms,p99_ms,allocated_bytes\r\n",
    );
    for row in rows {
        let _ = write!(
            text,
            "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}\r\n",
            quoted(row.name),
            quoted(row.group),
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

fn quoted(field: &str) -> String {
    match field.contains([',', '"', '\r', '\n']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.to_owned(),
    }
}

/// `rows` as a table for a terminal.
pub fn text(rows: &[Row]) -> String {
    let name = |row: &Row| format!("{} · {}", row.group, row.name);
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

    fn mine(order: Order) -> Vec<Row> {
        let mut rows = rows(&summaries(), order, false);
        rows.retain(|row| row.group.starts_with("tests"));
        rows
    }

    #[test]
    fn sections_are_ranked_and_written() {
        (0..100).for_each(|_| OFTEN.record(1_000_000));
        (0..2).for_each(|_| LONG.record(20_000_000));
        let first = |order| mine(order)[0].name;
        assert_eq!((first(Order::Total), first(Order::Count), first(Order::Own)), ("often", "often", "often"));
        assert_eq!((first(Order::Mean), first(Order::P99), first(Order::Name)), ("long", "long", "long"));
        let row = &mine(Order::Mean)[0];
        assert_eq!((row.kind, row.count, row.mean_ms, row.waited_ms, row.p50_ms), ("wait", 2, 20.0, 40.0, 20.0));
        let csv = csv(&mine(Order::Total));
        assert!(csv.contains("often,\"tests, \"\"quoted\"\"\",work,100,100,100,0,1,1,1,1,1,1,1,0\r\n"), "{csv}");
        assert!(text(&mine(Order::Total)).contains("tests · long"));
        assert_eq!("self".parse(), Ok(Order::Own));
        assert!("slowest".parse::<Order>().unwrap_err().contains("p99"));
    }
}
