//! Rows as values, and values as rows.

use bytes::Bytes;
use rusqlite::{Row, types::FromSqlError};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    chain::Digest,
    record::{Head, Record, Stream, StreamId},
};

pub(super) const STREAM: &str = "space, name, meta, created, sequence, time, chain, sealed, key";
pub(super) const RECORD: &str = "sequence, time, id, kind, meta, body, digest, chain";

pub(super) fn stream(row: &Row<'_>) -> rusqlite::Result<(i64, Stream)> {
    let stream = Stream {
        id: StreamId { space: row.get(0)?, name: row.get(1)? },
        meta: bytes(row, 2)?,
        created: row.get(3)?,
        head: Head { sequence: row.get(4)?, time: row.get(5)?, chain: row.get(6)? },
        sealed: row.get(7)?,
    };
    Ok((row.get(8)?, stream))
}

pub(super) fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        sequence: row.get(0)?,
        time: row.get(1)?,
        id: Uuid::from_bytes(row.get(2)?),
        kind: row.get(3)?,
        meta: bytes(row, 4)?,
        body: bytes(row, 5)?,
        digest: row.get(6)?,
        chain: row.get(7)?,
    })
}

fn bytes(row: &Row<'_>, column: usize) -> rusqlite::Result<Bytes> {
    let blob = row.get_ref(column)?.as_blob();
    let blob = blob.map_err(|error: FromSqlError| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Blob, Box::new(error))
    })?;
    Ok(Bytes::copy_from_slice(blob))
}

/// What stands beside a row that no chain covers, to tell whether it is as it was written.
pub(super) fn guard(parts: &[&[u8]]) -> Digest {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}
