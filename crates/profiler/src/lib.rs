//! CPU and heap profiles of the process that asks for them.
//!
//! While a [`Recording`] is on, a timer on each thread's own CPU clock interrupts it a hundred times a second of work
//! (`signal`). The handler copies registers and stack, and nothing else; a thread of ours walks the copies by the
//! modules' unwind tables (`modules`, `walk`), so that code without frame pointers is seen as any other. Addresses
//! become names when it is over (`names`). What is allocated is told by jemalloc (`heap`). Both end in a [`Profile`],
//! which is written as collapsed stacks, flame graph, pprof or speedscope ([`Format`]), or compared ([`Difference`]).
//!
//! What the process does this room does not know; who does may say what opaque code does ([`Parts`]).

mod difference;
mod error;
mod flamegraph;
mod format;
mod heap;
#[cfg(feature = "jemalloc")]
mod jemalloc;
mod modules;
mod names;
mod parts;
mod pprof;
mod profile;
mod recording;
mod signal;
mod speedscope;
mod tables;
mod walk;

pub use difference::{Difference, Growth};
pub use error::ProfileError;
pub use format::Format;
pub use heap::heap;
pub use parts::{Part, Parts};
pub use profile::{IDLE, Kind, Profile, Stack};
pub use recording::{DEFAULT_HZ, MOST_HZ, Recording};
