//! `caudal explain`: what limits a server that runs, and what would help.

use std::{process::ExitCode, time::Duration};

use clap::ArgMatches;

use super::{
    CommandError, other,
    remote::{Access, Question, ask},
};

/// How much longer than it watches a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let seconds = matches.get_one::<u64>("seconds").copied().unwrap_or(5);
    let base = text("url").unwrap_or_default();
    let format = if matches.get_flag("json") { "json" } else { "txt" };
    let answer = ask(&Question {
        base: &base,
        path: &format!("/admin/profiling/explain?seconds={seconds}&format={format}"),
        access: Access::of(matches),
        takes: Duration::from_secs(seconds),
        patience: PATIENCE,
    })?;
    if answer.status != 200 {
        return Err(other(answer.refusal(&base)));
    }
    print!("{}", String::from_utf8_lossy(&answer.body));
    if matches.get_flag("json") {
        println!();
    }
    Ok(ExitCode::SUCCESS)
}
