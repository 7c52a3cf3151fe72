//! What was looked for last and is not there, so that a failure can name it and what there is instead.

use std::cell::RefCell;

use crate::value::Map;

thread_local! {
    static MISS: RefCell<Option<(Box<str>, Map)>> = const { RefCell::new(None) };
}

/// Forgets what was missing before.
pub(super) fn clear() {
    MISS.with_borrow_mut(|miss| *miss = None);
}

/// Notes that `name` is not in `there`.
pub(super) fn note(name: &str, there: &Map) {
    MISS.with_borrow_mut(|miss| *miss = Some((name.into(), there.clone())));
}

/// What was missing last.
pub(super) fn take() -> Option<(Box<str>, Map)> {
    MISS.with_borrow_mut(Option::take)
}
