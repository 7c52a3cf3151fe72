//! Optimization of image models: new versions are made beside the served one and published only after a comparison.
//!
//! [`fuse_model`] moves preprocessing and NMS into the graph and requires the same predictions. [`optimize_model`]
//! tries faster forms, 8-bit quantization above all, measures speed and loss of accuracy, and takes the fastest within
//! the bound on the loss.

mod accuracy;
mod bench;
mod box_matching;
mod calibrate;
mod candidates;
mod error;
mod fuse;
mod ground_truth;
mod optimize;
mod synthetic_images;

pub use accuracy::{Accuracy, Agreement};
pub use bench::{InferenceSpeed, ModelContext, RunConfig};
pub use error::OptimizeError;
pub use fuse::{FuseReport, FusedPart, fuse_model};
pub use ground_truth::MeanPrecision;
pub use optimize::{CandidateResult, OptimizeOptions, OptimizeReport, Progress, WriteChoice, optimize_model};
