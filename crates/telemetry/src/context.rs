//! Which trace a request belongs to: what the caller says of it (W3C Trace Context, `traceparent`).

use caudal_types::TraceId;

/// A span's name within its trace: 8 bytes, not all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

impl SpanId {
    /// The span called `bytes`, unless they are all zero: that names none.
    pub fn new(bytes: [u8; 8]) -> Option<Self> {
        (bytes != [0; 8]).then_some(Self(bytes))
    }

    /// A name that nobody else has.
    pub(crate) fn random() -> Self {
        Self(rand::random::<u64>().max(1).to_be_bytes())
    }

    /// Its bytes.
    pub const fn bytes(self) -> [u8; 8] {
        self.0
    }
}

/// What the caller says of the trace that its request belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// The trace.
    pub trace: TraceId,
    /// The caller's own span.
    pub span: SpanId,
    /// Whether the caller records it.
    pub sampled: bool,
    /// Whether the trace's name is random in its last 7 bytes.
    pub random: bool,
}

/// `00-<32 digits>-<16 digits>-<2 digits>`.
const LENGTH: usize = 55;

impl Parent {
    /// What the header `traceparent` says; none if it is malformed, and then a new trace begins.
    ///
    /// Of a version that is not known yet, the part is read that is as it always was (W3C Trace Context, 3.2.4).
    pub fn parse(header: &[u8]) -> Option<Self> {
        let (known, rest) = header.split_at_checked(LENGTH)?;
        let [version] = digits(&known[..2])?;
        let fits = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest[0] == b'-',
        };
        if !fits || [known[2], known[35], known[52]] != [b'-'; 3] {
            return None;
        }
        let [flags] = digits(&known[53..])?;
        Some(Self {
            trace: TraceId::new(digits(&known[3..35])?)?,
            span: SpanId::new(digits(&known[36..52])?)?,
            sampled: flags & 1 != 0,
            random: flags & 2 != 0,
        })
    }
}

/// The bytes that hexadecimal digits in small letters stand for.
fn digits<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

/// The place in its trace of a request that will be told of.
#[derive(Debug, Clone)]
pub struct Context {
    /// Its trace.
    pub trace: TraceId,
    /// The span of who called, and whether the trace's name is random; none if the trace begins here.
    pub(crate) parent: Option<Parent>,
    /// What vendors have written beside it (`tracestate`), to be handed on as it came.
    pub(crate) state: Box<str>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn parse(text: &str) -> Option<(String, bool)> {
        Parent::parse(text.as_bytes()).map(|parent| (parent.trace.to_string(), parent.sampled))
    }

    #[test]
    fn what_the_recommendation_calls_valid_is_read() {
        let trace = |sampled| Some((TRACE.to_owned(), sampled));
        assert_eq!(parse(&format!("00-{TRACE}-{SPAN}-01")), trace(true));
        assert_eq!(parse(&format!("00-{TRACE}-{SPAN}-00")), trace(false));
        assert_eq!(parse(&format!("00-{TRACE}-{SPAN}-ff")), trace(true), "flags that are not known are no harm");
        assert_eq!(parse(&format!("00-{TRACE}-{SPAN}-02")), trace(false));
        assert_eq!(parse(&format!("cc-{TRACE}-{SPAN}-01")), trace(true), "a version yet to come");
        assert_eq!(parse(&format!("cc-{TRACE}-{SPAN}-01-what-comes-then")), trace(true));
    }

    #[test]
    fn what_it_calls_invalid_begins_a_new_trace() {
        let zeros = |n| "0".repeat(n);
        for bad in [
            String::new(),
            "-".repeat(55),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-0g"),
            format!("0-{TRACE}-{SPAN}-01"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("cc-{TRACE}-{SPAN}-01."),
            format!("00-{}-{SPAN}-01", zeros(32)),
            format!("00-{TRACE}-{}-01", zeros(16)),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{}-{SPAN}-01", &TRACE[1..]),
            format!("00_{TRACE}_{SPAN}_01"),
            format!(" 00-{TRACE}-{SPAN}-01"),
        ] {
            assert_eq!(parse(&bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_again(trace: [u8; 16], span: [u8; 8], flags: u8) {
            let [trace, span] = [&trace[..], &span[..]].map(|bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
            let parsed = Parent::parse(format!("00-{trace}-{span}-{flags:02x}").as_bytes());
            prop_assert_eq!(parsed.is_none(), trace.bytes().all(|digit| digit == b'0') || span.bytes().all(|digit| digit == b'0'));
            if let Some(parent) = parsed {
                prop_assert_eq!(parent.trace.to_string(), trace);
                prop_assert_eq!(parent.sampled, flags & 1 == 1);
            }
        }

        #[test]
        fn no_bytes_make_it_stumble(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Parent::parse(&bytes);
        }
    }
}
