//! `caudal record verify`.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
    process::ExitCode,
};

use caudal_record::{
    AUDIT, RecordError, Verdict,
    archive::Reader,
    hash::Hex,
    proof::{SignedHead, Uncovered, strict},
    verify::Verifier,
};
use caudal_store::{ArchiveNote, List, Order, Range, Stream};
use caudal_types::Explain as _;
use clap::ArgMatches;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{Absent, CommandError, Opened, bar, contents, deliver, id, path, public_key, tell, usage};

/// Streams, and events, that are read in one go.
const STEP: u32 = 500;
/// So many rows in a row that cannot be read are the end of a list.
const LOST: u64 = 1_000;

pub(super) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    match matches.get_flag("all") {
        true => all(matches),
        false => one(matches),
    }
}

fn one(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let (known, key) = (known(matches)?, public_key(matches)?);
    if let Some((_, Some(uncovered))) = &known {
        tell(format!("BAD head: {uncovered}"))?;
        return Ok(ExitCode::FAILURE);
    }
    let known = known.map(|(head, _)| head);
    if let (Some(head), Some(key)) = (&known, &key)
        && let Err(fault) = head.verify(key)
    {
        tell(format!("BAD head: {fault}"))?;
        return Ok(ExitCode::FAILURE);
    }
    let opened = Opened::new(matches, Absent::Refuse)?;
    let verdict = opened.wait(opened.record.verify(id(matches), known.as_ref()))?;
    match matches.get_flag("json") {
        true => deliver(&verdict, None)?,
        false => tell(words(&verdict)).map(drop)?,
    }
    Ok(if verdict.valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The head that was kept elsewhere.
fn known(matches: &ArgMatches) -> Result<Option<(SignedHead, Option<Uncovered>)>, CommandError> {
    let Some(file) = path(matches, "head") else { return Ok(None) };
    let wrong = |error| usage(format!("{} is no head: {error}; `caudal record head` makes one", file.display()));
    // The key named in it is not signed; --key gives the one that must have signed.
    Ok(Some(strict::read(&contents(file)?, &["public_key"]).map_err(wrong)?))
}

fn words(verdict: &Verdict) -> String {
    let name = &verdict.consultation_id;
    let fault = verdict.fault.as_deref().unwrap_or_default();
    match (verdict.valid, verdict.first_bad_event) {
        (true, _) => format!("good {name}: {} events", verdict.events),
        (false, Some(event)) => format!("BAD {name}: the first bad event is {event}: {fault}"),
        (false, None) => format!("BAD {name}: {fault}"),
    }
}

/// What was found.
#[derive(Default, Serialize)]
struct Found {
    valid: bool,
    consultations: u64,
    events: u64,
    archives: u64,
    faults: Vec<Fault>,
}

/// Something that is not as it must be.
#[derive(Serialize)]
struct Fault {
    place: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_bad_event: Option<u64>,
    fault: String,
}

impl Found {
    fn bad(&mut self, place: impl Into<String>, fault: impl ToString) {
        self.faults.push(Fault { place: place.into(), first_bad_event: None, fault: fault.to_string() });
    }
}

fn all(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let opened = Opened::new(matches, Absent::Refuse)?;
    let mut found = Found::default();
    opened.runtime.block_on(async {
        consultations(&opened, &mut found).await;
        audit(&opened, &mut found).await;
        match opened.record.store().check().await {
            Ok(wrong) => wrong.into_iter().for_each(|wrong| found.bad("database", wrong)),
            Err(error) => found.bad("database", error),
        }
    });
    match opened.runtime.block_on(opened.record.store().archives()) {
        Ok(notes) => archives(&opened, &notes, &mut found),
        Err(error) => found.bad("archives", error),
    }
    found.valid = found.faults.is_empty();
    match matches.get_flag("json") {
        true => deliver(&found, None)?,
        false => tell_all(&found)?,
    }
    Ok(if found.valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell_all(found: &Found) -> Result<(), CommandError> {
    for Fault { place, first_bad_event, fault } in &found.faults {
        match first_bad_event {
            Some(event) => tell(format!("BAD {place}: the first bad event is {event}: {fault}"))?,
            None => tell(format!("BAD {place}: {fault}"))?,
        };
    }
    let state = if found.valid { "good" } else { "BAD" };
    let Found { consultations, events, archives, faults, .. } = found;
    let faults = faults.len();
    tell(format!("{state}: {consultations} consultations, {events} events, {archives} archives; {faults} faults"))?;
    Ok(())
}

async fn consultations(opened: &Opened, found: &mut Found) {
    let (record, bar) = (&opened.record, bar(Some(0), "consultations checked"));
    let (mut offset, mut step, mut lost) = (0, STEP, 0);
    while lost < LOST {
        let streams = match record.list(Order::Oldest, step, offset).await {
            Ok(page) if page.streams.is_empty() => break,
            Ok(page) => {
                bar.set_length(page.total);
                page.streams
            }
            // One that cannot be read hides those beside it.
            Err(_) if step > 1 => {
                step = 1;
                continue;
            }
            Err(error) => {
                found.bad(format!("consultation number {} of the list", offset + 1), error);
                (offset, lost) = (offset + 1, lost + 1);
                continue;
            }
        };
        lost = 0;
        offset += streams.len() as u64;
        for stream in &streams {
            let place = format!("consultation {}", stream.id.name);
            found.consultations += 1;
            match record.verify(&stream.id.name, None).await {
                Ok(verdict) => {
                    found.events += verdict.events;
                    let (first_bad_event, fault) = (verdict.first_bad_event, verdict.fault);
                    found.faults.extend(fault.map(|fault| Fault { place, first_bad_event, fault }));
                }
                Err(error) => found.bad(place, error),
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
}

/// The log of who read what is a stream like others.
async fn audit(opened: &Opened, found: &mut Found) {
    let list = List { space: AUDIT.into(), order: Order::Oldest, limit: STEP, offset: 0, idle_since: None };
    let streams = match opened.record.store().streams(list).await {
        Ok(page) => page.streams,
        Err(error) => return found.bad("audit log", error),
    };
    for stream in &streams {
        if let Err((event, fault)) = audit_stream(opened, stream).await {
            let place = format!("audit {}", stream.id.name);
            found.faults.push(Fault { place, first_bad_event: Some(event), fault });
        }
    }
}

async fn audit_stream(opened: &Opened, stream: &Stream) -> Result<(), (u64, String)> {
    let mut verifier = Verifier::new(stream.id.clone(), stream.created, &stream.meta);
    let mut step = STEP;
    loop {
        let at = verifier.head().sequence;
        let some = match opened.record.store().read(&stream.id, Range::after(at, step)).await {
            Ok(some) => some,
            // One that cannot be read hides those beside it.
            Err(_) if step > 1 => {
                step = 1;
                continue;
            }
            Err(error) => return Err((at + 1, error.to_string())),
        };
        // Entries that came meanwhile are told of by no head that we have.
        let known: Vec<_> = some.iter().take_while(|record| record.sequence <= stream.head.sequence).collect();
        for record in &known {
            verifier.check(record).map_err(|bad| (bad.sequence, bad.to_string()))?;
        }
        if known.is_empty() {
            let at = verifier.head().sequence;
            return verifier.compare(&stream.head).map_err(|mismatch| (at + 1, mismatch.to_string()));
        }
    }
}

fn archives(opened: &Opened, notes: &[ArchiveNote], found: &mut Found) {
    let bar = bar(Some(notes.iter().map(|note| note.records).sum()), "archived events checked");
    let threads = caudal_types::available_cpus();
    for note in notes {
        found.archives += 1;
        let path = opened.folder.join("archives").join(&*note.file);
        let read = Reader::open(&path).and_then(|reader| reader.verify(threads, &|records| bar.inc(records)));
        let place = || format!("archive {}", note.file);
        match read.map_err(RecordError::from) {
            Err(error) => found.bad(place(), format!("{error}; {}", error.hint())),
            // Whole in itself, it could still be another than the one that was sealed.
            Ok(_) => match sum(&path) {
                Ok(digest) if digest == note.digest => {}
                Ok(digest) => {
                    let (told, found_sum) = (Hex(note.digest), Hex(digest));
                    found.bad(place(), format!("its SHA-256 is {found_sum}, sealed was {told}"));
                }
                Err(error) => found.bad(place(), error),
            },
        }
    }
    bar.finish_and_clear();
}

fn sum(path: &Path) -> io::Result<[u8; 32]> {
    let (mut file, mut hash, mut piece) = (File::open(path)?, Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hash.finalize().into()),
            count => hash.update(&piece[..count]),
        }
    }
}
