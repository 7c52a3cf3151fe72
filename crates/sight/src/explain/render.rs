//! Rendering of an explanation as sentences and as text.

use std::fmt::Write;

use super::{Cause, Explanation, Limit, MIN_NOTICEABLE_CHANGE, ObservedSummary, Prediction, WhatIf};

/// The observation, the first limit and the recommended change, one sentence each.
pub(super) fn summary_sentences(summary: &ObservedSummary, causes: &[Cause], what_if: &[WhatIf]) -> Vec<String> {
    let mut words = Vec::new();
    words.push(match summary.requests {
        0 => "No request ended while it was watched.".to_owned(),
        _ => format!(
            "{:.1} answers a second, half of them within {} ms and 95 of a hundred within {} ms{}.",
            summary.answers_per_second,
            format_ms(summary.p50_ms),
            format_ms(summary.p95_ms),
            if summary.failed >= 0.001 {
                format!("; {:.1} % of the requests failed", summary.failed * 100.0)
            } else {
                String::new()
            }
        ),
    });
    if let Some(cause) = causes.first() {
        let limit = if cause.limit == Limit::ClientsIdle { "Nothing limits it" } else { "What limits it" };
        words.push(format!("{limit}: {}.", cause.because));
        let mut help = match cause.limit {
            Limit::ClientsIdle => capitalize(&cause.advice),
            _ => format!("What would help: {}", cause.advice),
        };
        if let Some(setting) = &cause.setting {
            let _ = write!(help, " ({} from {} to {})", setting.name, setting.from, setting.to);
        }
        if let Some(predicted) = &cause.predicted {
            let _ = write!(help, ": {}", describe_effect(predicted));
        }
        words.push(format!("{help}."));
    }
    let effects: Vec<String> =
        what_if.iter().map(|what| format!("{} gives {}", what.change, describe_effect(&what.predicted))).collect();
    if !effects.is_empty() {
        words.push(format!("By replay, {}.", effects.join("; ")));
    }
    words
}

fn capitalize(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn describe_effect(predicted: &Prediction) -> String {
    if let Some(in_parallel) = predicted.in_parallel {
        let more = (predicted.throughput - 1.0) * 100.0;
        return format!("{more:+.0} % answers, if {in_parallel} requests are sent in parallel");
    }
    let more = predicted.throughput - 1.0;
    let longer = predicted.p95 - 1.0;
    match (more.abs() >= MIN_NOTICEABLE_CHANGE, longer.abs() >= MIN_NOTICEABLE_CHANGE) {
        (false, false) => "no change".to_owned(),
        (true, false) => format!("{:+.0} % answers", more * 100.0),
        (false, true) => format!("p95 {:+.0} %", longer * 100.0),
        (true, true) => format!("{:+.0} % answers, p95 {:+.0} %", more * 100.0, longer * 100.0),
    }
}

fn format_ms(value: f64) -> String {
    if value < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

/// The whole explanation as text for a terminal.
pub(super) fn render_text(explanation: &Explanation) -> String {
    let mut text = String::new();
    for sentence in &explanation.words {
        let _ = writeln!(text, "{sentence}");
    }
    let _ = writeln!(text, "\n{:>6}  cause", "weight");
    for cause in &explanation.causes {
        let model = cause.model.as_ref().map(|model| format!(" ({model})")).unwrap_or_default();
        let name = serde_json::to_value(cause.limit).ok().and_then(|name| Some(name.as_str()?.to_owned()));
        let _ =
            writeln!(text, "{:5.0} %  {}{model}: {}", cause.weight * 100.0, name.unwrap_or_default(), cause.because);
        if let Some(setting) = &cause.setting {
            let _ = writeln!(text, "         {}", setting.how);
        }
    }
    if let Some(fit) = &explanation.simulation {
        let _ = writeln!(
            text,
            "\nThe replay gives {:.2} of the measured answers a second and {:.2} of the measured median.",
            fit.throughput, fit.p50
        );
    }
    text
}
