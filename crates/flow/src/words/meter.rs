//! How much an expression may work through. Instructions alone do not tell: one filter may make gigabytes of a list that
//! holds a long text many times. So all that is handed to the language, and all that a filter is given and makes, counts.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use minijinja::{
    Error, ErrorKind,
    value::{Value as Word, ValueKind},
};

use super::{DEPTH, hand::Handed};
use crate::value::Value;

/// Bytes that one expression may work through. What stands in a value more than once counts each time.
pub(crate) const WORK_BYTES: usize = 128 << 20;
/// How long it may take.
pub(crate) const WORK_TIME: Duration = Duration::from_secs(1);
/// What a value counts as beside its text.
const EACH: usize = 32;

thread_local! {
    /// What is left to the expression that is worked out on this thread; none where nothing is counted.
    static LEFT: Cell<Option<Left>> = const { Cell::new(None) };
}

#[derive(Clone, Copy)]
struct Left {
    bytes: usize,
    until: Instant,
    /// Whether more was wanted than was left.
    overdrawn: bool,
}

/// Counts as long as it lives.
pub(super) struct Meter(());

impl Meter {
    pub(super) fn start() -> Self {
        LEFT.set(Some(Left { bytes: WORK_BYTES, until: Instant::now() + WORK_TIME, overdrawn: false }));
        Self(())
    }

    /// Whether the expression wanted more than it may have: what it came to is then nothing to be believed.
    pub(super) fn overdrawn(&self) -> bool {
        LEFT.get().is_some_and(|left| left.overdrawn)
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        LEFT.set(None);
    }
}

/// Why an expression is not worked out to its end.
pub(super) fn too_much() -> String {
    format!("it works through more than {} MiB, or takes longer than {WORK_TIME:?}", WORK_BYTES >> 20)
}

/// Takes so many bytes off what is left; `false` if it is not there.
fn take(bytes: usize) -> bool {
    let Some(mut left) = LEFT.get() else { return true };
    if !left.overdrawn {
        left.overdrawn = left.bytes < bytes || Instant::now() > left.until;
        left.bytes = left.bytes.saturating_sub(bytes);
        LEFT.set(Some(left));
    }
    !left.overdrawn
}

/// Counts a value that is handed over, without what is within it: that counts when it is looked at.
pub(super) fn handed(value: &Value) -> bool {
    let text = match value {
        Value::Text(text) => text.len(),
        _ => 0,
    };
    take(text + EACH)
}

/// Counts a value with all that is within it.
pub(super) fn whole(value: &Value) -> bool {
    let Some(left) = LEFT.get() else { return true };
    match rest(value, left.bytes) {
        Some(rest) => take(left.bytes - rest),
        None => take(usize::MAX),
    }
}

/// What is left of `bytes` when a value is taken off; `None` if there is not so much.
fn rest(value: &Value, bytes: usize) -> Option<usize> {
    let bytes = bytes.checked_sub(EACH)?;
    match value {
        Value::Text(text) => bytes.checked_sub(text.len()),
        Value::Bytes(held) => bytes.checked_sub(held.len()),
        Value::List(values) => values.iter().try_fold(bytes, |bytes, value| rest(value, bytes)),
        Value::Map(map) => {
            map.iter().try_fold(bytes, |bytes, (name, value)| rest(value, bytes.checked_sub(name.len())?))
        }
        _ => Some(bytes),
    }
}

/// Counts what a filter is given or makes, with all that is within it.
pub(super) fn word(word: &Word) -> Result<(), Error> {
    let fault = || Error::new(ErrorKind::InvalidOperation, too_much());
    let Some(left) = LEFT.get() else { return Ok(()) };
    match within(word, left.bytes, DEPTH) {
        Some(rest) if take(left.bytes - rest) => Ok(()),
        Some(_) => Err(fault()),
        None => {
            take(usize::MAX);
            Err(fault())
        }
    }
}

fn within(word: &Word, bytes: usize, depth: usize) -> Option<usize> {
    if let Some(handed) = word.downcast_object_ref::<Handed>() {
        return rest(&handed.0, bytes);
    }
    let bytes = bytes.checked_sub(EACH)?;
    let depth = depth.checked_sub(1)?;
    match word.kind() {
        ValueKind::String => bytes.checked_sub(word.as_str().map_or(0, str::len)),
        ValueKind::Bytes => bytes.checked_sub(word.as_bytes().map_or(0, <[u8]>::len)),
        ValueKind::Seq => word.try_iter().ok()?.try_fold(bytes, |bytes, item| within(&item, bytes, depth)),
        ValueKind::Map => word.try_iter().ok()?.try_fold(bytes, |bytes, key| {
            let bytes = within(&key, bytes, depth)?;
            word.get_item(&key).map_or(Some(bytes), |item| within(&item, bytes, depth))
        }),
        // What is made item by item counts as it is made.
        _ => Some(bytes),
    }
}
