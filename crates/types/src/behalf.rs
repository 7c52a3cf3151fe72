//! On whose behalf a thread works, for the lines that it logs.
//!
//! Only where something is done that is worth a line and takes its time: loading a model, letting one go. What each
//! request does anyway is not marked, for it would pay for it.

use std::cell::RefCell;

thread_local! {
    static REQUEST: RefCell<Option<Box<str>>> = const { RefCell::new(None) };
}

/// Does `work` on behalf of the request `id`: what this thread logs meanwhile carries that name.
pub fn on_behalf_of<T>(id: &str, work: impl FnOnce() -> T) -> T {
    struct Before(Option<Box<str>>);
    impl Drop for Before {
        fn drop(&mut self) {
            REQUEST.set(self.0.take());
        }
    }
    let _before = Before(REQUEST.replace(Some(id.into())));
    work()
}

/// Lets `see` see the name of the request on whose behalf this thread works, if there is one.
pub fn with_request<T>(see: impl FnOnce(Option<&str>) -> T) -> T {
    REQUEST.with_borrow(|id| see(id.as_deref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Option<String> {
        with_request(|id| id.map(str::to_owned))
    }

    #[test]
    fn the_name_holds_as_long_as_the_work() {
        assert_eq!(now(), None);
        on_behalf_of("a", || {
            on_behalf_of("b", || assert_eq!(now().as_deref(), Some("b")));
            assert_eq!(now().as_deref(), Some("a"));
            assert_eq!(std::thread::spawn(now).join().unwrap(), None);
        });
        assert!(std::panic::catch_unwind(|| on_behalf_of("c", || panic!("it broke"))).is_err());
        assert_eq!(now(), None);
    }
}
