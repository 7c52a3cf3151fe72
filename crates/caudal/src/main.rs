//! `caudal`: one binary that serves AI models and shows where every millisecond goes.

mod admin_token;
mod allocator;
mod assemble;
mod cli;
mod commands;
mod logging;
mod private_files;
mod settings;

use std::process::ExitCode;

fn main() -> ExitCode {
    allocator::let_sections_count();
    let matches = cli::command().get_matches();
    let code = commands::run(&matches).unwrap_or_else(|error| {
        logging::finish();
        eprintln!("caudal: {}", caudal_types::printable_lines(&error.to_string()));
        error.exit_code()
    });
    logging::finish();
    code
}
