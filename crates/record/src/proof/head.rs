//! Heads: how far a stream had come, said so that nobody can say otherwise later.

use caudal_store::{Head, StreamId, Time};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::canonical::sha256;
use crate::hash::{Hash, Hex};

/// How far a stream had come, with its last link and the root over all its leaves, signed or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedHead {
    /// The kind of streams it belongs to.
    pub space: String,
    /// Its name.
    pub consultation: String,
    /// How many records it had.
    pub sequence: u64,
    /// When the last was appended, in microseconds since 1970.
    pub time: Time,
    /// The link of the last.
    pub chain_hash: Hash,
    /// The root of the Merkle tree over the leaves of all.
    pub root: Hash,
    /// Which key signed: see [`key_id`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key_id: Option<Hex<8>>,
    /// The Ed25519 signature over [`SignedHead::message`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signature: Option<Hex<64>>,
}

/// What is wrong with a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadFault {
    /// Nobody signed it.
    #[error("the head is not signed")]
    Unsigned,
    /// Another key signed it.
    #[error("the head was signed by another key")]
    OtherKey,
    /// The signature is not one of what the head says.
    #[error("the head's signature is not one of what it says")]
    Forged,
}

/// The name of a key: the first 8 bytes of its SHA-256.
pub fn key_id(key: &VerifyingKey) -> Hex<8> {
    let [a, b, c, d, e, f, g, h, ..] = sha256(key.as_bytes());
    Hex([a, b, c, d, e, f, g, h])
}

impl SignedHead {
    /// The head of a stream, not signed yet.
    pub fn new(stream: &StreamId, head: &Head, root: caudal_store::Digest) -> Self {
        Self {
            space: stream.space.as_ref().into(),
            consultation: stream.name.as_ref().into(),
            sequence: head.sequence,
            time: head.time,
            chain_hash: Hex(head.chain),
            root: Hex(root),
            key_id: None,
            signature: None,
        }
    }

    /// Signs it.
    pub fn sign(mut self, key: &SigningKey) -> Self {
        self.key_id = Some(key_id(&key.verifying_key()));
        self.signature = Some(Hex(key.sign(&self.message()).to_bytes()));
        self
    }

    /// The bytes that are signed: `"caudal head 1" ‖ 0 ‖ space ‖ 0 ‖ name ‖ 0 ‖ sequence ‖ time ‖ link ‖ root`, numbers as
    /// 8 bytes, big-endian.
    pub fn message(&self) -> Vec<u8> {
        let (sequence, time) = (self.sequence.to_be_bytes(), self.time.to_be_bytes());
        let texts = ["caudal head 1\0", &self.space, "\0", &self.consultation, "\0"].concat();
        [texts.as_bytes(), &sequence, &time, &self.chain_hash.0, &self.root.0].concat()
    }

    /// Whether `key` signed it.
    ///
    /// # Errors
    /// It did not.
    pub fn verify(&self, key: &VerifyingKey) -> Result<(), HeadFault> {
        let signature = self.signature.ok_or(HeadFault::Unsigned)?;
        if self.key_id.is_some_and(|id| id != key_id(key)) {
            return Err(HeadFault::OtherKey);
        }
        key.verify_strict(&self.message(), &Signature::from_bytes(&signature.0)).map_err(|_| HeadFault::Forged)
    }
}
