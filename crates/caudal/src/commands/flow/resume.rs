//! `caudal flow resume` and `cancel`.

use std::{collections::HashMap, process::ExitCode, sync::Arc};

use caudal_flow::{Flows, Value};
use clap::ArgMatches;

use super::{CommandError, Opened, Runs, again::Again, run, runtime, say, told, value};

pub(super) fn resume(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let opened = Opened::new(matches, Runs::Kept)?;
    let file = matches.get_one::<String>("pipeline").map(|said| opened.file(said)).transpose()?;
    let named = match file.as_deref().map(|file| opened.pipeline_in(file)).transpose() {
        Ok(named) => named,
        Err(code) => return Ok(code),
    };
    let (runtime, id) = (runtime()?, matches.get_one::<String>("id").map(String::as_str).unwrap_or_default());
    // A run that was begun from a file belongs to it, wherever that is.
    let own = if named.is_none() { runtime.block_on(opened.file_of(id)) } else { None };
    let more = named.or_else(|| opened.read(own.as_deref()?).ok().map(|(definition, _)| definition));
    let (flows, again) = (opened.flows(more.as_ref()), Again::new(matches, &opened, file.or(own).as_deref()));
    if matches.get_flag("all") {
        return runtime.block_on(all(&flows));
    }
    let at = matches.get_one::<String>("at").map(String::as_str).unwrap_or_default();
    let answers: HashMap<Arc<str>, Value> = match matches.get_one::<String>("answer") {
        Some(said) => [(at.into(), value(said)?)].into(),
        None => HashMap::new(),
    };
    runtime.block_on(async {
        let going = flows.resume(id, answers, matches.get_flag("force")).await.map_err(|error| told(&error))?;
        run::finish(matches, &flows, going, &again).await
    })
}

async fn all(flows: &Arc<Flows>) -> Result<ExitCode, CommandError> {
    let mut code = ExitCode::SUCCESS;
    for (id, going) in flows.take_up().await.map_err(|error| told(&error))? {
        let went = match going {
            Ok(going) => going.wait().await.map(|(_, report)| report.status),
            Err(error) => Err(error),
        };
        match went {
            Ok(status) => say::line(&format!("{id}  {status}")),
            Err(error) => {
                code = ExitCode::FAILURE;
                say::aside(&format!("{id}  {error}"));
            }
        }
    }
    Ok(code)
}

pub(super) fn cancel(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let flows = Opened::new(matches, Runs::Kept)?.flows(None);
    let id = matches.get_one::<String>("id").map(String::as_str).unwrap_or_default();
    runtime()?.block_on(flows.cancel(id)).map_err(|error| told(&error))?;
    say::line(&format!("{id}  cancelled"));
    Ok(ExitCode::SUCCESS)
}
