//! Thread creation for ONNX Runtime's pools, with a name that profiles show.

use std::thread::{Builder, JoinHandle};

use ort::environment::ThreadManager;

/// Their name, of which the kernel keeps 15 bytes.
const THREAD_NAME: &str = "infer-pool";
/// The default of C threads: kernels keep packed data on the stack, and Rust's threads have less.
const STACK_BYTES: usize = 8 << 20;

/// Starts the threads of a session's pool.
pub(crate) struct NamedThreads;

impl ThreadManager for NamedThreads {
    type Thread = JoinHandle<()>;

    fn create(&self, work: impl FnOnce() + Send + 'static) -> ort::Result<Self::Thread> {
        let thread = Builder::new().name(THREAD_NAME.to_owned()).stack_size(STACK_BYTES).spawn(work);
        thread.map_err(|error| ort::Error::new(format!("a thread could not be started: {error}")))
    }

    fn join(thread: Self::Thread) -> ort::Result<()> {
        thread.join().map_err(|_| ort::Error::new("a thread of the pool failed"))
    }
}
