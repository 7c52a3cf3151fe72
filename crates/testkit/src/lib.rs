//! What the tests of several rooms share: a backend that follows a script, and the contract suite that every
//! backend must pass.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop loudly")]

pub mod contract;
mod scripted;

pub use scripted::{Log, Scripted};

/// `values` as the bytes of a tensor.
pub fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

/// The bytes of a tensor as numbers.
pub fn f32_values(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|chunk| f32::from_ne_bytes(chunk.try_into().unwrap())).collect()
}

/// Where the suite's small model `name` lies; `models/make.py` says what it does.
pub fn model_file(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("models/{name}.onnx"))
}
