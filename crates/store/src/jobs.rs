//! What writers are asked to do, and how much of it may wait.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::{
    engine::{Append, Appended, Archive, NewStream, Reply, Snapshot},
    error::StoreError,
    record::{Stream, StreamId},
};

/// Most jobs of a group, and about the most bytes: what the first of them waits for.
const GROUP: usize = 1_024;
const GROUP_BYTES: usize = 8 << 20;
/// For at most this part of the time that the last group took is waited for those who were in it to come back, and at
/// most so long.
const SHARE: u32 = 5;
const LONGEST: Duration = Duration::from_millis(1);
/// Waiting bytes are counted in steps of this.
const STEP: usize = 256;

/// Where the answer goes.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// What a writer is asked to do.
pub(crate) enum Job {
    Create(NewStream, Answer<Stream>),
    Append(Append, Answer<Appended>),
    Snapshot(StreamId, Snapshot, Answer<()>),
    Seal(Archive, Answer<()>),
}

impl Job {
    pub(crate) fn fail(self, error: StoreError) {
        match self {
            Self::Create(_, answer) => drop(answer.send(Err(error))),
            Self::Append(_, answer) => drop(answer.send(Err(error))),
            Self::Snapshot(_, _, answer) | Self::Seal(_, answer) => drop(answer.send(Err(error))),
        }
    }

    /// How many records were appended, if `outcome` came of it.
    pub(crate) fn records(&self, outcome: &Result<Done, StoreError>) -> usize {
        match (self, outcome) {
            (Self::Append(append, _), Ok(Done::Appended(Appended { repeated: false, .. }))) => append.records.len(),
            _ => 0,
        }
    }
}

/// What came of a job, once its group is committed.
pub(crate) enum Done {
    Created(Stream),
    Appended(Appended),
    Kept,
}

/// A job on its way, and the place it takes.
pub(crate) struct Waiting {
    job: Job,
    bytes: usize,
    place: OwnedSemaphorePermit,
}

/// Jobs that are committed together, each with the place that it takes.
pub(crate) type Jobs = Vec<(Job, OwnedSemaphorePermit)>;

/// A group that gathers.
pub(crate) struct Group {
    jobs: Jobs,
    bytes: usize,
}

impl Group {
    /// `first`, and what waits behind it, as far as it fits.
    pub(crate) fn of(first: Waiting, asked: &mut mpsc::UnboundedReceiver<Waiting>) -> Self {
        let mut group = Self { jobs: vec![(first.job, first.place)], bytes: first.bytes };
        group.fill(asked);
        group
    }

    /// Takes what has come meanwhile, as far as it fits.
    pub(crate) fn fill(&mut self, asked: &mut mpsc::UnboundedReceiver<Waiting>) {
        while !self.is_full() {
            let Ok(next) = asked.try_recv() else { break };
            self.bytes += next.bytes;
            self.jobs.push((next.job, next.place));
        }
    }

    fn is_full(&self) -> bool {
        self.jobs.len() >= GROUP || self.bytes >= GROUP_BYTES
    }

    pub(crate) fn jobs(self) -> Jobs {
        self.jobs
    }
}

/// How many may be expected in the next group. Without it, those who were just answered miss the group that begins at
/// once with those who waited, and the two take turns for ever: half as many share each flush as could.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    expected: usize,
    patience: Duration,
}

impl Pace {
    /// `answered` were answered after `took`, and `waiting` had come by then.
    pub(crate) fn after(answered: usize, waiting: usize, took: Duration) -> Self {
        Self { expected: answered + waiting, patience: (took / SHARE).min(LONGEST) }
    }

    /// Whether it is worth waiting for more, since `start`.
    pub(crate) fn waits(&self, group: &Group, start: Instant) -> bool {
        group.jobs.len() < self.expected && !group.is_full() && start.elapsed() < self.patience
    }
}

/// How much may wait, and how much does.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    bytes: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    /// Those of them for which there was no room at once.
    in_line: Arc<AtomicUsize>,
    most: usize,
    most_steps: usize,
}

impl Gate {
    /// For `most` jobs, and `most_bytes` of theirs.
    pub(crate) fn new(most: usize, most_bytes: usize) -> Self {
        let steps = (most_bytes / STEP).clamp(1, Semaphore::MAX_PERMITS);
        let (waiting, in_line) = (Arc::default(), Arc::default());
        Self { bytes: Arc::new(Semaphore::new(steps)), waiting, in_line, most, most_steps: steps }
    }

    /// How many jobs wait, and how many bytes they have.
    pub(crate) fn waiting(&self) -> (usize, u64) {
        let taken = self.most_steps.saturating_sub(self.bytes.available_permits());
        (self.waiting.load(Relaxed), (taken * STEP) as u64)
    }
}

/// Counts a job for as long as it waits.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Asks a writer.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    jobs: mpsc::UnboundedSender<Waiting>,
    gate: Gate,
}

impl Asker {
    pub(crate) fn new(gate: Gate) -> (Self, mpsc::UnboundedReceiver<Waiting>) {
        let (jobs, asked) = mpsc::unbounded_channel();
        (Self { jobs, gate }, asked)
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Hands over a job of so many bytes. Who brings more than fits waits in line for room.
    pub(crate) fn ask<T: Send + 'static>(&self, bytes: usize, job: impl FnOnce(Answer<T>) -> Job) -> Reply<T> {
        let (answer, done) = oneshot::channel();
        let job = job(answer);
        let gate = &self.gate;
        let counted = Counted(Arc::clone(&gate.waiting));
        let waiting = gate.waiting.fetch_add(1, Relaxed);
        if waiting >= gate.most {
            return async move { Err(StoreError::Full { waiting }) }.boxed();
        }
        let (room, jobs) = (Arc::clone(&gate.bytes), self.jobs.clone());
        let steps = bytes.div_ceil(STEP).clamp(1, gate.most_steps) as u32;
        // What can be handed over at once is, and nobody overtakes who has to wait: appends of one caller stay in their
        // order.
        let at_once = match gate.in_line.load(Relaxed) {
            0 => Arc::clone(&room).try_acquire_many_owned(steps).ok(),
            _ => None,
        };
        let handed = match at_once {
            Some(place) => Ok(jobs.send(Waiting { job, bytes, place }).map_err(|_| StoreError::Closed)),
            None => {
                gate.in_line.fetch_add(1, Relaxed);
                Err((job, Counted(Arc::clone(&gate.in_line))))
            }
        };
        async move {
            let _counted = counted;
            match handed {
                Ok(handed) => handed?,
                Err((job, _in_line)) => {
                    let place = room.acquire_many_owned(steps).await.map_err(|_| StoreError::Closed)?;
                    jobs.send(Waiting { job, bytes, place }).map_err(|_| StoreError::Closed)?;
                }
            }
            done.await.unwrap_or(Err(StoreError::Closed))
        }
        .boxed()
    }
}
