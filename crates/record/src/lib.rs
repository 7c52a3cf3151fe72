//! Consultations: what happened, for ever.

pub mod archive;
