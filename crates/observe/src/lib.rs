//! What everyone calls to be seen: histograms that cost a few nanoseconds to feed and never lie about a tail.
//!
//! Values go in as plain numbers (nanoseconds, bytes, rows); who reads them, and in which format, is the
//! readers' business. No dependencies and no runtime, so that any Rust program could use it.

mod buckets;
mod histogram;
mod window;

pub use histogram::{Histogram, Snapshot};
pub use window::Window;
