//! The threads that talk to sockets, each with a runtime of its own.
//!
//! A connection stays on one thread for life: its reads, its parsing, its answers and its timers take no lock and
//! wake no other thread. With one runtime over all threads a request is woken up, stolen and handed about more often
//! than it is worked on (`docs/performance.md`).

use std::{
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

/// The threads; they end when this is dropped.
#[derive(Debug)]
pub(crate) struct IoThreads {
    threads: Vec<IoThread>,
}

#[derive(Debug)]
struct IoThread {
    runtime: Handle,
    tasks: Arc<AtomicUsize>,
    /// Dropped with the thread's owner: the thread waits for that.
    _stop: oneshot::Sender<()>,
}

impl IoThreads {
    /// Starts `count` threads.
    pub(crate) fn start(count: usize) -> io::Result<Self> {
        let start = |index: usize| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let (stop, stopped) = oneshot::channel::<()>();
            thread::Builder::new().name(format!("io-{index}")).spawn(move || {
                // An error is the sender's end, which is what is waited for.
                let _ = runtime.block_on(stopped);
                runtime.shutdown_background();
            })?;
            Ok(IoThread { runtime: handle, tasks: Arc::default(), _stop: stop })
        };
        Ok(Self { threads: (0..count.max(1)).map(start).collect::<io::Result<_>>()? })
    }

    /// Runs `task` on the thread that has the fewest.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let thread =
            self.threads.iter().min_by_key(|thread| thread.tasks.load(Relaxed)).expect("there is at least one");
        let tasks = Arc::clone(&thread.tasks);
        tasks.fetch_add(1, Relaxed);
        thread.runtime.spawn(async move {
            let _done = Done(tasks);
            task.await;
        });
    }
}

impl IoThreads {
    /// Runs a task on each thread, beside its connections.
    pub(crate) fn on_each<F, T>(&self, mut task: impl FnMut() -> (F, T)) -> Vec<T>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let start = |thread: &IoThread| {
            let (task, told) = task();
            thread.runtime.spawn(task);
            told
        };
        self.threads.iter().map(start).collect()
    }
}

struct Done(Arc<AtomicUsize>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
