//! Consultations: what happened, for ever.

pub mod archive;
mod audit;
pub mod canonical;
mod consultations;
mod error;
pub mod event;
pub mod export;
mod exports;
mod folder;
pub mod hash;
mod imports;
mod ingest;
mod kept;
pub mod kinds;
mod members;
pub mod proof;
mod proofs;
mod raw;
mod reindex;
mod resent;
mod reserve;
mod seals;
pub mod soap;
pub mod state;
pub mod time;
pub mod timeline;
pub mod verify;

pub use audit::{AUDIT, Access, AuditBacklog};
pub use consultations::{
    About, Consultation, Consultations, NewConsultation, SPACE, original_created_at, stream_of, with_original_time,
};
pub use error::RecordError;
pub use exports::{Checked, CheckedFile, MANIFEST, check_folder};
pub use imports::{ImportSummary, Importer};
pub use ingest::{Ingest, Ingested};
pub use proofs::Verdict;
pub use reindex::Reindexed;
pub use resent::{IdInUse, IdUse, Written};
pub use seals::{Done, Sealing};
