//! An event as the world sees it: system A's fields, and beside them its place and its link in the chain.

use caudal_store::{Digest, Record};

use crate::time::rfc3339;

/// Appends the event that `record` keeps to `out`, as JSON. Payload and metadata stand as they are kept, byte by byte.
pub fn write(out: &mut Vec<u8>, consultation: &str, record: &Record) {
    let text = |out: &mut Vec<u8>, name: &str, value: &str| {
        out.extend_from_slice(name.as_bytes());
        string(out, value);
    };
    out.extend_from_slice(b"{\"event_id\": \"");
    out.extend_from_slice(record.id.hyphenated().encode_lower(&mut [0; 36]).as_bytes());
    text(out, "\", \"consultation_id\": ", consultation);
    out.extend_from_slice(b", \"sequence\": ");
    out.extend_from_slice(record.sequence.to_string().as_bytes());
    text(out, ", \"timestamp\": ", &rfc3339(record.time));
    text(out, ", \"event_type\": ", &record.kind);
    out.extend_from_slice(b", \"payload\": ");
    out.extend_from_slice(&record.body);
    out.extend_from_slice(b", \"metadata\": ");
    out.extend_from_slice(&record.meta);
    text(out, ", \"audit_hash\": ", &hex(&record.digest));
    text(out, ", \"chain_hash\": ", &hex(&record.chain));
    out.push(b'}');
}

/// Appends `text` to `out` as a JSON string.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    // Writing to memory does not fail, and a string is always JSON.
    let _ = serde_json::to_writer(out, text);
}

/// Hexadecimal digits, in small letters.
pub fn hex(digest: &Digest) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    digest.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|nibble| DIGITS[nibble as usize] as char).collect()
}

/// What [`hex`] wrote; capital letters count as well.
pub fn unhex(text: &str) -> Option<Digest> {
    let nibble = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let mut digest = Digest::default();
    let bytes = text.as_bytes();
    if bytes.len() != 2 * digest.len() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_come_back() {
        let digest: Digest = std::array::from_fn(|place| place as u8 * 8);
        assert_eq!(unhex(&hex(&digest)), Some(digest));
        assert_eq!(unhex(&hex(&digest).to_uppercase()), Some(digest));
        assert_eq!(unhex("ab"), None);
        assert_eq!(unhex(&"g0".repeat(32)), None);
    }
}
