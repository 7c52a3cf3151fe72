//! Consultations: what happened, for ever.

pub mod canonical;
pub mod kinds;
mod members;
