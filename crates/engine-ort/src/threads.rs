//! Threads that ONNX Runtime works with beside ours, under a name that profiles show.

use std::thread::{Builder, JoinHandle};

use ort::environment::ThreadManager;

/// Their name. The kernel keeps 15 bytes of it.
const NAME: &str = "infer-pool";
/// As much as threads of C have: kernels keep packed numbers there, and Rust's threads have less.
const STACK: usize = 8 << 20;

/// Starts the threads of a session's pool.
pub(crate) struct Named;

impl ThreadManager for Named {
    type Thread = JoinHandle<()>;

    fn create(&self, work: impl FnOnce() + Send + 'static) -> ort::Result<Self::Thread> {
        let thread = Builder::new().name(NAME.to_owned()).stack_size(STACK).spawn(work);
        thread.map_err(|error| ort::Error::new(format!("a thread could not be started: {error}")))
    }

    fn join(thread: Self::Thread) -> ort::Result<()> {
        thread.join().map_err(|_| ort::Error::new("a thread of the pool failed"))
    }
}
