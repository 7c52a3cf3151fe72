//! `caudal models optimize`: candidates, their speed and what they cost, and the best of them.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode, time::Duration};

use caudal_optimize::{
    Agreement, CandidateResult, ModelContext, OptimizeOptions, OptimizeReport, Progress, WriteChoice, optimize_model,
};
use clap::ArgMatches;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{CommandError, load, models, other, pictures};

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let settings = load(matches, true)?.settings;
    let order = order(matches)?;
    let site = models::site(matches, &settings)?;
    let bar = bar();
    let report = optimize_model(&site, &order, &mut |step| show(&bar, step));
    bar.finish_and_clear();
    let report = report.map_err(|error| models::explained(&error))?;
    if matches.get_flag("json") {
        println!("{:#}", as_json(&report, &site));
        return Ok(ExitCode::SUCCESS);
    }
    tell(&report, &order, &site);
    Ok(ExitCode::SUCCESS)
}

fn order(matches: &ArgMatches) -> Result<OptimizeOptions, CommandError> {
    let given = |name: &str| matches.get_one::<String>(name).map(String::as_str).unwrap_or_default();
    let number = |name: &str, most: f64| match given(name).parse::<f64>() {
        Ok(number) if (0.0..=most).contains(&number) => Ok(number),
        _ => Err(other(format!("--{name} is a number between 0 and {most}"))),
    };
    let only = given("only").split(',').map(str::trim).filter(|name| !name.is_empty());
    Ok(OptimizeOptions {
        images: pictures::files(matches.get_many::<PathBuf>("images").unwrap_or_default())?,
        labels: matches.get_one::<PathBuf>("labels").cloned(),
        max_loss: number("max-loss", 1.0)?,
        only: only.map(str::to_owned).collect(),
        write: match given("write") {
            "best" => WriteChoice::Best,
            "none" => WriteChoice::Nothing,
            name => WriteChoice::Named(name.to_owned()),
        },
        time: Duration::from_secs_f64(number("seconds", 60.0)?),
    })
}

fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} ({elapsed})").expect("the template is a constant");
    ProgressBar::new(1).with_style(style)
}

fn show(bar: &ProgressBar, step: Progress) {
    bar.set_length(step.of as u64);
    bar.set_position(step.done as u64);
    bar.set_message(step.what);
}

fn tell(report: &OptimizeReport, order: &OptimizeOptions, site: &ModelContext) {
    println!("{} version {}, {} pictures", site.folder.name, report.from, report.pictures);
    let width = report.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    println!("  {:width$}  on             1 thread  all cores       p50     size    loss", "");
    for (place, row) in report.rows.iter().enumerate() {
        let mark = if report.chosen == Some(place) { "→" } else { " " };
        println!("{mark} {}", line(row, width));
    }
    match (&report.written, report.chosen) {
        (Some(version), Some(place)) => {
            println!("written: {} as version {} ({})", report.rows[place].name, version.number, version.file.display());
            tell_how_to_run(&report.rows[place], site);
            models::tell_whether_it_serves(models::newest_serves(site));
        }
        (None, Some(place)) if report.rows[place].name == report.rows[0].name => {
            println!("the version that serves is quickest as it is");
            tell_how_to_run(&report.rows[place], site);
        }
        (None, Some(place)) => println!("{} would be written", report.rows[place].name),
        _ => println!("nothing is clearly quicker and loses at most {}: nothing was written", order.max_loss),
    }
}

fn tell_how_to_run(row: &CandidateResult, site: &ModelContext) {
    if row.way != site.ways[0] {
        println!("it was quickest on {}: say `{}` in model.yaml", row.way, row.way.to_model_yaml());
    }
}

fn line(row: &CandidateResult, width: usize) -> String {
    let head = format!("{:width$}  {:<13}", row.name, row.way.to_string());
    match &row.tried {
        Err(reason) => format!("{head}  not possible: {reason}"),
        Ok((speed, accuracy)) => format!(
            "{head}  {:6.1}/s   {:6.1}/s  {:5.1} ms  {:4.1} MB  {:6.4}  {accuracy}",
            speed.one_thread,
            speed.all_cores,
            speed.p50_ms,
            row.bytes as f64 / 1e6,
            accuracy.loss,
        ),
    }
}

fn as_json(report: &OptimizeReport, site: &ModelContext) -> Value {
    let written = report.written.as_ref();
    json!({
        "model": site.folder.name,
        "from": report.from.to_string(),
        "pictures": report.pictures,
        "candidates": report.rows.iter().map(candidate).collect::<Vec<_>>(),
        "chosen": report.chosen.map(|place| &report.rows[place].name),
        "version": written.map(|version| version.number.to_string()),
        "file": written.map(|version| &version.file),
    })
}

fn candidate(row: &CandidateResult) -> Value {
    let mut told = json!({ "name": row.name, "provider": row.way.provider.name(), "precision": row.way.precision.name(),
        "graph_optimization": row.way.optimization.name(), "bytes": row.bytes });
    let (speed, accuracy) = match &row.tried {
        Ok(tried) => tried,
        Err(reason) => {
            told["reason"] = json!(reason);
            return told;
        }
    };
    told["images_per_second_one_thread"] = json!(speed.one_thread);
    told["images_per_second_all_cores"] = json!(speed.all_cores);
    told["p50_ms"] = json!(speed.p50_ms);
    told["loss"] = json!(accuracy.loss);
    if let Some(precision) = accuracy.precision {
        told["map_50"] = json!(precision.map_50);
        told["map_50_95"] = json!(precision.map_50_95);
    }
    told["agreement"] = match accuracy.agreement {
        Agreement::Boxes { of, least, kept, kept_75, extra, shift } => json!({
            "boxes": of, "least_confidence": least, "kept_iou_50": kept, "kept_iou_75": kept_75, "extra": extra,
            "confidence_shift": shift,
        }),
        Agreement::Classes(same) => json!({ "same_class": same }),
        Agreement::Masks(iou) => json!({ "mask_iou": iou }),
    };
    told
}
