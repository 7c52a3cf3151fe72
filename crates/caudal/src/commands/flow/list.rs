//! `caudal flow list`.

use std::process::ExitCode;

use caudal_record::time::iso;
use clap::ArgMatches;

use super::{CommandError, Opened, Runs, runtime, say, told};

pub(super) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let opened = Opened::new(matches, Runs::Kept)?;
    let limit = matches.get_one::<u32>("limit").copied().unwrap_or(20);
    let wanted = matches.get_one::<String>("status");
    let flows = opened.flows(None);
    let (runtime, engine) = (runtime()?, flows.engine());
    let listing = runtime.block_on(engine.runs().list(limit, 0)).map_err(|error| told(&error))?;
    if !matches.get_flag("json") {
        say::line(&format!("{:36}  {:11}  {:24}  {:20}", "run", "status", "pipeline", "since"));
    }
    for run in &listing.runs {
        let (pipeline, status) = runtime.block_on(engine.status(run)).map_err(|error| told(&error))?;
        if wanted.is_some_and(|wanted| wanted != status) {
            continue;
        }
        let (made, changed) = (iso(run.time), iso(run.last_time));
        if matches.get_flag("json") {
            let id = &run.id;
            say::json(
                &serde_json::json!({"run_id": id, "pipeline": pipeline, "status": status, "created_at": made, "updated_at": changed}),
            );
        } else {
            say::line(&format!("{:36}  {status:11}  {pipeline:24}  {made}", run.id));
        }
    }
    Ok(ExitCode::SUCCESS)
}
