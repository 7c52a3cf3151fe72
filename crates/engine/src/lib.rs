//! Contract of inference backends, and the model repository.
//!
//! A backend opens a model file and describes its inputs and outputs ([`ModelSpec`]); an [`Instance`] of it runs one
//! batch at a time. The [`repository`] finds files, versions and settings in Triton's folder layout, refuses files
//! outside of a model's folder, and reports problems with their fixes.
//!
//! This crate does not know which backend runs, or what its tensors mean.

mod backend;
mod operators;
mod provider;
pub mod repository;
mod spec;

pub use backend::{Backend, Instance, Interrupt, LoadError, Model, OutputSink, RunError, without_values};
pub use operators::{Operator, OperatorProfile};
pub use provider::{GraphOptimization, LoadOptions, Precision, Provider, UnknownProvider, join_names};
pub use spec::{Dim, ModelSpec, TensorSpec};
