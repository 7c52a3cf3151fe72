//! An answer as bytes, from which it is read back as it was: its value and its changes in canonical form. Not as JSON,
//! which would bring some numbers back changed in their last bit.

use super::Answered;
use crate::value::{Canonical, Reading, Value};

/// The largest answer that is put on a shelf.
pub(super) const LARGEST: usize = 16 << 20;

/// The answer without Rust values, if it can stand on a shelf: if it is not too large or too deep, and if what its Rust
/// values are is what their JSON says.
pub(super) fn plain(answer: &Answered) -> Option<Answered> {
    let Answered { value, changes } = answer;
    let all = || changes.iter().map(|(_, value)| value).chain([value]);
    let fits = answer.size() <= LARGEST && all().all(|value| value.check_bounds().is_ok());
    match all().all(Value::is_plain) {
        true => fits.then(|| answer.clone()),
        false if fits && all().all(Value::reads_back) => read(&write(answer)?),
        false => None,
    }
}

/// As bytes; none if that cannot be or would be too large.
pub(super) fn write(answer: &Answered) -> Option<Vec<u8>> {
    let mut body = Vec::with_capacity(answer.size() + 64);
    answer.value.write(&mut body).ok()?;
    answer.changes.write(&mut body).ok()?;
    (body.len() <= LARGEST).then_some(body)
}

/// The answer that these bytes are.
pub(super) fn read(body: &[u8]) -> Option<Answered> {
    let mut reading = Reading(body);
    let (value, changes) = (reading.value()?, reading.value()?);
    let Value::Map(changes) = changes else { return None };
    reading.0.is_empty().then_some(Answered { value, changes })
}
