//! New versions of a model that looks at pictures, made beside the one that serves and put in place only once they have
//! shown what they can do.
//!
//! [`fuse`] moves preprocessing and suppression into the graph and demands the same answers. [`optimize`] tries what may
//! be quicker, 8 bits above all, measures speed and what it costs in accuracy, and takes the quickest that loses no more
//! than it may.

mod accuracy;
mod bench;
mod boxes;
mod calibrate;
mod candidates;
mod error;
mod fuse;
mod labels;
mod optimize;
mod synthetic;

pub use accuracy::{Accuracy, Agreement};
pub use bench::{Site, Speed, Way};
pub use error::OptimizeError;
pub use fuse::{Fused, Part, fuse};
pub use labels::Precision;
pub use optimize::{Order, Report, Row, Step, Write, optimize};
