//! `caudal record show`.

use std::{fmt::Write as _, process::ExitCode};

use caudal_record::{
    Consultation,
    hash::Hex,
    original_created_at,
    soap::SoapView,
    state::{Raw, State},
    time::iso,
};
use clap::ArgMatches;
use serde::Serialize;

use super::{Absent, CommandError, Opened, deliver, id, tell};

/// A consultation as it is printed. No tree is made of it: numbers keep the digits that were sent.
#[derive(Serialize)]
struct Shown<'a> {
    consultation_id: &'a str,
    about: Raw,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_created_at: Option<String>,
    updated_at: String,
    event_count: u64,
    archived_events: u64,
    chain_hash: String,
    state: &'a State,
    soap: SoapView,
}

pub(super) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let opened = Opened::new(matches, Absent::Refuse)?;
    let (consultation, state) = opened.wait(opened.record.state(id(matches)))?;
    opened.note("CONSULTATION_READ", id(matches))?;
    let (stream, soap) = (&consultation.stream, SoapView::of(&state));
    match matches.get_flag("json") {
        false => tell(words(&consultation, &state, &soap).trim_end()).map(drop)?,
        true => deliver(
            &Shown {
                consultation_id: &stream.id.name,
                about: consultation.about_as_written(),
                created_at: iso(stream.created),
                original_created_at: original_created_at(stream).map(iso),
                updated_at: iso(stream.head.time),
                event_count: stream.head.sequence,
                archived_events: stream.sealed,
                chain_hash: Hex(stream.head.chain).to_string(),
                state: &state,
                soap,
            },
            None,
        )?,
    }
    Ok(ExitCode::SUCCESS)
}

fn words(consultation: &Consultation, state: &State, soap: &SoapView) -> String {
    let (stream, about) = (&consultation.stream, &consultation.about);
    let mut said = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            // A string takes what is written to it.
            let _ = writeln!(said, "{name:<14} {}", caudal_types::printable(&value));
        }
    };
    line("consultation", stream.id.name.to_string());
    line("made", format!("{} by {}", iso(stream.created), about.user_id));
    line("originally", original_created_at(stream).map_or_else(String::new, |time| format!("made {}", iso(time))));
    line("session", about.session_id.clone());
    line("events", format!("{}, {} of them in archives", stream.head.sequence, stream.sealed));
    line("last event", iso(stream.head.time));
    line("chain", Hex(stream.head.chain).to_string());
    let types: Vec<_> = state.events_by_type.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    line("types", types.join(", "));
    line("messages", state.messages.len().to_string());
    line("urgency", soap.urgency_assessment.as_ref().map(|urgency| urgency.urgency_level.clone()).unwrap_or_default());
    line("errors", if state.error_count == 0 { String::new() } else { state.error_count.to_string() });
    let ready = match (soap.is_committed, soap.is_ready_for_commit) {
        (true, _) => "committed",
        (false, true) => "ready to be committed",
        (false, false) => "not ready to be committed",
    };
    line("SOAP note", format!("{:.0} % complete, {ready}", soap.completeness * 100.0));
    line("missing", soap.missing_fields.join(", "));
    line("open", soap.open.join(", "));
    line("failed", soap.failed.join(", "));
    said
}
