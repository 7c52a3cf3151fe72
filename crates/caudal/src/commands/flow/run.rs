//! `caudal flow run`.

use std::{io::IsTerminal as _, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use caudal_flow::{Definition, Flows, Going, Limits, Map, Outcome, Report, RunOptions, Value};
use clap::ArgMatches;

use super::{CommandError, INTERRUPTED, Opened, Runs, again::Again, live, runtime, say, told, usage, value};

pub(super) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let kept = !matches.get_flag("ephemeral") && !matches.get_flag("dry-run");
    let opened = Opened::new(matches, if kept { Runs::Kept } else { Runs::None })?;
    let said = matches.get_one::<String>("pipeline").map(String::as_str).unwrap_or_default();
    let file = opened.file(said)?;
    let definition = match opened.pipeline_in(&file) {
        Ok(definition) => definition,
        Err(code) => return Ok(code),
    };
    let input = matches.get_one::<String>("input").map_or(Ok(Value::Null), |said| value(said))?;
    let whole = file.canonicalize().ok().and_then(|file| Some(Arc::from(file.to_str()?)));
    let options = RunOptions { source: whole, ..options(matches)? };
    if matches.get_flag("dry-run") {
        return dry(&definition, &input);
    }
    let (flows, again) = (opened.flows(Some(&definition)), Again::new(matches, &opened, Some(&file)));
    runtime()?.block_on(async {
        let going = flows.begin(&definition, input, options).await.map_err(|error| told(&error))?;
        finish(matches, &flows, going, &again).await
    })
}

fn options(matches: &ArgMatches) -> Result<RunOptions, CommandError> {
    let context = match (matches.get_one::<String>("context-data"), matches.get_one::<PathBuf>("context-file")) {
        (Some(said), _) => value(said)?,
        (_, Some(file)) => {
            let text = std::fs::read_to_string(file).map_err(|error| usage(format!("{}: {error}", file.display())))?;
            serde_norway::from_str::<serde_json::Value>(caudal_types::without_mark(&text))
                .map_err(|error| usage(format!("{}: {error}", file.display())))?
                .into()
        }
        _ => Value::Map(Map::default()),
    };
    let Value::Map(context) = context else { return Err(usage("what a run knows is an object")) };
    let cost = matches.get_one::<f64>("max-cost-usd").map(|dollars| (dollars.max(0.0) * 1e6) as u64);
    let limits = Limits { cost, tokens: matches.get_one::<u64>("max-tokens").copied(), steps: None };
    let id = matches.get_one::<String>("run-id").map(|id| Arc::from(id.as_str()));
    let ephemeral = matches.get_flag("ephemeral").then_some(false);
    let timeout = matches.get_one::<Duration>("timeout").copied();
    Ok(RunOptions { id, context, limits, timeout, durable: ephemeral, source: None })
}

fn dry(definition: &Definition, input: &Value) -> Result<ExitCode, CommandError> {
    if let Some(check) = &definition.takes
        && let Err(wrong) = check.check(input)
    {
        return Err(usage(format!("the input does not fit: {wrong}")));
    }
    say::line(caudal_flow::explain(definition).trim_end());
    Ok(ExitCode::SUCCESS)
}

/// Waits for a run, asks whoever sits at the terminal what it asks, and tells what it came to.
pub(super) async fn finish(
    matches: &ArgMatches,
    flows: &Arc<Flows>,
    mut going: Going,
    again: &Again,
) -> Result<ExitCode, CommandError> {
    let json = matches.get_flag("json");
    loop {
        let shown = matches.get_flag("live").then(|| live::show(&going.handle));
        let id = Arc::clone(&going.id);
        let handle = going.handle.clone();
        let mut waiting = std::pin::pin!(going.wait());
        let went = tokio::select! {
            went = &mut waiting => went.map_err(|error| told(&error))?,
            _ = tokio::signal::ctrl_c() => {
                handle.pause();
                // Who is in a hurry says so twice, and leaves the run as a crash would.
                tokio::select! {
                    _ = &mut waiting => {}
                    _ = tokio::signal::ctrl_c() => {}
                }
                match again.is_stored() && flows.engine().story(&id).await.is_ok() {
                    true => eprintln!("\npaused. Continue with: {}", again.command(&id, None)),
                    false => eprintln!("\ninterrupted: this run was not stored and cannot be resumed"),
                }
                std::process::exit(i32::from(INTERRUPTED));
            }
        };
        if let Some(shown) = shown {
            drop(handle);
            let _ = shown.await;
        }
        let (outcome, report) = went;
        let asked = match &outcome {
            Outcome::Paused(prompts) if !json && std::io::stdin().is_terminal() && std::io::stderr().is_terminal() => {
                prompts.first()
            }
            _ => None,
        };
        let Some(prompt) = asked else { return Ok(end(matches, &outcome, &report, again)) };
        if let Some(wrong) = &prompt.refused {
            say::aside(&format!("✗ the answer does not fit: {wrong}"));
        }
        eprint!("? {} ", say::text(&prompt.message));
        let Some(answer) = line().await else { return Ok(end(matches, &outcome, &report, again)) };
        let answers = [(Arc::clone(&prompt.path), value(&answer)?)].into();
        going = flows.resume(&id, answers, false).await.map_err(|error| told(&error))?;
    }
}

/// A line that somebody types; none at the end of all lines.
async fn line() -> Option<String> {
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).ok().filter(|read| *read > 0).map(|_| line.trim().to_owned())
    });
    read.await.ok().flatten()
}

fn end(matches: &ArgMatches, outcome: &Outcome, report: &Report, again: &Again) -> ExitCode {
    let form = matches.get_one::<String>("final-output-format").map_or("auto", String::as_str);
    if matches.get_flag("json") {
        say::json(report);
    } else {
        if matches.get_flag("summary") {
            say::summary(report);
        }
        say::outcome(report, form, again);
    }
    match outcome {
        Outcome::Paused(prompts) => match prompts.iter().find_map(|prompt| prompt.refused.as_ref()) {
            Some(wrong) => {
                say::aside(&format!("✗ the answer does not fit: {wrong}"));
                ExitCode::FAILURE
            }
            None => ExitCode::SUCCESS,
        },
        Outcome::Completed(_) => ExitCode::SUCCESS,
        Outcome::Failed(_) => ExitCode::FAILURE,
    }
}
