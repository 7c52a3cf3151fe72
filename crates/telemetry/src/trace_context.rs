//! Trace context of a request: the client's `traceparent` (W3C Trace Context).

use caudal_types::TraceId;

/// Id of a span within its trace: 8 bytes, not all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

impl SpanId {
    /// The id `bytes`; `None` if they are all zero, which is invalid.
    pub fn new(bytes: [u8; 8]) -> Option<Self> {
        (bytes != [0; 8]).then_some(Self(bytes))
    }

    /// A new random id.
    pub(crate) fn random_id() -> Self {
        Self(rand::random::<u64>().max(1).to_be_bytes())
    }

    /// The bytes of the id.
    pub const fn bytes(self) -> [u8; 8] {
        self.0
    }
}

/// The client's `traceparent` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// Trace id.
    pub trace: TraceId,
    /// Id of the client's span.
    pub span: SpanId,
    /// True if the client records the trace.
    pub sampled: bool,
    /// True if the last 7 bytes of the trace id are random.
    pub random: bool,
}

/// Length of `00-<32 digits>-<16 digits>-<2 digits>`.
const TRACEPARENT_LENGTH: usize = 55;

impl TraceParent {
    /// Parses a `traceparent` header. `None` if it is malformed: then a new trace starts.
    ///
    /// Of an unknown version, the part known from version 00 is used (W3C Trace Context, 3.2.4).
    pub fn parse(header: &[u8]) -> Option<Self> {
        let (known, rest) = header.split_at_checked(TRACEPARENT_LENGTH)?;
        let [version] = hex_bytes(&known[..2])?;
        let fits = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest[0] == b'-',
        };
        if !fits || [known[2], known[35], known[52]] != [b'-'; 3] {
            return None;
        }
        let [flags] = hex_bytes(&known[53..])?;
        Some(Self {
            trace: TraceId::new(hex_bytes(&known[3..35])?)?,
            span: SpanId::new(hex_bytes(&known[36..52])?)?,
            sampled: flags & 1 != 0,
            random: flags & 2 != 0,
        })
    }
}

/// Decodes lower-case hexadecimal digits.
fn hex_bytes<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
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

/// The trace context of a sampled request.
#[derive(Debug, Clone)]
pub struct TraceContext {
    /// Trace id.
    pub trace: TraceId,
    /// The client's span; `None` if the trace starts here.
    pub(crate) parent: Option<TraceParent>,
    /// Vendor data (`tracestate`), propagated unchanged.
    pub(crate) state: Box<str>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn parse(text: &str) -> Option<(String, bool)> {
        TraceParent::parse(text.as_bytes()).map(|parent| (parent.trace.to_string(), parent.sampled))
    }

    #[test]
    fn parse_accepts_valid_headers() {
        let trace = |sampled| Some((TRACE.to_owned(), sampled));
        assert_eq!(parse(&format!("00-{TRACE}-{SPAN}-01")), trace(true));
        assert_eq!(parse(&format!("00-{TRACE}-{SPAN}-00")), trace(false));
        assert_eq!(parse(&format!("00-{TRACE}-{SPAN}-ff")), trace(true), "unknown flags are ignored");
        assert_eq!(parse(&format!("00-{TRACE}-{SPAN}-02")), trace(false));
        assert_eq!(parse(&format!("cc-{TRACE}-{SPAN}-01")), trace(true), "a future version");
        assert_eq!(parse(&format!("cc-{TRACE}-{SPAN}-01-what-comes-then")), trace(true));
    }

    #[test]
    fn parse_rejects_invalid_headers() {
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
        fn parse_reads_any_formatted_header(trace: [u8; 16], span: [u8; 8], flags: u8) {
            let [trace, span] = [&trace[..], &span[..]].map(|bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
            let parsed = TraceParent::parse(format!("00-{trace}-{span}-{flags:02x}").as_bytes());
            prop_assert_eq!(parsed.is_none(), trace.bytes().all(|digit| digit == b'0') || span.bytes().all(|digit| digit == b'0'));
            if let Some(parent) = parsed {
                prop_assert_eq!(parent.trace.to_string(), trace);
                prop_assert_eq!(parent.sampled, flags & 1 == 1);
            }
        }

        #[test]
        fn parse_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = TraceParent::parse(&bytes);
        }
    }
}
