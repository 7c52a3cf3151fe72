//! `caudal record append`.

use std::{path::Path, process::ExitCode};

use caudal_record::{Ingest, Ingested, NewConsultation, RecordError, hash::Hex, time::iso};
use caudal_store::StoreError;
use clap::ArgMatches;
use serde::Serialize;
use serde_json::{json, value::RawValue};

use super::{Absent, CommandError, Opened, contents, explained, id, tell, text, usage};

#[derive(Serialize)]
struct Event<'a> {
    event_type: &'a str,
    payload: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<&'a str>,
    expected_version: Option<u64>,
}

pub(super) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let payload = payload(text(matches, "payload").expect("it is required"))?;
    let create = matches.get_flag("create");
    let opened = Opened::new(matches, if create { Absent::Make } else { Absent::Refuse })?;
    let largest = opened.settings.server.record.max_event;
    if payload.get().len() as u64 > largest {
        return Err(usage(format!(
            "the event is larger than the {largest} bytes allowed; raise --record-max-event-kb"
        )));
    }
    let event = Event {
        event_type: text(matches, "type").expect("it is required"),
        payload: &payload,
        user_id: text(matches, "user"),
        event_id: text(matches, "event-id"),
        expected_version: matches.get_one("expected-version").copied(),
    };
    let body = serde_json::to_vec(&event).expect("it is plain data");
    let mut ingest = Ingest::new("command line", &opened.settings.server.record.timezone);
    let Ingested { record, expected } = ingest.event(&body, None).map_err(|error| explained(&error))?;
    let name = id(matches);
    if create {
        make(&opened, name, event.user_id.unwrap_or("unknown"))?;
    }
    let (event_id, digest) = (record.id, record.digest);
    let appended = opened.wait(opened.record.append_once(name, vec![record], expected, None))?;
    let mut told = json!({
        "event_id": event_id,
        "consultation_id": name,
        "sequence": appended.last,
        "timestamp": iso(appended.time),
        "audit_hash": Hex(digest),
        "chain_hash": Hex(appended.chain),
    });
    if appended.repeated {
        told["repeated"] = true.into();
    }
    tell(told)?;
    Ok(ExitCode::SUCCESS)
}

fn payload(said: &str) -> Result<Box<RawValue>, CommandError> {
    let bytes = match said.strip_prefix('@') {
        Some(file) => contents(Path::new(file))?,
        None if said == "-" => contents(Path::new(said))?,
        None => said.as_bytes().to_vec(),
    };
    // Editors on Windows put a byte order mark in front.
    let json = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
    serde_json::from_slice(json).map_err(|error| {
        usage(format!("the payload is no JSON: {error}; send an object, such as '{{\"message\": \"Hola\"}}'"))
    })
}

fn make(opened: &Opened, name: &str, user: &str) -> Result<(), CommandError> {
    let new = NewConsultation {
        user_id: user.to_owned(),
        consultation_id: Some(name.to_owned()),
        ..NewConsultation::default()
    };
    opened.wait(async {
        match opened.record.make(&new, None).await {
            Ok(_) | Err(RecordError::Store(StoreError::Exists(_))) => Ok(()),
            Err(error) => Err(error),
        }
    })
}
