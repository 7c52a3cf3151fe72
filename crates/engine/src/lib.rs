//! The contract of a backend (batch in, batch out) and the folder of models.
//!
//! A backend opens a model file and says what the file wants ([`ModelSpec`]); an [`Instance`] of it runs one
//! batch at a time. The [`repository`] finds files, versions and settings in Triton's folder layout, refuses
//! what reaches outside of a model's folder, and can explain in words what is wrong with it.
//!
//! Which backend runs, and what its tensors mean, this room does not know.

mod backend;
mod operators;
mod provider;
pub mod repository;
mod spec;

pub use backend::{Backend, Instance, Interrupt, LoadError, Model, Outputs, RunError, without_values};
pub use operators::{Operator, OperatorProfile};
pub use provider::{GraphOptimization, LoadOptions, Precision, Provider, UnknownProvider, names};
pub use spec::{Dim, ModelSpec, TensorSpec};
