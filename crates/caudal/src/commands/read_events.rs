//! `caudal read-events`: the process that reads somebody's HDF5 file for an import. Hidden: nobody types it.

use std::{io, path::PathBuf, process::ExitCode};

use caudal_record::archive::{WorkerLimits, import_worker};
use clap::ArgMatches;

use super::{CommandError, other};

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let file = matches.get_one::<PathBuf>("file").expect("it is required");
    let number = |name: &str| *matches.get_one::<u64>(name).expect("it has a default");
    let (memory, seconds, patience) = (number("memory-mb") << 20, number("cpu-seconds"), number("patience"));
    let limits = WorkerLimits { memory, seconds, patience };
    let done = import_worker(file, limits, io::stdout().lock());
    done.map(|()| ExitCode::SUCCESS).map_err(|error| other(format!("what was found could not be told: {error}")))
}
