//! Rows as values, and values as rows.

use bytes::Bytes;
use rusqlite::{
    Row,
    types::{FromSqlError, Type},
};
use uuid::Uuid;

use crate::{
    guard::guarded,
    record::{Head, Record, Stream, StreamId},
};

pub(super) const STREAM: &str = "space, name, meta, created, sequence, time, chain, sealed, key, guard";
pub(super) const RECORD: &str = "sequence, time, id, kind, meta, body, digest, chain";

pub(super) fn stream(row: &Row<'_>) -> rusqlite::Result<(i64, Stream)> {
    let stream = Stream {
        id: StreamId { space: row.get(0)?, name: row.get(1)? },
        meta: bytes(row, 2)?,
        created: row.get(3)?,
        head: Head { sequence: row.get(4)?, time: row.get(5)?, chain: row.get(6)? },
        sealed: row.get(7)?,
    };
    let (key, guard) = (row.get(8)?, row.get_ref(9)?.as_blob().unwrap_or_default());
    let stream = guarded(key, stream, guard).map_err(|error| damaged(9, error))?;
    Ok((key, stream))
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
    let blob = blob.map_err(|error: FromSqlError| damaged(column, error))?;
    Ok(Bytes::copy_from_slice(blob))
}

fn damaged(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Blob, Box::new(error))
}
