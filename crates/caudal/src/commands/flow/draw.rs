//! `caudal flow explain`, `visualize`, `leaves` and `schema`.

use std::{path::PathBuf, process::ExitCode};

use clap::ArgMatches;

use super::{CommandError, Opened, Runs, other, say};

fn said(matches: &ArgMatches) -> &str {
    matches.get_one::<String>("pipeline").map(String::as_str).unwrap_or_default()
}

pub(super) fn explain(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    Ok(match Opened::new(matches, Runs::None)?.pipeline(said(matches))? {
        Ok(definition) => {
            say::line(caudal_flow::explain(&definition).trim_end());
            ExitCode::SUCCESS
        }
        Err(code) => code,
    })
}

pub(super) fn visualize(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let definition = match Opened::new(matches, Runs::None)?.pipeline(said(matches))? {
        Ok(definition) => definition,
        Err(code) => return Ok(code),
    };
    let drawn = match matches.get_one::<String>("format").map(String::as_str) {
        Some("svg") => caudal_flow::svg(&definition),
        _ => caudal_flow::mermaid(&definition),
    };
    match matches.get_one::<PathBuf>("output") {
        Some(file) => std::fs::write(file, drawn).map_err(|error| other(format!("{}: {error}", file.display())))?,
        None => say::line(drawn.trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn leaves(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let opened = Opened::new(matches, Runs::None)?;
    // Those under Flujo's names are the same ones.
    for (name, leaf) in opened.registry.iter().filter(|(name, _)| !name.starts_with("flujo.")) {
        if matches.get_flag("json") {
            say::json(&serde_json::json!({"name": name, "about": leaf.about, "settings": leaf.settings}));
        } else {
            say::line(&format!("{name}\n    {}", leaf.about));
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn schema() -> Result<ExitCode, CommandError> {
    say::line(&serde_json::to_string_pretty(&caudal_flow::schema()).unwrap_or_default());
    Ok(ExitCode::SUCCESS)
}
