//! What all bodies of JSON have in common.

use serde::{Deserialize, Deserializer};

/// Reads a member that may be left out: `null` says the same as leaving it out, for clients that write every member.
pub(crate) fn null_is_absent<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The JSON text in `body`, without a byte order mark in front: RFC 8259, 8.1, lets readers ignore it.
pub(crate) fn without_bom(body: &[u8]) -> &[u8] {
    body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body)
}
