//! `caudal flow show`, `trace` and `replay`.

use std::{process::ExitCode, sync::Arc};

use caudal_flow::{Report, Value};
use clap::ArgMatches;
use serde::Serialize;

use super::{CommandError, Opened, Runs, again::Again, runtime, say, told};

fn report(matches: &ArgMatches) -> Result<(Arc<Report>, Again), CommandError> {
    let opened = Opened::new(matches, Runs::Kept)?;
    let flows = opened.flows(None);
    let report = runtime()?.block_on(flows.report(id(matches))).map_err(|error| told(&error))?;
    Ok((report, Again::new(matches, &opened, None)))
}

fn id(matches: &ArgMatches) -> &str {
    matches.get_one::<String>("id").map(String::as_str).unwrap_or_default()
}

pub(super) fn show(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let (report, again) = report(matches)?;
    if matches.get_flag("json") {
        say::json(&*report);
        return Ok(ExitCode::SUCCESS);
    }
    say::line(&format!("{}  {}  {}", report.run_id, report.pipeline, report.status));
    say::summary(&report);
    say::outcome(&report, "auto", &again);
    Ok(ExitCode::SUCCESS)
}

pub(super) fn trace(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let (report, _) = report(matches)?;
    for step in &report.steps {
        if matches.get_flag("json") {
            say::json(step);
            continue;
        }
        let what = step.error.as_ref().map_or_else(|| say::short(&step.output), |error| error.message.clone());
        say::line(&format!(
            "{:>10}  {:>9}  {}  {what}",
            say::time(step.began_ms),
            say::time(step.duration_ms),
            step.path
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// A run and what came of it when it was replayed, as it is printed.
#[derive(Serialize)]
struct Replayed<'a> {
    run_id: &'a str,
    same: bool,
    recorded: &'a Value,
    replay: &'a Report,
}

pub(super) fn replay(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let opened = Opened::new(matches, Runs::Kept)?;
    let named = match matches.get_one::<String>("pipeline").map(|said| opened.pipeline(said)).transpose()?.transpose() {
        Ok(named) => named,
        Err(code) => return Ok(code),
    };
    let runtime = runtime()?;
    let own = if named.is_none() { runtime.block_on(opened.file_of(id(matches))) } else { None };
    let more = named.or_else(|| opened.read(own.as_deref()?).ok().map(|(definition, _)| definition));
    let (flows, again) = (opened.flows(more.as_ref()), Again::new(matches, &opened, None));
    let (recorded, replayed) = runtime
        .block_on(async { Ok((flows.report(id(matches)).await?, flows.replay(id(matches)).await?)) })
        .map_err(|error| told(&error))?;
    let same = recorded.status == replayed.status && recorded.output == replayed.output;
    if matches.get_flag("json") {
        let (run_id, recorded) = (&*recorded.run_id, &recorded.output);
        say::json(&Replayed { run_id, same, recorded, replay: &replayed });
    } else {
        match replayed.status {
            "paused" => eprintln!("? it goes no further: it waits for an answer"),
            _ => say::outcome(&replayed, "auto", &again),
        }
        eprintln!("{}", if same { "✓ as recorded" } else { "✗ not as recorded: the pipeline does something else now" });
    }
    Ok(if same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
