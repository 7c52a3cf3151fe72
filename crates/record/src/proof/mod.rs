//! Proofs about a stream that hold without the stream: that an event is in it (receipts), how far it had come and what
//! it held (heads), and the tree of hashes (RFC 6962) that makes both small.

mod head;
pub mod merkle;
mod receipt;
pub mod strict;
#[cfg(test)]
mod tests;

pub use ed25519_dalek::{SigningKey, VerifyingKey};
pub use head::{HeadFault, SignedHead, key_id};
pub use merkle::Tree;
pub use receipt::{Receipt, ReceiptEvent, ReceiptFault, ReceiptLink, ReceiptTree};
pub use strict::Uncovered;
