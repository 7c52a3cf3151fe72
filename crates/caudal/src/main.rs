//! `caudal`: one binary that serves AI models and shows where every millisecond goes.

// First, because its macros are seen by the modules after it.
#[macro_use]
mod output;

mod admin_token;
mod allocator;
mod assemble;
mod cli;
mod commands;
mod logging;
mod private_files;
mod settings;

use std::{io::Write, process::ExitCode};

fn main() -> ExitCode {
    allocator::let_sections_count();
    let matches = match cli::command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return help_or_usage(&error),
    };
    let code = commands::run(&matches).unwrap_or_else(|error| {
        logging::finish();
        eprintln!("caudal: {error}");
        error.exit_code()
    });
    logging::finish();
    code
}

/// Prints the help or the version that was asked for, or what is wrong with the command line.
fn help_or_usage(error: &clap::Error) -> ExitCode {
    let printed = error.print().and_then(|()| std::io::stdout().flush());
    match printed {
        Err(failure) if !error.use_stderr() => output::fail(&failure),
        _ => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)),
    }
}
