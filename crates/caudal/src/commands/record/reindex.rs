//! `caudal record reindex`.

use std::{path::Path, process::ExitCode};

use caudal_record::{RecordError, Reindexed, archive::Options};
use caudal_store::StoreError;
use clap::ArgMatches;
use serde_json::json;

use super::{Absent, CommandError, Opened, deliver, explained, other, tell};

pub(super) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let opened = Opened::new(matches, Absent::Refuse)?;
    let codec = super::seal::codec(matches, opened.settings.seal.codec)?;
    let options = Options { codec, ..Options::default() };
    // This program again, as it is on disk even if a newer one has taken its place there.
    let done = opened.runtime.block_on(opened.record.reindex(Path::new("/proc/self/exe"), options));
    let done = done.map_err(|error| match error {
        RecordError::Store(StoreError::InUse(_)) => other("a seal is at work on this record; wait until it is done"),
        error => explained(&error),
    })?;
    match matches.get_flag("json") {
        true => deliver(&json!({ "archives": done }), None)?,
        false if done.is_empty() => tell("there are no archives").map(drop)?,
        false => {
            for archive in &done {
                tell(words(archive))?;
            }
        }
    }
    Ok(if done.iter().all(|archive| archive.lost.is_empty()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn words(archive: &Reindexed) -> String {
    let Reindexed { file, whole, events, kept, lost } = archive;
    let mut lines = vec![match (whole, kept) {
        (true, _) => format!("{file} is as it was sealed"),
        (false, Some(kept)) => format!("{file}: {events} events rewritten; the previous file is now {kept}"),
        (false, None) => format!("BAD {file}: it stays as it is"),
    }];
    lines.extend(lost.iter().map(|lost| format!("BAD {file}: {lost}")));
    lines.join("\n")
}
