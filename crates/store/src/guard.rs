//! What stands beside a row that no chain covers, to tell whether it is as it was written.

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{chain::Digest, engine::ArchiveNote, error::StoreError, record::Stream};

/// SHA-256 over `parts`, each with its length before it.
pub(crate) fn guard(parts: &[&[u8]]) -> Digest {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Of a stream's row. How far it is sealed stands in `sealed` too, and is held against it.
pub(crate) fn stream(key: i64, stream: &Stream) -> Digest {
    let Stream { id, meta, created, head, .. } = stream;
    guard(&[
        &key.to_be_bytes(),
        id.space.as_bytes(),
        id.name.as_bytes(),
        meta,
        &created.to_be_bytes(),
        &head.sequence.to_be_bytes(),
        &head.time.to_be_bytes(),
        &head.chain,
    ])
}

/// `found`, if its `guard` says that it is as it was written.
pub(crate) fn guarded(key: i64, found: Stream, guard: &[u8]) -> Result<Stream, StoreError> {
    match stream(key, &found)[..] == *guard {
        true => Ok(found),
        false => Err(StoreError::Damaged(format!("what is kept of {} {}", found.id.space, found.id.name))),
    }
}

/// Of an archive's row.
pub(crate) fn archive(note: &ArchiveNote) -> Digest {
    let ArchiveNote { file, time, records, bytes, digest } = note;
    guard(&[file.as_bytes(), &time.to_be_bytes(), &records.to_be_bytes(), &bytes.to_be_bytes(), digest])
}

/// Of what an archive holds of a stream.
pub(crate) fn sealed(key: i64, first: u64, last: u64, chain: &Digest, file: &str, ids: &Digest) -> Digest {
    guard(&[&key.to_be_bytes(), &first.to_be_bytes(), &last.to_be_bytes(), chain, file.as_bytes(), ids])
}

/// Of the ids of records that an archive holds, in their order: they stay when the records go.
#[derive(Default)]
pub(crate) struct Ids(Sha256);

impl Ids {
    pub(crate) fn add(&mut self, id: &Uuid) {
        self.0.update(id.as_bytes());
    }

    pub(crate) fn digest(self) -> Digest {
        self.0.finalize().into()
    }
}

/// How many parts of archives hold other ids than they did, of rows that come in order: which part, what its ids came to
/// when it was sealed, and one of its ids.
#[derive(Default)]
pub(crate) struct Parts {
    part: Option<((i64, i64), Vec<u8>, Ids)>,
    broken: usize,
}

impl Parts {
    pub(crate) fn add(&mut self, part: (i64, i64), expected: &[u8], id: &Uuid) {
        if self.part.as_ref().is_none_or(|(last, ..)| *last != part) {
            self.end();
            self.part = Some((part, expected.to_owned(), Ids::default()));
        }
        if let Some((_, _, ids)) = &mut self.part {
            ids.add(id);
        }
    }

    fn end(&mut self) {
        if let Some((_, expected, ids)) = self.part.take() {
            self.broken += usize::from(ids.digest()[..] != expected[..]);
        }
    }

    pub(crate) fn broken(mut self) -> usize {
        self.end();
        self.broken
    }
}

/// Of what an idempotency key stands for.
pub(crate) fn repeat(key: i64, name: &str, request: &Digest, first: u64, last: u64) -> Digest {
    guard(&[&key.to_be_bytes(), name.as_bytes(), request, &first.to_be_bytes(), &last.to_be_bytes()])
}

/// Of what a stream's records come to.
pub(crate) fn snapshot(key: i64, sequence: u64, body: &[u8]) -> Digest {
    guard(&[&key.to_be_bytes(), &sequence.to_be_bytes(), body])
}
