//! Consultations: what happened, for ever.

pub mod canonical;
mod consultations;
mod error;
pub mod event;
mod ingest;
pub mod kinds;
mod members;
pub mod time;

pub use consultations::{About, Consultation, Consultations, NewConsultation, SPACE, stream_of};
pub use error::RecordError;
pub use ingest::{Ingest, Ingested};
