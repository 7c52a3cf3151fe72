//! The chain: each record's hash bound to the one before, so that a record removed, changed or moved breaks every
//! link after it. Leaves are those of RFC 6962 (Merkle trees), so the same hashes serve proofs of inclusion.

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::record::{StreamId, Time};

/// A SHA-256.
pub type Digest = [u8; 32];

/// The link before the first record of a stream:
/// `SHA-256("caudal chain 1" ‖ 0 ‖ |space| ‖ space ‖ |name| ‖ name ‖ created ‖ |meta| ‖ meta)`, numbers as in [`leaf`].
pub fn origin(stream: &StreamId, created: Time, meta: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update("caudal chain 1\0");
    part(&mut hash, stream.space.as_bytes());
    part(&mut hash, stream.name.as_bytes());
    hash.update(created.to_be_bytes());
    part(&mut hash, meta);
    hash.finalize().into()
}

/// The hash of all that a record says: `SHA-256(0 ‖ sequence ‖ time ‖ id ‖ |kind| ‖ kind ‖ |meta| ‖ meta ‖ digest)`.
/// Numbers are big-endian: sequence and time have 8 bytes, lengths 4. The digest stands for the body.
pub fn leaf(sequence: u64, time: Time, id: &Uuid, kind: &str, meta: &[u8], digest: &Digest) -> Digest {
    let mut hash = Sha256::new();
    hash.update([0]);
    hash.update(sequence.to_be_bytes());
    hash.update(time.to_be_bytes());
    hash.update(id.as_bytes());
    part(&mut hash, kind.as_bytes());
    part(&mut hash, meta);
    hash.update(digest);
    hash.finalize().into()
}

/// The link that a record makes: `SHA-256(link before ‖ leaf)`.
pub fn link(before: &Digest, leaf: &Digest) -> Digest {
    let mut hash = Sha256::new();
    hash.update(before);
    hash.update(leaf);
    hash.finalize().into()
}

fn part(hash: &mut Sha256, part: &[u8]) {
    hash.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
    hash.update(part);
}
