//! `caudal models profile`: which operators of a model take how long.

use std::process::ExitCode;

use caudal_engine::{Operator, OperatorProfile};
use caudal_types::Explain;
use clap::ArgMatches;
use serde_json::{Value, json};

use super::{CommandError, load, models, other};
use crate::assemble;

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let settings = load(matches, true)?.settings;
    let number = |name: &str| {
        let text = matches.get_one::<String>(name).map(String::as_str).unwrap_or_default();
        let number = text.parse::<usize>().ok().filter(|number| (1..=10_000).contains(number));
        number.ok_or_else(|| other(format!("--{name} is a number from 1 to 10000")))
    };
    let (runs, top) = (number("runs")?, number("top")?);
    let folder = models::named(matches, &settings)?;
    let backend = assemble::backend(&settings)?;
    let explained = |error: caudal_tasks::ModelError| other(format!("{error}; {}", error.hint()));
    let model = caudal_tasks::load(&folder, &backend, &settings.models).map_err(explained)?;
    let profile = caudal_tasks::operators(&model, &folder, &backend, runs).map_err(explained)?;
    if matches.get_flag("json") {
        println!("{:#}", as_json(&profile, &model.name, model.version, top));
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "{} version {}, {} runs of {:.2} ms",
        model.name,
        model.version,
        profile.runs,
        per_run(profile.total_us, &profile)
    );
    tell("kind", &profile.by_kind(), |operator| &operator.kind, &profile, top);
    println!();
    tell("operator", &profile.operators, |operator| &operator.name, &profile, top);
    Ok(ExitCode::SUCCESS)
}

/// Milliseconds of a run.
fn per_run(total_us: u64, profile: &OperatorProfile) -> f64 {
    total_us as f64 / profile.runs.max(1) as f64 / 1e3
}

fn share(operator: &Operator, profile: &OperatorProfile) -> f64 {
    operator.total_us as f64 / profile.total_us.max(1) as f64
}

fn tell(title: &str, operators: &[Operator], name: fn(&Operator) -> &String, profile: &OperatorProfile, top: usize) {
    let shown = &operators[..top.min(operators.len())];
    let width = shown.iter().map(|operator| name(operator).chars().count()).max().unwrap_or(0).max(title.len());
    let last = if title == "kind" { "" } else { "  kind" };
    println!("  {title:width$}  ms a run   share  calls a run{last}");
    for operator in shown {
        let kind = if title == "kind" { String::new() } else { format!("  {}", operator.kind) };
        println!(
            "  {:width$}  {:8.3}  {:5.1} %  {:11.1}{kind}",
            name(operator),
            per_run(operator.total_us, profile),
            share(operator, profile) * 100.0,
            operator.calls as f64 / profile.runs.max(1) as f64,
        );
    }
    if operators.len() > shown.len() {
        let rest: u64 = operators[shown.len()..].iter().map(|operator| operator.total_us).sum();
        println!("  and {} more, {:.3} ms a run", operators.len() - shown.len(), per_run(rest, profile));
    }
}

fn as_json(profile: &OperatorProfile, model: &str, version: u64, top: usize) -> Value {
    let one = |operator: &Operator| {
        json!({
            "name": operator.name, "kind": operator.kind, "provider": operator.provider, "calls": operator.calls,
            "total_us": operator.total_us, "ms_per_run": per_run(operator.total_us, profile), "share": share(operator, profile),
        })
    };
    let all = |operators: &[Operator]| operators.iter().take(top).map(one).collect::<Vec<_>>();
    json!({
        "model": model, "version": version.to_string(), "runs": profile.runs,
        "run_ms": per_run(profile.total_us, profile), "kinds": all(&profile.by_kind()), "operators": all(&profile.operators),
    })
}
