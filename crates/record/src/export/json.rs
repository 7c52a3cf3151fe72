//! Everything, for programs: an object with the events in order and the head at the end.

use std::io::{self, Write};

use caudal_store::Stream;
use serde_json::to_string;

use crate::event::EventView;
use crate::proof::SignedHead;
use crate::raw::Raw;
use crate::time::iso;

pub(super) fn begin(out: &mut impl Write, stream: &Stream) -> io::Result<()> {
    let name = to_string(&stream.id.name)?;
    let meta = Raw::json_or_text(&stream.meta);
    let created = iso(stream.created);
    write!(
        out,
        "{{\"consultation_id\": {name}, \"created_at\": \"{created}\", \"metadata\": {}, \"events\": [",
        meta.as_json()
    )
}

pub(super) fn event(out: &mut impl Write, event: &EventView, first: bool) -> io::Result<()> {
    out.write_all(if first { b"\n" } else { b",\n" })?;
    out.write_all(to_string(event)?.as_bytes())
}

pub(super) fn end(out: &mut impl Write, events: u64, head: &SignedHead) -> io::Result<()> {
    writeln!(out, "\n], \"event_count\": {events}, \"head\": {}}}", to_string(head)?)
}
