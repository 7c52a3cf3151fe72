//! The machine's memory, watched: how much is used of what the kernel allows, how short it is, and what can be done.
//!
//! A [`Manager`] looks at the machine ([`Sources`]), turns the figures into a [`Level`] that does not flap ([`Gauge`]),
//! tells whoever should know (log, counters, a webhook) and lets registered [hooks](Manager::hook) give memory back. Who
//! is turned away while memory is short is decided by whoever reads the level: what a request or a model is, this room
//! does not know.

mod advice;
mod cgroup;
mod cleanup;
mod gpu;
mod history;
mod level;
mod manager;
mod policy;
mod reading;
mod throttling;
mod webhook;

pub use advice::Holder;
pub use cleanup::{Ask, HookState, Ran, Report, Why};
pub use history::Past;
pub use level::{Gauge, Level, Steps};
pub use manager::{Manager, State};
pub use policy::Policy;
pub use reading::{Gpu, Group, Reading, Scope, Sources, Use};
pub use throttling::Throttling;
