//! The body that appends an event: `{"event_type": …, "payload": {…}, "user_id": …}`, and what may stand beside these.

use std::borrow::Cow;
use std::ops::Range;

use caudal_types::{nearest, shorten};

use super::Walk;
use super::error::{Fault, JsonError};
use super::number;

/// What an append says. Texts are borrowed from the body unless they hold escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Which sort of event.
    pub event_type: Cow<'a, str>,
    /// Who says it.
    pub user_id: Option<Cow<'a, str>>,
    /// Within which session of theirs.
    pub session_id: Option<Cow<'a, str>>,
    /// The event's own name, where the caller gives one: sent twice, it is one event.
    pub event_id: Option<Cow<'a, str>>,
    /// The sequence at which the consultation must stand.
    pub expected_version: Option<u64>,
    /// Where the canonical payload stands in the output: an object.
    pub payload: Range<usize>,
    /// Where the canonical metadata stands in the output: an object.
    pub metadata: Option<Range<usize>>,
}

/// The whole number from 0 on that a JSON text says, as `2`, as `2.0` or as `2e0`; none if it says none.
pub fn whole_number(json: &str) -> Option<u64> {
    let (text, mut written) = (json.trim_ascii().as_bytes(), Vec::new());
    matches!(text.first(), Some(b'-' | b'0'..=b'9')).then_some(())?;
    let end = number::number(text, 0, &mut written).ok()?;
    whole(&written).filter(|_| end == text.len())
}

/// The whole number that a number in canonical form is.
fn whole(canonical: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(canonical).ok()?;
    text.strip_suffix(".0").unwrap_or(text).parse().ok()
}

const FIELDS: [&str; 7] =
    ["event_type", "payload", "user_id", "session_id", "event_id", "metadata", "expected_version"];

impl<'a> Walk<'a, '_> {
    pub(super) fn envelope(&mut self) -> Result<Envelope<'a>, JsonError> {
        let start = self.at;
        if !self.take(b'{') {
            return Err(Fault::WrongType { field: "the body", wanted: "a JSON object" }.at(start));
        }
        // In the order of FIELDS; the places of payload and metadata stay empty.
        let mut texts: [Option<Cow<'a, str>>; 7] = [const { None }; 7];
        let mut parts: [Option<Range<usize>>; 7] = [const { None }; 7];
        let mut seen = [false; 7];
        let mut expected_version = None;
        self.space();
        if !self.take(b'}') {
            loop {
                let at = self.at;
                let index = self.field()?;
                let field = FIELDS[index];
                if std::mem::replace(&mut seen[index], true) {
                    return Err(Fault::duplicate(field).at(at));
                }
                self.colon()?;
                match field {
                    "payload" => parts[index] = Some(self.part(b'{', field, "an object")?),
                    // What may be left out may be null as well.
                    _ if field != "event_type" && self.null() => {}
                    "metadata" => parts[index] = Some(self.part(b'{', field, "an object or null")?),
                    "expected_version" => expected_version = Some(self.count(field)?),
                    _ if self.at >= self.text.len() => return Err(Fault::CutOff("a value").at(self.at)),
                    _ if self.text.get(self.at) != Some(&b'"') => {
                        return Err(Fault::WrongType { field, wanted: "a string" }.at(self.at));
                    }
                    _ => texts[index] = Some(self.said()?),
                }
                self.space();
                if self.take(b'}') {
                    break;
                }
                self.expect(b',', "a comma or the end of the object")?;
                self.space();
            }
        }
        let missing = |index: usize| Fault::MissingField(FIELDS[index]).at(start);
        let [event_type, _, user_id, session_id, event_id, ..] = texts;
        let [_, payload, _, _, _, metadata, _] = parts;
        let payload = payload.ok_or_else(|| missing(1))?;
        Ok(Envelope {
            event_type: event_type.ok_or_else(|| missing(0))?,
            user_id,
            session_id,
            event_id,
            expected_version,
            payload,
            metadata,
        })
    }

    /// Which field stands here. One that is not known is refused: what was sent would be missing from the record.
    fn field(&mut self) -> Result<usize, JsonError> {
        let at = self.at;
        if self.text.get(at) != Some(&b'"') {
            return Err(self.unexpected("a key in quotes"));
        }
        let name = self.said()?;
        FIELDS.iter().position(|field| *field == name).ok_or_else(|| {
            let name = shorten(&name).into_owned();
            Fault::UnknownField { nearest: nearest(&name, FIELDS), name }.at(at)
        })
    }

    /// A whole number from 0 on.
    fn count(&mut self, field: &'static str) -> Result<u64, JsonError> {
        let (at, wrong) = (self.at, Fault::WrongType { field, wanted: "a whole number from 0 on" });
        if !matches!(self.text.get(at), Some(b'-' | b'0'..=b'9')) {
            return Err(wrong.at(at));
        }
        let mut written = Vec::new();
        self.at = number::number(self.text, at, &mut written)?;
        whole(&written).ok_or_else(|| wrong.at(at))
    }

    fn null(&mut self) -> bool {
        let null = self.text[self.at..].starts_with(b"null");
        self.at += if null { 4 } else { 0 };
        null
    }
}
