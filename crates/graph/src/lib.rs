//! ONNX models as graphs that can be changed: what happens to a model between two versions of it.
//!
//! A [`Model`] is read from a file's bytes and written back without loss: fields that this room does not know stay where
//! they are. [`take_bytes`] puts the way from 8-bit pixels to the network's input in front of its graph, [`suppress`] the
//! way from its outputs to boxes without duplicates behind it; [`quantize`] does its convolutions in 8 bits, [`halve`]
//! computes in 16.
//!
//! Pure and synchronous: what pictures, backends and repositories are, this room does not know.

mod build;
mod error;
mod flow;
mod half_floats;
mod model;
mod pixels;
mod quantize;
mod suppress;
mod weights;

/// ONNX's messages, made from `proto/onnx.proto`.
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
pub use half_floats::halve;
pub use model::Model;
pub use pixels::{Pixels, take_bytes};
pub use quantize::{Range, Recipe, Scope, observed, quantize};
pub use suppress::{Boxes, Suppression, suppress};
