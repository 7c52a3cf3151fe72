//! Whether a record is what was appended.

use sha2::{Digest as _, Sha256};

use crate::{
    chain::{self, Digest},
    error::StoreError,
    record::{Record, StreamId},
};

/// Checks `record` against its own digest and, with the link `before` it, against the chain's.
pub(crate) fn verified(stream: &StreamId, before: &Digest, record: &Record) -> Result<(), StoreError> {
    let damaged =
        |what| StoreError::Damaged(format!("record {} of {} {} {what}", record.sequence, stream.space, stream.name));
    if Digest::from(Sha256::digest(&record.body)) != record.digest {
        return Err(damaged("does not match its hash"));
    }
    match chain::link(before, &record.leaf()) == record.chain {
        true => Ok(()),
        false => Err(damaged("does not follow from the one before it")),
    }
}
