//! `caudal record export` and `verify-export`.

use std::process::ExitCode;

use caudal_record::{check_folder, export::Format};
use clap::ArgMatches;

use super::{Absent, CommandError, Opened, explained, id, path, public_key, tell, text, usage};

pub(super) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let folder = path(matches, "output").expect("it is required");
    if folder.exists() {
        return Err(usage(format!("{} is there already; name a folder that is not", folder.display())));
    }
    let mut formats: Vec<Format> = Vec::new();
    let named = matches.get_many::<String>("format").unwrap_or_default();
    for format in named.filter_map(|name| Format::read(name)) {
        if !formats.contains(&format) {
            formats.push(format);
        }
    }
    let opened = Opened::new(matches, Absent::Refuse)?;
    let by = text(matches, "user").map(str::to_owned).or_else(|| std::env::var("USER").ok());
    let by = by.as_deref().unwrap_or("unknown");
    let manifest = opened.wait(opened.record.export_to(id(matches), &formats, folder, by))?;
    opened.note("EXPORTED", id(matches))?;
    for file in &manifest.files {
        tell(format!("{} {}", file.sha256, folder.join(&file.name).display()))?;
    }
    tell(format!("{} events; check it by `caudal record verify-export {}`", manifest.event_count, folder.display()))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn verify(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let (folder, key) = (path(matches, "folder").expect("it is required"), public_key(matches)?);
    let checked = check_folder(folder, key.as_ref()).map_err(|error| explained(&error))?;
    if let Some(fault) = &checked.fault {
        tell(format!("BAD manifest: {fault}"))?;
    }
    for file in &checked.files {
        match &file.fault {
            None => tell(format!("good {}", file.name))?,
            Some(fault) => tell(format!("BAD {}: {fault}", file.name))?,
        };
    }
    if checked.valid && key.is_none() {
        tell("who made it was not checked: --key HEX does")?;
    }
    Ok(if checked.valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
