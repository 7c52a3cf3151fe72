//! Consultations: what happened, for ever.

pub mod canonical;
pub mod event;
pub mod kinds;
mod members;
mod raw;
pub mod soap;
pub mod state;
