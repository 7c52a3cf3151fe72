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
