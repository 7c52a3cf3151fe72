//! `caudal`: one binary that serves AI models and shows where every millisecond goes.

mod allocator;
mod assemble;
mod cli;
mod commands;
mod logging;
mod settings;

use std::process::ExitCode;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let matches = cli::command().get_matches();
    let code = commands::run(&matches).unwrap_or_else(|error| {
        logging::finish();
        eprintln!("caudal: {error}");
        error.exit_code()
    });
    logging::finish();
    code
}
