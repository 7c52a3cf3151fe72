//! The chain: each record's hash bound to the one before, so that a record removed, changed or moved breaks every
//! link after it. Leaves are those of RFC 6962 (Merkle trees), so the same hashes serve proofs of inclusion.

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::record::{StreamId, Time};

/// A SHA-256.
pub type Digest = [u8; 32];

/// The link before the first record of a stream: `SHA-256("caudal chain 1" ‖ 0 ‖ space ‖ 0 ‖ name)`.
pub fn origin(stream: &StreamId) -> Digest {
    let mut hash = Sha256::new();
    for part in ["caudal chain 1\0", &stream.space, "\0", &stream.name] {
        hash.update(part);
    }
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
    for part in [kind.as_bytes(), meta] {
        hash.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        hash.update(part);
    }
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
