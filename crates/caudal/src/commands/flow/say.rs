//! What is printed of pipelines and runs.

use std::{io::IsTerminal as _, path::Path};

use caudal_flow::{Finding, Report, Value};
use caudal_types::{printable, printable_lines};

use super::again::Again;

/// Prints findings, one a line, as compilers do.
pub(super) fn findings(file: &Path, findings: &[Finding]) {
    for finding in findings {
        aside(&printable(&format!("{}:{finding}", file.display())));
    }
}

/// Prints one line of JSON.
pub(super) fn json(value: &impl serde::Serialize) {
    println!("{}", serde_json::to_string(value).expect("what is printed is plain data"));
}

/// Prints a line for people.
pub(super) fn line(words: &str) {
    println!("{words}");
}

/// Prints a line for people on standard error.
pub(super) fn aside(words: &str) {
    eprintln!("{words}");
}

/// Prints what a run gave.
pub(super) fn output(value: &Value, form: &str) {
    let pretty = || serde_json::to_string_pretty(value).unwrap_or_default();
    let text = match (form, value) {
        ("json", _) => pretty(),
        // Whole numbers of more than 64 bits are JSON's alone, which is YAML as well.
        ("yaml", value) if value.has_long_numbers() => pretty(),
        ("yaml", _) => serde_norway::to_string(value).unwrap_or_default().trim_end().to_owned(),
        ("md", Value::Text(text)) => text.to_string(),
        ("md", _) => format!("```json\n{}\n```", pretty()),
        ("raw", Value::Text(text)) | ("auto", Value::Text(text)) => text.to_string(),
        ("raw", _) => value.to_json(),
        _ => pretty(),
    };
    // A program gets it as it is.
    let text = if std::io::stdout().is_terminal() { printable_lines(&text) } else { text.as_str().into() };
    println!("{text}");
}

/// A time for people.
pub(super) fn time(ms: f64) -> String {
    match ms {
        ms if ms < 1.0 => format!("{:.0} us", ms * 1e3),
        ms if ms < 1_000.0 => format!("{ms:.1} ms"),
        ms => format!("{:.2} s", ms / 1e3),
    }
}

/// The sign of a step's status.
pub(super) fn sign(status: &str) -> &'static str {
    match status {
        "completed" => "✓",
        "failed" => "✗",
        "paused" => "?",
        "cancelled" => "–",
        _ => "…",
    }
}

/// A value in a few letters.
pub(super) fn short(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        value => caudal_types::shorten(&value.to_json()).into_owned(),
    }
}

/// Rows of the summary: the first steps of a run that has more.
const MAX_SUMMARY_ROWS: usize = 1000;
/// Steps at each end of a critical path that are shown.
const CRITICAL_PATH_ENDS: usize = 8;

/// A critical path on one line, without the middle of a long one.
fn critical_path<S: AsRef<str>>(path: &[S]) -> String {
    let steps: Vec<&str> = path.iter().map(AsRef::as_ref).collect();
    if steps.len() <= 2 * CRITICAL_PATH_ENDS + 1 {
        return steps.join(" → ");
    }
    let (first, last) = (&steps[..CRITICAL_PATH_ENDS], &steps[steps.len() - CRITICAL_PATH_ENDS..]);
    format!("{} → … {} more … → {}", first.join(" → "), steps.len() - 2 * CRITICAL_PATH_ENDS, last.join(" → "))
}

/// The table of a run's steps on standard error.
pub(super) fn summary(report: &Report) {
    let width = report.steps.iter().map(|step| step.path.chars().count()).max().unwrap_or(4).clamp(4, 60);
    eprintln!("  {:width$}  {:>9}  {:>5}  {:>7}  {:>9}", "step", "time", "tries", "tokens", "USD");
    for step in report.steps.iter().take(MAX_SUMMARY_ROWS) {
        let tokens = step.usage.tokens_in + step.usage.tokens_out;
        let remembered = match (step.cache_hit, step.recalled) {
            (true, _) => "  remembered",
            (_, true) => "  done before",
            _ => "",
        };
        eprintln!(
            "{} {:width$}  {:>9}  {:>5}  {tokens:>7}  {:>9.4}{remembered}",
            sign(step.status.name()),
            printable(&step.path),
            time(step.duration_ms),
            step.attempts,
            step.usage.cost_usd,
        );
    }
    if let Some(hidden) = report.steps.len().checked_sub(MAX_SUMMARY_ROWS).filter(|hidden| *hidden > 0) {
        eprintln!("  and {hidden} more steps; caudal flow trace lists all of a stored run");
    }
    let usage = report.usage;
    let tokens = usage.tokens_in + usage.tokens_out;
    eprintln!("  in all {}, {tokens} tokens, {:.4} USD", time(report.duration_ms), usage.cost_usd);
    if !report.critical_path.is_empty() {
        eprintln!("  it waited for {}", critical_path(&report.critical_path));
    }
}

/// What a run that is over, or waits, came to: on standard error, but for its output.
pub(super) fn outcome(report: &Report, form: &str, again: &Again) {
    match report.status {
        "completed" => output(&report.output, form),
        "paused" => {
            for prompt in &report.prompts {
                aside(&format!("? step {:?} is waiting for an answer: {}", prompt.path, text(&prompt.message)));
                if again.is_stored() {
                    eprintln!("  {}", again.command(&report.run_id, Some(&prompt.path)));
                }
            }
            if !again.is_stored() {
                eprintln!("  this run was not stored and cannot be resumed");
            }
        }
        status => {
            eprintln!("✗ the run {} {status}", report.run_id);
            if let Some(error) = &report.error {
                let at = if error.step.is_empty() { String::new() } else { format!("{}: ", error.step) };
                aside(&format!("  {at}{} ({})", error.message, error.code));
                aside(&format!("  {}", error.hint));
            }
        }
    }
}

/// A value as a person reads it.
pub(super) fn text(value: &Value) -> String {
    value.as_text().map_or_else(|| value.to_json(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_critical_path_is_shown_by_its_ends() {
        assert_eq!(critical_path(&["a", "b"]), "a → b");
        let path: Vec<String> = (0..200_000).map(|turn| format!("spin/{turn}/one")).collect();
        let line = critical_path(&path);
        assert!(line.starts_with("spin/0/one → ") && line.ends_with(" → spin/199999/one"), "{line}");
        assert!(line.contains("… 199984 more …") && line.len() < 400, "{line}");
    }
}
