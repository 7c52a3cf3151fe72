//! What an export must be: its files by size and hash, the head of the consultation, who made it and when, and the hash
//! of all that.

use std::io;

use caudal_store::Time;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Format, Written};
use crate::canonical::{canonical, sha256};
use crate::hash::Hash;
use crate::proof::{HeadFault, SignedHead, VerifyingKey};
use crate::time::iso;

/// The manifest of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Which form of manifest this is: 1.
    pub version: u32,
    /// What was exported.
    pub consultation_id: String,
    /// The files.
    pub files: Vec<ManifestFile>,
    /// How many events.
    pub event_count: u64,
    /// The consultation's head.
    pub head: SignedHead,
    /// When it was made, ISO 8601 in UTC.
    pub made_at: String,
    /// By whom.
    pub made_by: String,
    /// With what.
    pub tool: String,
    /// SHA-256 of the canonical form of all the above.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub manifest_hash: Option<Hash>,
}

/// A file of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Its name, without folders.
    pub name: String,
    /// In which form.
    pub format: Format,
    /// How many bytes.
    pub bytes: u64,
    /// Their SHA-256.
    pub sha256: Hash,
}

/// What is wrong with a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ManifestFault {
    /// A form of manifest that this version does not know.
    #[error("manifests of version {0} are not known here")]
    Version(u32),
    /// It does not say what it said when it was made.
    #[error("the manifest was changed: it does not make its own hash")]
    Changed,
    /// Files, events and head are not about the same.
    #[error("the manifest tells of {events} events, its head of {head}")]
    Count {
        /// What the manifest says.
        events: u64,
        /// What the head says.
        head: u64,
    },
    /// The head is not one of the key.
    #[error(transparent)]
    Head(#[from] HeadFault),
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    /// The manifest knows no such file.
    #[error("the manifest knows no file {0:?}")]
    Unknown(String),
    /// It has another size.
    #[error("the file has {found} bytes, {told} are told of")]
    Size {
        /// What the manifest says.
        told: u64,
        /// What was read.
        found: u64,
    },
    /// It holds something else.
    #[error("the file's hash is {found}, told of is {told}")]
    Changed {
        /// What the manifest says.
        told: Hash,
        /// What was read.
        found: Hash,
    },
    /// It cannot be read.
    #[error("the file cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

impl Manifest {
    /// The manifest of files that were written, each with its name.
    pub fn new(files: &[(&str, Written)], head: SignedHead, made_at: Time, made_by: &str) -> Self {
        let file = |(name, written): &(&str, Written)| ManifestFile {
            name: (*name).to_owned(),
            format: written.format,
            bytes: written.bytes,
            sha256: written.sha256,
        };
        let mut manifest = Self {
            version: 1,
            consultation_id: head.consultation.clone(),
            files: files.iter().map(file).collect(),
            event_count: files.first().map_or(head.sequence, |(_, written)| written.events),
            head,
            made_at: iso(made_at),
            made_by: made_by.to_owned(),
            tool: concat!("caudal ", env!("CARGO_PKG_VERSION")).to_owned(),
            manifest_hash: None,
        };
        manifest.manifest_hash = manifest.hash();
        manifest
    }

    /// Whether it says what it said when it was made, and, where a key is given, whether that key signed its head. Who
    /// can change a manifest can make its hash fit: only a signed head, or a hash kept elsewhere, tells of that.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn verify(&self, key: Option<&VerifyingKey>) -> Result<(), ManifestFault> {
        if self.version != 1 {
            return Err(ManifestFault::Version(self.version));
        }
        if self.manifest_hash.is_none() || self.manifest_hash != self.hash() {
            return Err(ManifestFault::Changed);
        }
        if self.event_count != self.head.sequence || self.consultation_id != self.head.consultation {
            return Err(ManifestFault::Count { events: self.event_count, head: self.head.sequence });
        }
        key.map_or(Ok(()), |key| Ok(self.head.verify(key)?))
    }

    /// Whether what `file` holds is what the manifest says of the file of this name.
    ///
    /// # Errors
    /// It is not, or it cannot be read.
    pub fn verify_file(&self, name: &str, mut file: impl io::Read) -> Result<(), FileFault> {
        let told =
            self.files.iter().find(|file| file.name == name).ok_or_else(|| FileFault::Unknown(name.to_owned()))?;
        let (mut hash, mut bytes, mut piece) = (Sha256::new(), 0, [0; 8 << 10]);
        loop {
            match file.read(&mut piece)? {
                0 => break,
                count => {
                    hash.update(&piece[..count]);
                    bytes += count as u64;
                }
            }
        }
        if bytes != told.bytes {
            return Err(FileFault::Size { told: told.bytes, found: bytes });
        }
        let found = Hash::from(<[u8; 32]>::from(hash.finalize()));
        if found == told.sha256 { Ok(()) } else { Err(FileFault::Changed { told: told.sha256, found }) }
    }

    pub(super) fn hash(&self) -> Option<Hash> {
        let bare = Self { manifest_hash: None, ..self.clone() };
        let form = canonical(&serde_json::to_vec(&bare).ok()?).ok()?;
        Some(sha256(&form).into())
    }
}
