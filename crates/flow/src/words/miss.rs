//! What was looked for last and is not there, so that a failure can name it and what there is instead.

use std::cell::RefCell;

use crate::value::Value;

thread_local! {
    static MISS: RefCell<Option<(Box<str>, Value)>> = const { RefCell::new(None) };
}

/// Forgets what was missing before.
pub(super) fn clear() {
    MISS.with_borrow_mut(|miss| *miss = None);
}

/// Notes that `name` is not in `there`, an object or a list.
pub(super) fn note(name: impl Into<Box<str>>, there: &Value) {
    MISS.with_borrow_mut(|miss| *miss = Some((name.into(), there.clone())));
}

/// What was missing last.
pub(super) fn take() -> Option<(Box<str>, Value)> {
    MISS.with_borrow_mut(Option::take)
}
