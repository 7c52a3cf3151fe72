//! The name of a request, by which callers, logs and traces speak of it.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Longer names than this are not kept.
const MAX_LENGTH: usize = 128;

/// A request's name. A copy costs nothing: one of ours is its digits, one that the caller gave shares its bytes.
#[derive(Debug, Clone)]
pub(crate) enum RequestId {
    Own([u8; 16]),
    Given(HeaderValue),
}

impl RequestId {
    /// The name that the caller gave, or a new one.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(HEADER).filter(|value| {
            let bytes = value.as_bytes();
            (1..=MAX_LENGTH).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
        });
        given.cloned().map_or_else(|| Self::Own(new_id()), Self::Given)
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Own(digits) => str::from_utf8(digits).unwrap_or_default(),
            Self::Given(value) => value.to_str().unwrap_or_default(),
        }
    }

    pub(crate) fn into_header(self) -> HeaderValue {
        match self {
            Self::Own(digits) => HeaderValue::from_bytes(&digits).expect("hexadecimal digits make a header"),
            Self::Given(value) => value,
        }
    }
}

/// A name nobody else has: a start that differs from process to process, and a count.
fn new_id() -> [u8; 16] {
    static START: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
    static COUNT: AtomicU64 = AtomicU64::new(0);
    // Multiplying by an odd constant keeps counts apart and spreads them over all digits.
    let count = COUNT.fetch_add(1, Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut number = START.wrapping_add(count);
    let mut text = [0; 16];
    for digit in text.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(value: &[u8]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_bytes(value).unwrap());
        RequestId::of(&headers).as_str().to_owned()
    }

    #[test]
    fn a_decent_name_is_kept_and_any_other_replaced() {
        assert_eq!(with(b"trace-42"), "trace-42");
        for bad in [&b""[..], b"two words", &[b'x'; 129], b"caf\xe9"] {
            assert_eq!(with(bad).len(), 16);
        }
    }

    #[test]
    fn new_names_differ() {
        let names: std::collections::HashSet<_> = (0..1000).map(|_| new_id()).collect();
        assert_eq!(names.len(), 1000);
    }
}
