//! For people: each event with what it says, then the note. What came from outside stands in fences, where no reader
//! takes it for markup.

use std::io::{self, Write};

use caudal_store::Stream;

use crate::event::EventView;
use crate::members::text;
use crate::proof::SignedHead;
use crate::raw::{indented, member};
use crate::soap::SoapView;
use crate::state::State;
use crate::time::iso;

pub(super) fn begin(out: &mut impl Write, stream: &Stream) -> io::Result<()> {
    writeln!(out, "# Consultation {}\n", code(&stream.id.name))?;
    writeln!(out, "Begun {}. Times are UTC.\n\n## Events", iso(stream.created))
}

pub(super) fn event(out: &mut impl Write, event: &EventView) -> io::Result<()> {
    writeln!(out, "\n### {} · {} · {}\n", event.sequence, event.timestamp, code(&event.event_type))?;
    if let Some(time) = &event.occurred_at {
        writeln!(out, "Happened {time}; imported.\n")?;
    }
    if let Some(user) = event.metadata.member("user_id").and_then(text) {
        writeln!(out, "By {}.\n", code(&user))?;
    }
    let payload = event.payload.as_json();
    let said = ["message_content", "updated_content", "message", "content"];
    match said.iter().find_map(|name| member(payload, name)).and_then(text) {
        Some(said) => fenced(out, "text", &said)?,
        None => fenced(out, "json", payload)?,
    }
    writeln!(out, "\nHash {}, link {}.", code(&event.audit_hash.to_string()), code(&event.chain_hash.to_string()))
}

pub(super) fn end(out: &mut impl Write, state: &State, head: &SignedHead) -> io::Result<()> {
    let view = SoapView::of(state);
    writeln!(out, "\n## SOAP note\n\nComplete to {:.0} %.", view.completeness * 100.0)?;
    if !view.missing_fields.is_empty() {
        writeln!(out, "\nMissing: {}.", view.missing_fields.join(", "))?;
    }
    if let Some(urgency) = &view.urgency_assessment {
        writeln!(out, "\nUrgency: {}.", code(&urgency.urgency_level))?;
    }
    if let Some(note) = &view.soap_note {
        writeln!(out)?;
        fenced(out, "json", &indented(&serde_json::to_string(note)?))?;
    }
    writeln!(out, "\n## Head\n")?;
    fenced(out, "json", &serde_json::to_string_pretty(head)?)
}

/// A fence longer than any run of backticks within.
fn fenced(out: &mut impl Write, language: &str, text: &str) -> io::Result<()> {
    let fence = "`".repeat(longest_run(text).max(2) + 1);
    writeln!(out, "{fence}{language}\n{}\n{fence}", text.trim_end_matches('\n'))
}

/// As code within a line.
fn code(text: &str) -> String {
    let text = text.replace(['\n', '\r'], " ");
    let fence = "`".repeat(longest_run(&text) + 1);
    if text.starts_with('`') || text.ends_with('`') {
        format!("{fence} {text} {fence}")
    } else {
        format!("{fence}{text}{fence}")
    }
}

fn longest_run(text: &str) -> usize {
    text.split(|character| character != '`').map(str::len).max().unwrap_or(0)
}
