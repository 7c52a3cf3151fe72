//! `caudal record tail`.

use std::{process::ExitCode, time::Duration};

use caudal_record::{event::EventView, stream_of};
use caudal_store::Range;
use clap::ArgMatches;

use super::{Absent, CommandError, Opened, explained, id, tell};

/// Events that are read in one go.
const STEP: u32 = 500;
/// How often it is looked for what other processes appended.
const LOOK: Duration = Duration::from_millis(250);

pub(super) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let opened = Opened::new(matches, Absent::Refuse)?;
    let (name, follow) = (id(matches), matches.get_flag("follow"));
    let mut after = *matches.get_one::<u64>("after").expect("it has a default");
    opened.wait(opened.record.find(name))?;
    opened.note(if follow { "EVENTS_FOLLOWED" } else { "EVENTS_READ" }, name)?;
    let (stream, mut told) = (stream_of(name), opened.record.follow(name));
    opened.runtime.block_on(async {
        loop {
            told.borrow_and_update();
            let events = opened.record.events(name, Range::after(after, STEP)).await;
            let events = events.map_err(|error| explained(&error))?;
            for event in &events {
                after = event.sequence;
                let line = serde_json::to_string(&EventView::of(&stream, event)).expect("it is plain data");
                if !tell(line)? {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            match (events.is_empty(), follow) {
                (false, _) => {}
                (true, false) => return Ok(ExitCode::SUCCESS),
                (true, true) => drop(tokio::time::timeout(LOOK, told.changed()).await),
            }
        }
    })
}
