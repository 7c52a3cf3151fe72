//! What came of a load, for people.

use std::fmt::{Display, Write};

use caudal_load::{EndReason, Latency, LoadKind, Report};

pub(super) fn table(report: &Report) -> String {
    let mut text = headline(report) + "\n";
    let mut line = |name: &str, what: &dyn Display| {
        let _ = writeln!(text, "{}", format!("{name:<11} {what}").trim_end());
    };
    for skipped in &report.skipped {
        line("skipped", &format!("{} × {}: {}", skipped.requests, skipped.route, skipped.reason));
    }
    if let Some(bodies) = report.bodies {
        line("bodies", &format!("{} of files given, {} made up, {} without", bodies.given, bodies.made, bodies.none));
    }
    line("answers", &or_none(report.statuses.iter().map(|(status, count)| format!("{status}: {count}"))));
    if !report.codes.is_empty() {
        line("codes", &or_none(report.codes.iter().map(|(code, count)| format!("{code}: {count}"))));
    }
    line("no answer", &or_none(failures(report)));
    if let Some(words) = &report.first_error {
        line("", &format!("the first: {words}"));
    }
    line("throughput", &throughput(report));
    text.push('\n');
    text.push_str(&times(report));
    text.push('\n');
    if report.routes.len() > 1 {
        text.push_str(&routes(report));
        text.push('\n');
    }
    text.push_str(&around(report));
    text
}

fn headline(report: &Report) -> String {
    let (how, end) = match (report.kind, report.ended) {
        (LoadKind::Replay, _) => ("arrivals sent again", ""),
        (_, EndReason::Requests) => ("requests sent", ", as many as may be"),
        _ => ("requests sent", ""),
    };
    let stopped = if report.ended == EndReason::Stopped { "; stopped before its end" } else { "" };
    let speed = report.recorded.as_ref().map(|recorded| format!(" at speed {}", recorded.speed)).unwrap_or_default();
    format!(
        "{} of {} {how}{end} to {} in {:.1} s{speed}{stopped}",
        report.sent, report.planned, report.url, report.elapsed_s
    )
}

fn failures(report: &Report) -> impl Iterator<Item = String> {
    let others = [
        ("given up at the end", report.unfinished),
        ("not sent, too many under way", report.not_sent.over_limit),
        ("not sent, ended before", report.not_sent.left),
    ];
    let others = others.into_iter().filter(|(_, count)| *count > 0);
    report
        .errors
        .iter()
        .map(|(kind, count)| (*kind, *count))
        .chain(others)
        .map(|(what, count)| format!("{what}: {count}"))
}

fn throughput(report: &Report) -> String {
    let rate = |bytes: u64| if report.elapsed_s > 0.0 { bytes as f64 / 1e6 / report.elapsed_s } else { 0.0 };
    let (sent, received) = (rate(report.sent_bytes), rate(report.received_bytes));
    format!("{:.1} a second; {sent:.2} MB/s sent, {received:.2} MB/s received", report.throughput)
}

/// The lines of times, recorded ones beside those of now.
fn times(report: &Report) -> String {
    let mut text = format!(
        "{:<32} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}\n",
        "milliseconds", "answers", "min", "mean", "p50", "p90", "p95", "p99", "max"
    );
    let server = report.server.as_ref().map(|server| server.total_ms);
    let recorded = report.recorded.as_ref().and_then(|recorded| recorded.total_ms);
    let rows = [
        ("latency", report.latency_ms),
        ("latency of errors", report.error_latency_ms),
        ("within the server", server),
        ("within the server, as recorded", recorded),
    ];
    for (name, times) in rows {
        if let Some(times) = times {
            text.push_str(&row(name, &times));
        }
    }
    text
}

fn row(name: &str, times: &Latency) -> String {
    let mut text = format!("{name:<32} {:>9}", times.count);
    for ms in [times.min, times.mean, times.p50, times.p90, times.p95, times.p99, times.max] {
        let _ = write!(text, " {}", number(ms));
    }
    text + "\n"
}

/// What came of each route and model, beside what was recorded.
fn routes(report: &Report) -> String {
    let mut text = format!("{:<16} {:>29} {:>29} {:>29}\n", "", "latency", "within the server", "as recorded");
    let _ = write!(text, "{:<9} {:>6}", "requests", "failed");
    for _ in 0..3 {
        let _ = write!(text, " {:>9} {:>9} {:>9}", "p50", "p95", "p99");
    }
    text.push('\n');
    for one in &report.routes {
        let _ = write!(text, "{:<9} {:>6}", one.planned, one.failed);
        for times in [one.latency_ms, one.server_ms, one.recorded_ms] {
            let numbers = times.map(|times| [times.p50, times.p95, times.p99].map(number));
            let numbers = numbers.unwrap_or_else(|| ["-"; 3].map(|none| format!("{none:>9}")));
            let _ = write!(text, " {}", numbers.join(" "));
        }
        let _ = writeln!(text, "  {} {}", one.route, one.model.as_deref().unwrap_or_default());
    }
    text
}

/// Three digits that tell something.
fn number(ms: f64) -> String {
    let digits = if ms < 1.0 {
        3
    } else if ms < 100.0 {
        2
    } else {
        1
    };
    format!("{ms:>9.digits$}")
}

/// What explains the times: the server's stages, the generator, warnings.
fn around(report: &Report) -> String {
    let mut text = String::new();
    if let Some(server) = &report.server {
        let stages = server.stages.iter().map(|stage| format!("{} {:.2}", stage.stage, stage.mean_ms));
        let _ = writeln!(text, "{:<11} {} ms on average", "stages", or_none(stages));
    }
    let generator = &report.generator;
    let lag = generator.lag_ms.map(|lag| format!("p99 {:.2} ms late, ", lag.p99)).unwrap_or_default();
    let _ = writeln!(
        text,
        "{:<11} {lag}{:.0} % of its core, {} connections, {} requests at once at most",
        "generator",
        generator.cpu * 100.0,
        generator.connections,
        generator.most_at_once
    );
    for warning in &report.warnings {
        let _ = writeln!(text, "{:<11} {warning}", "warning");
    }
    text
}

fn or_none(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}
