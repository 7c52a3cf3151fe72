//! Work that would keep others waiting is done on a thread of its own.

use caudal_flow::{Fault, StepError, Value};

/// Bytes that are worked through where they are.
pub(crate) const SMALL: usize = 64 << 10;

/// Does `work` on `bytes` bytes, aside if these are many.
pub(crate) async fn aside<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, StepError> + Send + 'static,
) -> Result<T, StepError> {
    if bytes <= SMALL {
        return work();
    }
    let broken =
        |error: tokio::task::JoinError| StepError::new(Fault::Panicked, format!("the work broke off: {error}"));
    tokio::task::spawn_blocking(work).await.map_err(broken)?
}

/// Whether to work through `value` would keep others waiting. To tell takes no longer than that much is worked through.
pub(crate) fn is_large(value: &Value) -> bool {
    /// Bytes that a value beside its text counts as.
    const EACH: usize = 32;

    fn left(value: &Value, room: usize) -> Option<usize> {
        let room = room.checked_sub(EACH)?;
        match value {
            Value::Text(text) => room.checked_sub(text.len()),
            Value::Bytes(bytes) => room.checked_sub(bytes.len()),
            Value::List(values) => values.iter().try_fold(room, |room, value| left(value, room)),
            Value::Map(map) => map.iter().try_fold(room, |room, (_, value)| left(value, room)),
            // What it holds is not known before it is written down.
            Value::Native(_) => None,
            _ => Some(room),
        }
    }
    left(value, SMALL).is_none()
}

#[cfg(test)]
mod tests {
    use caudal_flow::value;

    use super::*;

    #[test]
    fn what_is_large_is_told_from_what_is_not() {
        assert!(!is_large(&value!({"a": [1, 2, "three"]})));
        assert!(is_large(&value!("x".repeat(SMALL))));
        assert!(is_large(&Value::list((0..10_000).map(Value::from))));
        assert!(!is_large(&Value::list((0..1_000).map(Value::from))));
    }
}
