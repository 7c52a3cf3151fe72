//! What writers are asked to do, and how much of it may wait.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot};

use crate::{
    engine::{Append, Appended, Archive, NewStream, Reply, Snapshot},
    error::StoreError,
    record::{Stream, StreamId},
};

/// Most jobs of a group, and about the most bytes: what the first of them waits for.
const GROUP: usize = 1_024;
const GROUP_BYTES: usize = 8 << 20;
/// From when on a group is slow for its size: it takes so long, and has fewer bytes.
const SLOW: Duration = Duration::from_millis(1);
const FEW_BYTES: usize = 256 << 10;
/// For at most this part of the time that a slow group took is waited for those who were in it to come back, and at most
/// so long.
const SHARE: u32 = 5;
const LONGEST: Duration = Duration::from_millis(1);
/// Waiting bytes are counted in steps of this.
const STEP: usize = 256;

/// Where the answer goes.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// What a writer is asked to do.
#[derive(Debug)]
pub(crate) enum Job {
    Create(NewStream, Answer<Stream>),
    Append(Append, Answer<Appended>),
    /// The last but one: whether it replaces a newer one.
    Snapshot(StreamId, Snapshot, bool, Answer<()>),
    Seal(Archive, Answer<()>),
}

impl Job {
    pub(crate) fn fail(self, error: StoreError) {
        match self {
            Self::Create(_, answer) => drop(answer.send(Err(error))),
            Self::Append(_, answer) => drop(answer.send(Err(error))),
            Self::Snapshot(_, _, _, answer) | Self::Seal(_, answer) => drop(answer.send(Err(error))),
        }
    }

    /// The space that it appends to, and how many records; none where it appends nothing.
    pub(crate) fn appends(&self) -> Option<(&str, usize)> {
        match self {
            Self::Append(append, _) => Some((&append.stream.space, append.records.len())),
            _ => None,
        }
    }

    /// The space and how many records were appended to it, if `outcome` came of it.
    pub(crate) fn appended(&self, outcome: &Result<Done, StoreError>) -> Option<(&str, usize)> {
        let new = matches!(outcome, Ok(Done::Appended(Appended { repeated: false, .. })));
        self.appends().filter(|_| new)
    }
}

/// What came of a job, once its group is committed.
pub(crate) enum Done {
    Created(Stream),
    Appended(Appended),
    Kept,
}

/// A job on its way, and the place it takes.
#[derive(Debug)]
pub(crate) struct Waiting {
    job: Job,
    bytes: usize,
    place: Place,
}

impl Waiting {
    pub(crate) fn job(&self) -> &Job {
        &self.job
    }

    pub(crate) fn fail(self, error: StoreError) {
        self.job.fail(error);
    }
}

/// Jobs that are committed together, each with the place that it takes.
pub(crate) type Jobs = Vec<(Job, Place)>;

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

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn jobs(self) -> Jobs {
        self.jobs
    }
}

/// How many may be expected in the next group where the disk is slow. Without it, those who were just answered miss the
/// group that begins at once with those who waited, and the two take turns for ever: half as many share each flush as
/// could. Where the disk is quick, or what takes the time is the writing, the turns are the better way: one half is read
/// and answered while the other is flushed.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    expected: usize,
    patience: Duration,
}

impl Pace {
    /// `answered` with so many `bytes` were answered after `took`, and `waiting` had come by then.
    pub(crate) fn after(answered: usize, bytes: usize, waiting: usize, took: Duration) -> Self {
        match took >= SLOW && bytes < FEW_BYTES {
            true => Self { expected: answered + waiting, patience: (took / SHARE).min(LONGEST) },
            false => Self::default(),
        }
    }

    /// Whether it is worth waiting for more, since `start`.
    pub(crate) fn waits(&self, group: &Group, start: Instant) -> bool {
        group.jobs.len() < self.expected && !group.is_full() && start.elapsed() < self.patience
    }
}

/// How much may wait, and how much does.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    room: Arc<Mutex<Room>>,
    most: usize,
    most_steps: usize,
}

#[derive(Debug)]
struct Room {
    /// Steps that nobody takes.
    free: usize,
    /// Jobs that were handed over and are not done, and those in line.
    waiting: usize,
    /// Those for which there was no room, in the order in which they came.
    line: VecDeque<InLine>,
    /// What is appended to each space.
    spaces: Vec<Space>,
}

/// What is appended to a space.
#[derive(Debug, Clone)]
pub(crate) struct Space {
    pub(crate) name: Box<str>,
    /// Records that wait.
    pub(crate) waiting: usize,
    /// Appends that were refused because too many waited.
    pub(crate) refused: u64,
}

impl Room {
    /// The place of a space among those that are counted.
    fn space(&mut self, name: &str) -> usize {
        let known = self.spaces.iter().position(|space| &*space.name == name);
        known.unwrap_or_else(|| {
            self.spaces.push(Space { name: name.into(), waiting: 0, refused: 0 });
            self.spaces.len() - 1
        })
    }

    /// A job waits no longer that appended so many records to a space.
    fn leave(&mut self, appends: Option<(usize, usize)>) {
        self.waiting -= 1;
        if let Some((space, records)) = appends {
            self.spaces[space].waiting -= records;
        }
    }
}

#[derive(Debug)]
struct InLine {
    job: Job,
    bytes: usize,
    steps: usize,
    /// The space that it appends to, and records.
    appends: Option<(usize, usize)>,
    writer: mpsc::UnboundedSender<Waiting>,
}

impl Gate {
    /// For `most` jobs, and `most_bytes` of theirs.
    pub(crate) fn new(most: usize, most_bytes: usize) -> Self {
        let most_steps = (most_bytes / STEP).max(1);
        let room = Room { free: most_steps, waiting: 0, line: VecDeque::new(), spaces: Vec::new() };
        Self { room: Arc::new(Mutex::new(room)), most, most_steps }
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many jobs wait, and how many bytes they have.
    pub(crate) fn waiting(&self) -> (usize, u64) {
        let room = self.room();
        (room.waiting, ((self.most_steps - room.free) * STEP) as u64)
    }

    /// What waits to be appended to each space, and what was refused.
    pub(crate) fn spaces(&self) -> Vec<Space> {
        self.room().spaces.clone()
    }

    /// Hands over who stands first in line, and so on, as far as there is room: nobody overtakes.
    fn hand_over(&self, mut room: MutexGuard<'_, Room>) {
        let mut refused = Vec::new();
        while room.line.front().is_some_and(|first| first.steps <= room.free) {
            let Some(InLine { job, bytes, steps, appends, writer }) = room.line.pop_front() else { break };
            if writer.is_closed() {
                // Whoever asked hears it when the job goes.
                room.leave(appends);
                continue;
            }
            room.free -= steps;
            let place = Place { gate: self.clone(), steps, appends };
            // Under the lock: the writer hears of jobs in the order of the line.
            refused.extend(writer.send(Waiting { job, bytes, place }).err());
        }
        // Places are given back under the same lock.
        drop(room);
        drop(refused);
    }
}

/// What a job takes until it is done.
#[derive(Debug)]
pub(crate) struct Place {
    gate: Gate,
    steps: usize,
    appends: Option<(usize, usize)>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut room = self.gate.room();
        room.free += self.steps;
        room.leave(self.appends);
        self.gate.hand_over(room);
    }
}

/// Asks a writer.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    writer: mpsc::UnboundedSender<Waiting>,
    gate: Gate,
}

impl Asker {
    pub(crate) fn new(gate: Gate) -> (Self, mpsc::UnboundedReceiver<Waiting>) {
        let (writer, asked) = mpsc::unbounded_channel();
        (Self { writer, gate }, asked)
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Hands over a job of so many bytes. Who brings more than fits stands in line for room, behind who came before.
    pub(crate) fn ask<T: Send + 'static>(&self, bytes: usize, job: impl FnOnce(Answer<T>) -> Job) -> Reply<T> {
        let gate = &self.gate;
        let (answer, done) = oneshot::channel();
        let job = job(answer);
        let mut room = gate.room();
        let waiting = room.waiting;
        let appends = job.appends().map(|(space, records)| (room.space(space), records));
        if waiting >= gate.most {
            if let Some((space, _)) = appends {
                room.spaces[space].refused += 1;
            }
            return async move { Err(StoreError::Full { waiting }) }.boxed();
        }
        let steps = bytes.div_ceil(STEP).clamp(1, gate.most_steps);
        room.waiting += 1;
        if let Some((space, records)) = appends {
            room.spaces[space].waiting += records;
        }
        room.line.push_back(InLine { job, bytes, steps, appends, writer: self.writer.clone() });
        gate.hand_over(room);
        async move { done.await.unwrap_or(Err(StoreError::Closed)) }.boxed()
    }
}
