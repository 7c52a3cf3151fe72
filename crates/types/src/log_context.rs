//! Log context: the request for which a thread works.
//!
//! Set only for rare and long work such as loading or unloading a model; ordinary requests do not pay for it.

use std::cell::RefCell;

thread_local! {
    static REQUEST_ID: RefCell<Option<Box<str>>> = const { RefCell::new(None) };
}

/// Runs `work` for the request `id`, which is added to what this thread logs meanwhile.
pub fn with_request_id<T>(id: &str, work: impl FnOnce() -> T) -> T {
    struct PreviousId(Option<Box<str>>);
    impl Drop for PreviousId {
        fn drop(&mut self) {
            REQUEST_ID.set(self.0.take());
        }
    }
    let _previous = PreviousId(REQUEST_ID.replace(Some(id.into())));
    work()
}

/// Calls `read` with the id of the request for which this thread works, if there is one.
pub fn read_request_id<T>(read: impl FnOnce(Option<&str>) -> T) -> T {
    REQUEST_ID.with_borrow(|id| read(id.as_deref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn current_id() -> Option<String> {
        read_request_id(|id| id.map(str::to_owned))
    }

    #[test]
    fn request_id_is_set_during_the_work() {
        assert_eq!(current_id(), None);
        with_request_id("a", || {
            with_request_id("b", || assert_eq!(current_id().as_deref(), Some("b")));
            assert_eq!(current_id().as_deref(), Some("a"));
            assert_eq!(std::thread::spawn(current_id).join().unwrap(), None);
        });
        assert!(std::panic::catch_unwind(|| with_request_id("c", || panic!("it broke"))).is_err());
        assert_eq!(current_id(), None);
    }
}
