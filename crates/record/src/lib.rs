//! Consultations: what happened, for ever.

pub mod canonical;
pub mod event;
pub mod export;
pub mod hash;
pub mod kinds;
mod members;
pub mod proof;
mod raw;
pub mod soap;
pub mod state;
pub mod time;
pub mod timeline;
pub mod verify;
