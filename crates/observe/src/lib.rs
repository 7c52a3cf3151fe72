//! Instrumentation: timed sections of a program, and concurrent histograms that cost a few nanoseconds per value and
//! have exact tails.
//!
//! Values are plain numbers (nanoseconds, bytes, rows); their export is not part of this crate. It has no run-time
//! dependencies and needs no async runtime, so that any Rust program can use it:
//!
//! ```
//! use caudal_observe::{profile, section};
//!
//! #[profile]
//! fn answer(question: u64) -> u64 {
//!     let _section = section!("think");
//!     question + 1
//! }
//!
//! answer(41);
//! for summary in caudal_observe::summaries() {
//!     println!("{}: {} times, {} ns", summary.section.name(), summary.count, summary.mean());
//! }
//! ```

mod buckets;
mod clock;
mod histogram;
mod section;
mod store;
mod thread_counters;
mod window;

pub use caudal_observe_macros::profile;
pub use histogram::{Histogram, Snapshot};
pub use section::{Kind, Section, SectionGuard, Timed, count_allocations, is_enabled, set_enabled};
pub use store::{MAX_RECENT_TIMES, MAX_SECTIONS, Summary, summaries};
pub use window::Window;
