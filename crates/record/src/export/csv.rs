//! CSV after RFC 4180: CRLF, quotes where a field needs them, quotes doubled within.
//!
//! A spreadsheet takes a cell that starts with `=`, `+`, `-`, `@`, a tab or a line break for a formula, even in quotes. Such
//! a cell gets an apostrophe in front, which spreadsheets read as "this is text". The columns `metadata` and `payload` are
//! JSON objects, which start with a brace, and hold everything as it is.

use std::io::{self, Write};

use crate::event::EventView;

const COLUMNS: &str = "sequence,timestamp,event_id,event_type,user_id,audit_hash,chain_hash,metadata,payload\r\n";

/// What makes a spreadsheet compute, the wide forms of East Asian keyboards among them.
const FORMULA: [char; 12] = ['=', '+', '-', '@', '\t', '\r', '\n', '|', '＝', '＋', '－', '＠'];

pub(super) fn begin(out: &mut impl Write) -> io::Result<()> {
    out.write_all(COLUMNS.as_bytes())
}

pub(super) fn event(out: &mut impl Write, event: &EventView) -> io::Result<()> {
    let user = event.metadata.member("user_id").and_then(crate::members::text).unwrap_or_default();
    let cells = [
        &*event.sequence.to_string(),
        &event.timestamp,
        &event.event_id.to_string(),
        &event.event_type,
        &user,
        &event.audit_hash.to_string(),
        &event.chain_hash.to_string(),
        event.metadata.as_json(),
        event.payload.as_json(),
    ];
    for (index, text) in cells.into_iter().enumerate() {
        if index > 0 {
            out.write_all(b",")?;
        }
        cell(out, text)?;
    }
    out.write_all(b"\r\n")
}

fn cell(out: &mut impl Write, text: &str) -> io::Result<()> {
    // Spreadsheets skip spaces before they look.
    let guard = if text.trim_start_matches(' ').starts_with(FORMULA) { "'" } else { "" };
    if guard.is_empty() && !text.contains(['"', ',', '\r', '\n']) && text.trim() == text {
        return out.write_all(text.as_bytes());
    }
    write!(out, "\"{guard}{}\"", text.replace('"', "\"\""))
}
