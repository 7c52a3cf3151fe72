//! Rewriting of ONNX graphs: changes that make a new version of a model.
//!
//! A [`Model`] is read from a file's bytes and written back without loss: unknown fields are preserved.
//! [`fuse_preprocessing`] adds the conversion from 8-bit pixels in front of the graph, [`fuse_nms`] adds non-maximum
//! suppression behind it; [`quantize_model`] makes layers compute in 8 bits, [`convert_to_half`] in 16.
//!
//! Pure and synchronous: this crate does not know images, backends or repositories.

mod builder;
mod dataflow;
mod error;
mod half_floats;
mod model;
mod nms;
mod preprocess;
mod quantize;
mod tensors;

/// ONNX's messages, generated from `proto/onnx.proto`.
#[expect(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::semicolon_if_nothing_returned,
    reason = "made by protobuf-codegen"
)]
mod onnx {
    include!(concat!(env!("OUT_DIR"), "/onnx/mod.rs"));
}

pub use error::GraphError;
pub use half_floats::convert_to_half;
pub use model::Model;
pub use nms::{BoxLayout, NmsSpec, fuse_nms};
pub use preprocess::{Preprocessing, fuse_preprocessing};
pub use quantize::{QuantizeConfig, QuantizeScope, ValueRange, quantize_model, values_to_calibrate};
