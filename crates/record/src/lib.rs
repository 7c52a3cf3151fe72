//! Consultations: what happened, for ever.

pub mod canonical;
