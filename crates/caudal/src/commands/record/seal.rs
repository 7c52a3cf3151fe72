//! `caudal record seal`.

use std::{process::ExitCode, time::Duration};

use caudal_record::{
    RecordError, Sealing,
    archive::{ArchiveError, Codec, Options},
};
use caudal_store::{Clock, StoreError};
use caudal_types::Explain as _;
use clap::ArgMatches;
use indicatif::HumanBytes;

use super::{Absent, CommandError, Opened, bar, deliver, explained, other, tell, text, usage};

pub(super) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let opened = Opened::new(matches, Absent::Refuse)?;
    let policy = &opened.settings.seal;
    let mut options = Options { limit: policy.limit, ..Options::default() };
    options.codec = codec(matches, policy.codec)?;
    options.limit = matches.get_one("size-limit").copied().unwrap_or(options.limit);
    let older = matches.get_one::<Duration>("older-than").copied().unwrap_or_default();
    let older = i64::try_from(older.as_micros()).unwrap_or(i64::MAX);
    let only = text(matches, "id").map(str::to_owned);
    let sealing = Sealing { idle_since: Clock::system().now().saturating_sub(older), only, options };
    let bar = bar(None, "events sealed");
    let counted = bar.clone();
    let done = opened.runtime.block_on(opened.record.seal(sealing, move |events| counted.inc(events)));
    let done = done.map_err(|error| match error {
        RecordError::Store(StoreError::InUse(_)) => {
            other("another seal is at work on this record; wait until it is done")
        }
        error => explained(&error),
    })?;
    bar.finish_and_clear();
    if matches.get_flag("json") {
        deliver(&done, None)?;
    } else if done.files.is_empty() {
        tell("there is nothing to seal")?;
    } else {
        let (before, after) = (HumanBytes(done.bytes_in), HumanBytes(done.bytes_out));
        tell(format!("{} events of {} consultations: {before} became {after}", done.events, done.consultations))?;
        for file in &done.files {
            tell(opened.folder.join("archives").join(file).display())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The codec that is asked for, if one is.
pub(super) fn codec(matches: &ArgMatches, default: Codec) -> Result<Codec, CommandError> {
    let Some(codec) = text(matches, "codec") else { return Ok(default) };
    codec.parse().map_err(|error: ArchiveError| usage(format!("{error}; {}", error.hint())))
}
