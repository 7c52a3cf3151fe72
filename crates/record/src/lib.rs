//! Consultations: what happened, for ever.

pub mod canonical;
pub mod event;
pub mod hash;
pub mod kinds;
mod members;
pub mod proof;
mod raw;
pub mod soap;
pub mod state;
pub mod time;
pub mod verify;
