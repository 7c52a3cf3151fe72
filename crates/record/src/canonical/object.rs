//! The members of an object, brought into the order of their keys.

use std::cmp::Ordering;

use super::error::{Fault, JsonError};

/// A member as it stands in the output, without the comma around it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    /// Where it starts, and its key's first character after the quote, less one.
    pub(super) start: usize,
    /// Where its key ends: the closing quote.
    pub(super) key_end: usize,
    /// Where it ends.
    pub(super) end: usize,
    /// Whether its key holds escapes.
    pub(super) escaped: bool,
    /// Where its key stood in the text that came, for errors.
    pub(super) at: usize,
}

impl Member {
    fn key<'o>(&self, out: &'o [u8]) -> &'o [u8] {
        &out[self.start + 1..self.key_end]
    }

    /// The order of two keys by code points: bytes of UTF-8 have the same.
    pub(super) fn order(&self, other: &Self, out: &[u8]) -> Ordering {
        let (one, two) = (self.key(out), other.key(out));
        if self.escaped || other.escaped { Unescaped(one).cmp(Unescaped(two)) } else { one.cmp(two) }
    }

    pub(super) fn duplicate(&self, out: &[u8]) -> JsonError {
        let key: Vec<u8> = Unescaped(self.key(out)).collect();
        Fault::duplicate(&String::from_utf8_lossy(&key)).at(self.at)
    }
}

/// Moves the members that stand in `out` from `start` on into order. `scratch` lends memory.
///
/// # Errors
/// Two of them have the same key.
pub(super) fn sort(
    members: &mut [Member],
    out: &mut Vec<u8>,
    start: usize,
    scratch: &mut Vec<u8>,
) -> Result<(), JsonError> {
    members.sort_unstable_by(|one, two| one.order(two, out).then(one.at.cmp(&two.at)));
    for pair in members.windows(2) {
        if pair[0].order(&pair[1], out).is_eq() {
            return Err(pair[1].duplicate(out));
        }
    }
    scratch.clear();
    scratch.extend_from_slice(&out[start..]);
    out.truncate(start);
    for (index, member) in members.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(&scratch[member.start - start..member.end - start]);
    }
    Ok(())
}

/// The bytes that a canonical string stands for. Its escapes are few, and each stands for one byte.
struct Unescaped<'o>(&'o [u8]);

impl Iterator for Unescaped<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        if first != b'\\' {
            return Some(first);
        }
        let (&letter, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(match letter {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'b' => 8,
            b'f' => 12,
            b'u' => {
                let (hex, rest) = self.0.split_at_checked(4)?;
                self.0 = rest;
                hex[2..].iter().fold(0, |value, digit| value * 16 + super::hex(*digit).unwrap_or(0)) as u8
            }
            same => same,
        })
    }
}
