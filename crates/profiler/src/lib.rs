//! CPU and heap profiles of the own process.
//!
//! While a [`Recording`] runs, a timer on the CPU clock of each thread interrupts it a hundred times per second of CPU
//! time (`sampler`). The handler only copies registers and stack; a separate thread unwinds the copies with the
//! modules' unwind tables (`modules`, `unwind`), so that code without frame pointers is profiled as well. Addresses are
//! symbolised at the end (`symbolize`). Heap profiles come from jemalloc (`heap`). Both are a [`Profile`], which is
//! written as collapsed stacks, flame graph, pprof or speedscope ([`Format`]), or compared ([`ProfileDiff`]).
//!
//! This crate does not know what the process does; callers may attribute opaque code to operators ([`OperatorShares`]).

mod diff;
mod error;
mod flamegraph;
mod format;
mod heap;
#[cfg(feature = "jemalloc")]
mod jemalloc;
mod modules;
mod operator_share;
mod pprof;
mod profile;
mod recording;
mod sampler;
mod speedscope;
mod symbolize;
mod unwind;
mod unwind_tables;

pub use diff::{FunctionDelta, ProfileDiff};
pub use error::ProfileError;
pub use format::Format;
pub use heap::heap_profile;
pub use operator_share::{OperatorShare, OperatorShares};
pub use profile::{IDLE_MESSAGE, Kind, Profile, Stack};
pub use recording::{DEFAULT_HZ, MAX_HZ, Recording};
