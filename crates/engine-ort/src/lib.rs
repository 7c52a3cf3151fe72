//! ONNX Runtime as a backend: finds the shared library, opens sessions, runs batches.
//!
//! Where each run has one thread, or a graphics card, all instances of a model share one session, and with it one copy
//! of the weights: ONNX Runtime's `Run` may be called on one session from many threads. Where runs have threads of
//! their own, each instance has its own session, because a session's threads are shared by its runs.

mod backend;
mod library;
mod operators;
mod provider;
mod raw;
mod session;
mod threads;

pub use backend::OnnxRuntime;
pub use library::{LibraryError, LibrarySource, locate};
