//! Consultations: what happened, for ever.

pub mod archive;
pub mod canonical;
mod consultations;
mod error;
pub mod event;
pub mod export;
pub mod hash;
mod ingest;
pub mod kinds;
mod members;
pub mod proof;
mod raw;
pub mod soap;
pub mod state;
pub mod time;
pub mod timeline;
pub mod verify;

pub use consultations::{About, Consultation, Consultations, NewConsultation, SPACE, stream_of};
pub use error::RecordError;
pub use ingest::{Ingest, Ingested};
