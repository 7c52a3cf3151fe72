//! Rows as values, and values as rows.

use bytes::Bytes;
use tokio_postgres::{Row, types::FromSql};

use crate::{
    chain::Digest,
    error::StoreError,
    guard::guarded,
    record::{Head, Record, Stream, StreamId},
};

pub(super) const STREAM: &str =
    "s.key, s.space, s.name, s.meta, s.created, s.sequence, s.time, s.chain, s.sealed, s.guard";
pub(super) const RECORD: &str = "r.sequence, r.time, r.id, r.kind, r.meta, r.body, r.digest, r.chain";

/// A value; one that is none of ours is damage.
pub(super) fn value<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, StoreError> {
    row.try_get(column).map_err(|error| StoreError::Damaged(error.to_string()))
}

/// A number that is never below nought.
pub(super) fn number(row: &Row, column: usize) -> Result<u64, StoreError> {
    let number: i64 = value(row, column)?;
    u64::try_from(number).map_err(|_| StoreError::Damaged(format!("a count of {number}")))
}

/// As PostgreSQL keeps numbers. What is beyond it is beyond all that can be there.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn digest(row: &Row, column: usize) -> Result<Digest, StoreError> {
    let bytes: &[u8] = value(row, column)?;
    bytes.try_into().map_err(|_| StoreError::Damaged(format!("a hash of {} bytes", bytes.len())))
}

pub(super) fn bytes(row: &Row, column: usize) -> Result<Bytes, StoreError> {
    Ok(Bytes::copy_from_slice(value(row, column)?))
}

pub(super) fn text(row: &Row, column: usize) -> Result<Box<str>, StoreError> {
    Ok(value::<&str>(row, column)?.into())
}

/// Which stream a row of [`STREAM`] is about.
pub(super) fn stream_id(row: &Row) -> Result<StreamId, StoreError> {
    Ok(StreamId { space: text(row, 1)?, name: text(row, 2)? })
}

/// A stream's key and itself.
pub(super) fn stream(row: &Row) -> Result<(i64, Stream), StoreError> {
    let key = value(row, 0)?;
    let stream = Stream {
        id: stream_id(row)?,
        meta: bytes(row, 3)?,
        created: value(row, 4)?,
        head: Head { sequence: number(row, 5)?, time: value(row, 6)?, chain: digest(row, 7)? },
        sealed: number(row, 8)?,
    };
    Ok((key, guarded(key, stream, value(row, 9)?)?))
}

pub(super) fn record(row: &Row) -> Result<Record, StoreError> {
    Ok(Record {
        sequence: number(row, 0)?,
        time: value(row, 1)?,
        id: value(row, 2)?,
        kind: text(row, 3)?,
        meta: bytes(row, 4)?,
        body: bytes(row, 5)?,
        digest: digest(row, 6)?,
        chain: digest(row, 7)?,
    })
}
