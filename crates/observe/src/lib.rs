//! What everyone calls to be seen: sections of a program that are timed by name, and histograms that cost a few
//! nanoseconds to feed and never lie about a tail.
//!
//! Values go in as plain numbers (nanoseconds, bytes, rows); who reads them, and in which format, is the
//! readers' business. No dependencies at run time and no runtime, so that any Rust program could use it:
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
mod cells;
mod clock;
mod histogram;
mod section;
mod store;
mod window;

pub use caudal_observe_macros::profile;
pub use histogram::{Histogram, Snapshot};
pub use section::{Guard, Kind, Section, Timed, count_allocations, enabled, set_enabled};
pub use store::{MOST_SECTIONS, RECENT, Summary, summaries};
pub use window::Window;
