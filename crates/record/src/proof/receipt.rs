//! Receipts: that an event is in a stream, provable without the stream, by whoever holds the receipt.

use caudal_store::{Digest, Record, Time, leaf, link};
use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::head::{HeadFault, SignedHead};
use super::merkle;
use crate::canonical::{JsonError, canonical, sha256};
use crate::hash::{Hash, Hex};
use crate::raw::Raw;

/// An event, where it stands in its stream, and the head of that stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// What was recorded.
    pub event: ReceiptEvent,
    /// Where it stands in the chain.
    pub chain: ReceiptLink,
    /// Where it stands in the tree.
    pub tree: ReceiptTree,
    /// The head that holds it.
    pub head: SignedHead,
}

/// What was recorded: all that goes into the leaf.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReceiptEvent {
    /// Its place in the stream, from 1.
    pub sequence: u64,
    /// When it was appended, in microseconds since 1970.
    pub time: Time,
    /// Its name.
    pub event_id: Uuid,
    /// Its type.
    pub event_type: String,
    /// What is said about it, as the very text that was recorded.
    pub metadata: String,
    /// What it says. White space between tokens does not count.
    pub payload: Raw,
    /// SHA-256 of the payload's canonical form.
    pub audit_hash: Hash,
}

/// A place in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptLink {
    /// The link before.
    pub before: Hash,
    /// The event's own.
    pub link: Hash,
}

/// A place in the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptTree {
    /// The event's leaf.
    pub leaf: Hash,
    /// Its index, from 0.
    pub index: u64,
    /// How many leaves the tree has.
    pub size: u64,
    /// The hashes beside the way to the root, from below.
    pub path: Vec<Hash>,
    /// The root.
    pub root: Hash,
}

/// What is wrong with a receipt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptFault {
    /// The record has no receipt: its payload or metadata is no text.
    #[error("the record is not one of JSON and text")]
    NotText,
    /// The payload has no canonical form.
    #[error("payload: {0}")]
    Payload(#[from] JsonError),
    /// The payload is not the one that was recorded.
    #[error("the payload's hash is not audit_hash")]
    Digest,
    /// What is said of the event is not what was recorded.
    #[error("what the event says does not make its leaf")]
    Leaf,
    /// The link is not the one that leaf makes.
    #[error("the leaf does not make the link")]
    Link,
    /// The leaf does not lead to the root.
    #[error("the path does not lead from the leaf to the root")]
    Path,
    /// Parts of the receipt are about different places.
    #[error("{0}")]
    Apart(&'static str),
    /// The head is not one of the key.
    #[error(transparent)]
    Head(#[from] HeadFault),
}

impl Receipt {
    /// The receipt of `record`, whose predecessor made the link `before`, with the path of its leaf to the root of `head`.
    ///
    /// # Errors
    /// The record's payload is no JSON, or its metadata no text.
    pub fn new(record: &Record, before: Digest, path: Vec<Digest>, head: SignedHead) -> Result<Self, ReceiptFault> {
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| ReceiptFault::NotText);
        Ok(Self {
            event: ReceiptEvent {
                sequence: record.sequence,
                time: record.time,
                event_id: record.id,
                event_type: record.kind.as_ref().into(),
                metadata: text(&record.meta)?.to_owned(),
                payload: Raw::new(text(&record.body)?).ok_or(ReceiptFault::NotText)?,
                audit_hash: Hex(record.digest),
            },
            chain: ReceiptLink { before: Hex(before), link: Hex(record.chain) },
            tree: ReceiptTree {
                leaf: Hex(record.leaf()),
                index: record.sequence.saturating_sub(1),
                size: head.sequence,
                path: path.into_iter().map(Hex).collect(),
                root: head.root,
            },
            head,
        })
    }

    /// Whether everything in the receipt follows from the event, and, where a key is given, whether that key signed the
    /// head. Without a key it says that the receipt is of one piece, not who made it.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn verify(&self, key: Option<&VerifyingKey>) -> Result<(), ReceiptFault> {
        let Self { event, chain, tree, head } = self;
        let digest = sha256(&canonical(event.payload.as_json().as_bytes())?);
        if digest != event.audit_hash.0 {
            return Err(ReceiptFault::Digest);
        }
        let meta = event.metadata.as_bytes();
        let leaf = leaf(event.sequence, event.time, &event.event_id, &event.event_type, meta, &digest);
        if leaf != tree.leaf.0 {
            return Err(ReceiptFault::Leaf);
        }
        if link(&chain.before.0, &leaf) != chain.link.0 {
            return Err(ReceiptFault::Link);
        }
        let path: Vec<Digest> = tree.path.iter().map(|hash| hash.0).collect();
        if merkle::root_by_path(leaf, tree.index, tree.size, &path) != Some(tree.root.0) {
            return Err(ReceiptFault::Path);
        }
        if tree.index + 1 != event.sequence {
            return Err(ReceiptFault::Apart("the leaf's index is not the event's place"));
        }
        if tree.size != head.sequence || tree.root != head.root {
            return Err(ReceiptFault::Apart("the tree is not the head's"));
        }
        if event.sequence == head.sequence && (chain.link != head.chain_hash || event.time != head.time) {
            return Err(ReceiptFault::Apart("the event is the last, and the head says otherwise"));
        }
        key.map_or(Ok(()), |key| Ok(head.verify(key)?))
    }
}
