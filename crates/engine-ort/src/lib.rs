//! ONNX Runtime backend: finds the shared library, opens sessions, runs batches.
//!
//! If runs have one thread, or use a GPU, all instances of a model share one session, and with it one copy of the
//! weights: ONNX Runtime's `Run` may be called concurrently on one session. If runs have several threads, each instance
//! has its own session, because a session's threads are shared by its runs.

mod backend;
mod library;
mod operators;
mod provider;
mod raw;
mod session;
mod threads;

pub use backend::OnnxRuntime;
pub use library::{LibraryError, LibrarySource, locate_library};
