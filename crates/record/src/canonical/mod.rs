//! The one form of a JSON value that its hash is taken of: what Python's
//! `json.dumps(value, sort_keys=True, ensure_ascii=False)` writes, made from the bytes that came in one walk over them.
//! No tree is built, and what is in order already is copied as it stands. That the text is UTF-8 is found out before, in a
//! pass of its own by vectors.
//!
//! The form: keys sorted by code points, `", "` between members and `": "` behind keys, no other white space; strings
//! in UTF-8 with escapes for the quote, the backslash and control characters alone; integers as they came; floats as
//! the shortest text that reads back the same, with an exponent below 10⁻⁴ and from 10¹⁶ on.
//!
//! What is refused is what readers would not agree about: a key that stands twice, `NaN`, floats beyond 64 bits, halves
//! of surrogate pairs.

mod envelope;
mod error;
mod number;
mod object;
mod scan;

use std::borrow::Cow;
use std::ops::Range;

use caudal_store::Digest;
use sha2::{Digest as _, Sha256};

pub use envelope::{Envelope, whole_number};
pub use error::{Fault, JsonError};
pub use number::MOST_DIGITS;

use object::Member;

/// How deep arrays and objects may stand within each other, unless said otherwise.
pub const DEPTH: u8 = 64;

/// Working memory beyond this is given back after a text.
const KEPT: usize = 1 << 20;

/// Brings JSON texts into their canonical form. Keeps its working memory from one text to the next, up to a megabyte.
#[derive(Debug)]
pub struct Canonicaliser {
    depth: u8,
    members: Vec<Member>,
    scratch: Vec<u8>,
}

impl Default for Canonicaliser {
    fn default() -> Self {
        Self::new(DEPTH)
    }
}

impl Canonicaliser {
    /// One that takes arrays and objects nested up to `depth`.
    pub fn new(depth: u8) -> Self {
        Self { depth, members: Vec::new(), scratch: Vec::new() }
    }

    /// Appends the canonical form of the JSON value in `text` to `out`, and answers its SHA-256.
    ///
    /// # Errors
    /// `text` is not one JSON value, or one that is refused; `out` is as it was.
    pub fn value(&mut self, text: &[u8], out: &mut Vec<u8>) -> Result<Digest, JsonError> {
        let start = out.len();
        let mut walk = Walk::new(text, self, out)?;
        let walked = walk.value(0).and_then(|()| walk.end());
        self.rest();
        match walked {
            Ok(()) => Ok(sha256(&out[start..])),
            Err(error) => {
                out.truncate(start);
                Err(error)
            }
        }
    }

    /// Reads the body that appends an event: its fields, and the canonical forms of its payload and metadata, which
    /// are appended to `out`. A byte order mark in front of it is ignored.
    ///
    /// # Errors
    /// `text` is not such an envelope; `out` is as it was.
    pub fn envelope<'a>(&mut self, text: &'a [u8], out: &mut Vec<u8>) -> Result<Envelope<'a>, JsonError> {
        let start = out.len();
        let mut walk = Walk::new(text, self, out)?;
        walk.byte_order_mark();
        let envelope = walk.envelope().and_then(|envelope| walk.end().map(|()| envelope));
        self.rest();
        if envelope.is_err() {
            out.truncate(start);
        }
        envelope
    }

    fn rest(&mut self) {
        self.members.clear();
        self.members.shrink_to(KEPT / size_of::<Member>());
        self.scratch.clear();
        self.scratch.shrink_to(KEPT);
    }
}

/// The canonical form of the JSON value in `text`.
///
/// # Errors
/// See [`Canonicaliser::value`].
pub fn canonical(text: &[u8]) -> Result<Vec<u8>, JsonError> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 8);
    Canonicaliser::default().value(text, &mut out).map(|_| out)
}

/// The SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> Digest {
    Sha256::digest(bytes).into()
}

/// A place in a text, and what has been written so far.
struct Walk<'a, 'w> {
    source: &'a str,
    text: &'a [u8],
    at: usize,
    depth: u8,
    members: &'w mut Vec<Member>,
    scratch: &'w mut Vec<u8>,
    out: &'w mut Vec<u8>,
}

impl<'a, 'w> Walk<'a, 'w> {
    fn new(text: &'a [u8], work: &'w mut Canonicaliser, out: &'w mut Vec<u8>) -> Result<Self, JsonError> {
        let source = simdutf8::basic::from_utf8(text).map_err(|_| {
            let at = std::str::from_utf8(text).err().map_or(0, |error| error.valid_up_to());
            Fault::NotUtf8.at(at)
        })?;
        out.reserve(text.len() + 16);
        let Canonicaliser { depth, members, scratch } = work;
        let mut walk = Self { source, text, at: 0, depth: *depth, members, scratch, out };
        walk.space();
        if walk.at == text.len() {
            return Err(Fault::Empty.at(walk.at));
        }
        Ok(walk)
    }

    fn value(&mut self, depth: u8) -> Result<(), JsonError> {
        match self.text.get(self.at) {
            Some(b'"') => self.string().map(|_| ()),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'-' | b'0'..=b'9') => {
                self.at = number::number(self.text, self.at, self.out)?;
                Ok(())
            }
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            Some(b'N' | b'I') => Err(Fault::NotANumber.at(self.at)),
            _ => Err(self.unexpected("a value")),
        }
    }

    fn word(&mut self, word: &'static str) -> Result<(), JsonError> {
        if !self.text[self.at..].starts_with(word.as_bytes()) {
            return Err(self.unexpected("a value"));
        }
        self.out.extend_from_slice(word.as_bytes());
        self.at += word.len();
        Ok(())
    }

    fn array(&mut self, depth: u8) -> Result<(), JsonError> {
        self.check_depth(depth)?;
        self.at += 1;
        self.out.push(b'[');
        self.space();
        if !self.take(b']') {
            loop {
                self.value(depth + 1)?;
                self.space();
                if self.take(b']') {
                    break;
                }
                self.expect(b',', "a comma or the end of the array")?;
                self.out.extend_from_slice(b", ");
                self.space();
            }
        }
        self.out.push(b']');
        Ok(())
    }

    fn object(&mut self, depth: u8) -> Result<(), JsonError> {
        self.check_depth(depth)?;
        self.at += 1;
        self.out.push(b'{');
        self.space();
        if !self.take(b'}') {
            self.object_members(depth)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn object_members(&mut self, depth: u8) -> Result<(), JsonError> {
        let (start, first) = (self.out.len(), self.members.len());
        let mut sorted = true;
        loop {
            let member = self.member(depth)?;
            if sorted && self.members.len() > first {
                let order = self.members[self.members.len() - 1].order(&member, self.out);
                if order.is_eq() {
                    return Err(member.duplicate(self.out));
                }
                sorted = order.is_lt();
            }
            self.members.push(member);
            self.space();
            if self.take(b'}') {
                break;
            }
            self.expect(b',', "a comma or the end of the object")?;
            self.out.extend_from_slice(b", ");
            self.space();
        }
        if !sorted {
            object::sort(&mut self.members[first..], self.out, start, self.scratch)?;
        }
        self.members.truncate(first);
        Ok(())
    }

    fn member(&mut self, depth: u8) -> Result<Member, JsonError> {
        let (at, start) = (self.at, self.out.len());
        if self.text.get(at) != Some(&b'"') {
            return Err(self.unexpected("a key in quotes"));
        }
        let escaped = self.string()?;
        let key_end = self.out.len() - 1;
        self.colon()?;
        self.out.extend_from_slice(b": ");
        self.value(depth + 1)?;
        Ok(Member { start, key_end, end: self.out.len(), escaped, at })
    }

    fn colon(&mut self) -> Result<(), JsonError> {
        self.space();
        self.expect(b':', "a colon")?;
        self.space();
        Ok(())
    }

    /// Writes the string that starts here; says whether what was written holds escapes.
    fn string(&mut self) -> Result<bool, JsonError> {
        let mut from = self.at;
        let mut escaped = false;
        self.at += 1;
        loop {
            self.at += scan::plain(&self.text[self.at..]);
            match self.text.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    self.out.extend_from_slice(&self.text[from..self.at]);
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    // These stay as they are: the run goes on.
                    if matches!(self.text.get(self.at + 1), Some(b'"' | b'\\' | b'n' | b'r' | b't' | b'b' | b'f')) {
                        self.at += 2;
                        continue;
                    }
                    self.out.extend_from_slice(&self.text[from..self.at]);
                    let character = self.escape()?;
                    self.write(character);
                    from = self.at;
                }
                Some(&control) => return Err(Fault::ControlCharacter(control).at(self.at)),
                None => return Err(Fault::CutOff("the end of a string").at(self.at)),
            }
        }
    }

    /// What the string that starts here says.
    fn said(&mut self) -> Result<Cow<'a, str>, JsonError> {
        let mut from = self.at + 1;
        let mut said = Cow::Borrowed("");
        self.at += 1;
        loop {
            self.at += scan::plain(&self.text[self.at..]);
            let run = &self.source[from..self.at];
            match self.text.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    said += run;
                    return Ok(said);
                }
                Some(b'\\') => {
                    let said = said.to_mut();
                    said.push_str(run);
                    said.push(self.escape()?);
                    from = self.at;
                }
                Some(&control) => return Err(Fault::ControlCharacter(control).at(self.at)),
                None => return Err(Fault::CutOff("the end of a string").at(self.at)),
            }
        }
    }

    /// The character that the escape here stands for.
    fn escape(&mut self) -> Result<char, JsonError> {
        let start = self.at;
        let letter = self.text.get(start + 1).copied().ok_or(Fault::CutOff("an escape").at(start + 1))?;
        self.at += 2;
        Ok(match letter {
            b'"' | b'\\' | b'/' => char::from(letter),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let mut unit = self.unit(start)?;
                if (0xd800..0xdc00).contains(&unit) && self.text[self.at..].starts_with(b"\\u") {
                    self.at += 2;
                    let low = self.unit(start)?;
                    if !(0xdc00..0xe000).contains(&low) {
                        return Err(Fault::LoneSurrogate.at(start));
                    }
                    unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                }
                char::from_u32(unit).ok_or(Fault::LoneSurrogate.at(start))?
            }
            _ => return Err(Fault::BadEscape.at(start)),
        })
    }

    fn unit(&mut self, start: usize) -> Result<u32, JsonError> {
        let digits = self.text.get(self.at..self.at + 4).ok_or(Fault::BadEscape.at(start))?;
        self.at += 4;
        digits.iter().try_fold(0, |unit, digit| Some(unit * 16 + hex(*digit)?)).ok_or(Fault::BadEscape.at(start))
    }

    fn write(&mut self, character: char) {
        let mut whole = [0; 4];
        let short = match character {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\u{8}' => "\\b",
            '\u{c}' => "\\f",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            '\0'..'\u{20}' => return self.out.extend_from_slice(format!("\\u{:04x}", u32::from(character)).as_bytes()),
            _ => character.encode_utf8(&mut whole),
        };
        self.out.extend_from_slice(short.as_bytes());
    }

    /// Nothing but white space may follow.
    fn end(&mut self) -> Result<(), JsonError> {
        self.space();
        match self.here() {
            None => Ok(()),
            Some(found) => Err(Fault::Trailing(found).at(self.at)),
        }
    }

    /// RFC 8259, 8.1: a reader may ignore a byte order mark in front of a text.
    fn byte_order_mark(&mut self) {
        if self.source.starts_with('\u{feff}') {
            self.at = '\u{feff}'.len_utf8();
            self.space();
        }
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8, wanted: &'static str) -> Result<(), JsonError> {
        if self.take(byte) { Ok(()) } else { Err(self.unexpected(wanted)) }
    }

    fn check_depth(&self, depth: u8) -> Result<(), JsonError> {
        if depth >= self.depth { Err(Fault::TooDeep(self.depth).at(self.at)) } else { Ok(()) }
    }

    fn here(&self) -> Option<char> {
        character(self.text, self.at)
    }

    fn unexpected(&self, wanted: &'static str) -> JsonError {
        unexpected(self.text, self.at, wanted)
    }

    /// Writes the value that starts here, which must open with `open`, and says where it stands in the output.
    fn part(&mut self, open: u8, field: &'static str, wanted: &'static str) -> Result<Range<usize>, JsonError> {
        if self.at >= self.text.len() {
            return Err(Fault::CutOff("a value").at(self.at));
        }
        if self.text.get(self.at) != Some(&open) {
            return Err(Fault::WrongType { field, wanted }.at(self.at));
        }
        let start = self.out.len();
        self.value(0)?;
        Ok(start..self.out.len())
    }
}

fn unexpected(text: &[u8], at: usize, wanted: &'static str) -> JsonError {
    match character(text, at) {
        None => Fault::CutOff(wanted).at(at),
        Some(found) => Fault::Unexpected { found, wanted }.at(at),
    }
}

fn character(text: &[u8], at: usize) -> Option<char> {
    let end = text.len().min(at + 4);
    text.get(at..end)?.utf8_chunks().next()?.valid().chars().next()
}

fn hex(digit: u8) -> Option<u32> {
    char::from(digit).to_digit(16)
}

#[cfg(test)]
pub(crate) mod tests;
