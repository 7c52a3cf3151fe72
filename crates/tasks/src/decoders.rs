//! The threads that turn bytes into pixels and tensors and these into bytes: bounded, apart from the async runtime,
//! the urgent first.

use std::{
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use caudal_types::{Priority, Stage};
use caudal_vision::Decoder;
use tokio::sync::oneshot;

use crate::{Call, TaskError};

/// A pool of decode threads; cloning shares it. Its threads end when the last clone is gone.
#[derive(Clone)]
pub struct Decoders {
    pool: Arc<Pool>,
}

struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    next: u64,
    /// The urgent first, among equals the oldest.
    waiting: BTreeMap<Key, Work>,
    closed: bool,
}

type Key = (Priority, u64);
type Work = Box<dyn FnOnce(&mut Decoder) + Send>;

/// A place in the line; what still waits in it when it is dropped is dropped too, with all it holds.
struct Place<'a> {
    shared: &'a Shared,
    key: Key,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let work = self.shared.lock().waiting.remove(&self.key);
        // It may hold megabytes; it goes outside of the lock.
        drop(work);
    }
}

impl fmt::Debug for Decoders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoders").field("waiting", &self.waiting()).finish()
    }
}

impl Decoders {
    /// Starts `threads` decode threads.
    pub fn start(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), work: Condvar::new() });
        for index in 0..threads.max(1) {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name(format!("decode-{index}")).spawn(move || shared.serve())?;
        }
        Ok(Self { pool: Arc::new(Pool { shared }) })
    }

    /// Runs `work`, the next `stage` of `call`, on a decode thread and gives what it made. Dropping the future before
    /// that takes it out of the line.
    pub async fn run<T: Send + 'static>(
        &self,
        call: &Call,
        stage: Stage,
        work: impl FnOnce(&mut Decoder) -> T + Send + 'static,
    ) -> Result<T, TaskError> {
        call.trace.enter(Stage::Wait);
        let (sender, receiver) = oneshot::channel();
        let trace = call.trace.clone();
        let _place = self.pool.shared.push(
            call.priority,
            Box::new(move |decoder| {
                trace.enter(stage);
                let _ = sender.send(catch_unwind(AssertUnwindSafe(|| work(decoder))));
            }),
        );
        match receiver.await {
            Ok(Ok(made)) => Ok(made),
            // The decoder is a library's; should one picture break it, the others go on.
            Ok(Err(_)) => Err(TaskError::Internal("decoding broke off".to_owned())),
            Err(_) => Err(TaskError::Internal("the decode threads have ended".to_owned())),
        }
    }

    /// Pictures that wait for a thread.
    pub fn waiting(&self) -> usize {
        self.pool.shared.lock().waiting.len()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, priority: Priority, work: Work) -> Place<'_> {
        let mut state = self.lock();
        state.next += 1;
        let key = (priority, state.next);
        state.waiting.insert(key, work);
        drop(state);
        self.work.notify_one();
        Place { shared: self, key }
    }

    fn serve(&self) {
        let mut decoder = Decoder::default();
        while let Some(work) = self.next() {
            work(&mut decoder);
        }
    }

    fn next(&self) -> Option<Work> {
        let mut state = self.lock();
        loop {
            if let Some((_, work)) = state.waiting.pop_first() {
                return Some(work);
            }
            if state.closed {
                return None;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::mpsc,
        time::{Duration, Instant},
    };

    fn call(priority: Priority) -> Call {
        Call { priority, ..Call::new(Instant::now()) }
    }

    #[tokio::test]
    async fn the_urgent_go_first_and_who_left_not_at_all() {
        let decoders = Decoders::start(1).unwrap();
        let (release, gate) = mpsc::channel::<()>();
        let (log, order) = mpsc::channel();
        let blocker = tokio::spawn({
            let decoders = decoders.clone();
            async move { decoders.run(&call(Priority::High), Stage::Decode, move |_| gate.recv()).await.map(drop) }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        let task = |name: &'static str, priority| {
            let (decoders, log) = (decoders.clone(), log.clone());
            tokio::spawn(async move {
                decoders.run(&call(priority), Stage::Decode, move |_| log.send(name)).await.map(drop)
            })
        };
        let low = task("low", Priority::Low);
        let gone = task("gone", Priority::Normal);
        let normal = task("normal", Priority::Normal);
        let high = task("high", Priority::High);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(decoders.waiting(), 4);
        gone.abort();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(decoders.waiting(), 3, "what nobody waits for is gone, with the memory it held");
        release.send(()).unwrap();
        for task in [blocker, low, normal, high] {
            task.await.unwrap().unwrap();
        }
        drop(log);
        assert_eq!(order.iter().collect::<Vec<_>>(), ["high", "normal", "low"]);
    }

    #[tokio::test]
    async fn a_panic_fails_one_and_no_other() {
        let decoders = Decoders::start(1).unwrap();
        let broken = decoders.run(&call(Priority::Normal), Stage::Decode, |_| -> u8 { panic!("broken picture") }).await;
        assert!(matches!(broken, Err(TaskError::Internal(_))));
        assert_eq!(decoders.run(&call(Priority::Normal), Stage::Decode, |_| 7).await.unwrap(), 7);
    }
}
