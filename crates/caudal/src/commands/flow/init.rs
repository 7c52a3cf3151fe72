//! `caudal flow init`.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::ArgMatches;

use super::{CommandError, other, say};

const EXAMPLE: &str = include_str!("hello.yaml");
const MAY: &str = include_str!("may.yaml");

pub(super) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let folder = matches.get_one::<PathBuf>("dir").cloned().unwrap_or_default();
    fs::create_dir_all(&folder).map_err(|error| other(format!("{}: {error}", folder.display())))?;
    for (name, text) in [("hello.yaml", EXAMPLE), ("flow.yaml", MAY)] {
        write(&folder.join(name), text)?;
    }
    say::line(&format!("caudal flow run {} --input World --summary", folder.join("hello.yaml").display()));
    Ok(ExitCode::SUCCESS)
}

/// Writes a file that is not there yet.
fn write(path: &Path, text: &str) -> Result<(), CommandError> {
    let made = fs::File::create_new(path).and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
    match made {
        Ok(()) => say::line(&format!("{} written", path.display())),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            say::line(&format!("{} is there already", path.display()));
        }
        Err(error) => return Err(other(format!("{}: {error}", path.display()))),
    }
    Ok(())
}
