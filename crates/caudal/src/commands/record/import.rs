//! `caudal record import`.

use std::{path::Path, process::ExitCode};

use caudal_record::{
    ImportSummary, Importer, RecordError,
    archive::{ImportLimits, Imported, import},
};
use caudal_store::StoreError;
use clap::ArgMatches;

use super::{Absent, CommandError, Opened, bar, deliver, explained, other, path, tell};

/// Parts that are named where people read.
const NAMED: usize = 20;

pub(super) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let file = path(matches, "file").expect("it is required");
    // This program again, as it is on disk even if a newer one has taken its place there.
    let found = import(Path::new("/proc/self/exe"), file, ImportLimits::default());
    let found = found.map_err(|error| explained(&error.into()))?;
    let opened = Opened::new(matches, Absent::Make)?;
    let from = file.file_name().unwrap_or_default().to_string_lossy();
    let mut importer = Importer::new(opened.record.clone(), &from, &opened.settings.server.record.timezone);
    let bar = bar(None, "events imported");
    for found in found {
        match found.map_err(|error| explained(&error.into()))? {
            Imported::Skipped(part) => importer.skipped(part),
            Imported::Damaged { consultation, words } => importer.damaged(&consultation, &words),
            Imported::Consultation { name, original } => {
                opened.runtime.block_on(importer.consultation(&name, original)).map_err(failed)?;
            }
            Imported::Event { consultation, json } => {
                opened.runtime.block_on(importer.event(&consultation, json)).map_err(failed)?;
            }
        }
        let (events, known) = importer.progress();
        bar.set_position(events + known);
    }
    let done = opened.runtime.block_on(importer.finish()).map_err(failed)?;
    bar.finish_and_clear();
    match matches.get_flag("json") {
        true => deliver(&done, None)?,
        false => tell(words(&done)).map(drop)?,
    }
    Ok(if done.differing == 0 && done.damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn failed(error: RecordError) -> CommandError {
    match error {
        RecordError::Store(StoreError::Duplicate | StoreError::Exists(_)) => {
            other("another import brings the same events right now; once it is done, run this again: nothing doubles")
        }
        error => explained(&error),
    }
}

fn words(done: &ImportSummary) -> String {
    let mut lines = vec![format!(
        "{} events of {} consultations, {} of these new; {} events were there already",
        done.events, done.consultations, done.made, done.already_there
    )];
    let mut line = |count: u64, words: &str| {
        if count > 0 {
            lines.push(format!("{count} {words}"));
        }
    };
    line(done.differing, "events were there already and say something else in the file now: they stay as they were");
    line(done.renamed, "events have a type that is not ours, or not what it asks for: it got the namespace imported:");
    line(done.as_text, "events are no JSON that can be recorded: kept as a text, of type imported:TEXT");
    line(done.as_bytes, "events are no UTF-8 text: kept in base64, of type imported:BYTES");
    line(done.wrong_hashes, "events have an audit hash that is not their payload's: kept as original_audit_hash");
    let mut name = |parts: &[String], words: &str| {
        if !parts.is_empty() {
            lines.push(format!("{} {words}", parts.len()));
            lines.extend(parts.iter().take(NAMED).map(|part| format!("  {part}")));
        }
        if parts.len() > NAMED {
            lines.push("  … (--json names all)".to_owned());
        }
    };
    name(&done.skipped, "parts of the file are not carried over:");
    name(&done.damaged, "consultations are damaged, and are not carried over:");
    lines.join("\n")
}
