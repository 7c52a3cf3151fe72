//! How a store does: what waits, what was written, which statements took longest.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use caudal_types::{ErrorKind, Explain};

use crate::{
    error::StoreError,
    jobs::{Gate, Job, Space},
};

/// How many of the slowest statements are kept.
const SLOWEST: usize = 10;

/// A statement and how long it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// What was done.
    pub text: Box<str>,
    /// The longest that it took.
    pub longest: Duration,
    /// How often it was done.
    pub count: u64,
    /// How long it took in all.
    pub total: Duration,
}

/// How a store does.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Which engine it is.
    pub engine: &'static str,
    /// Records appended since the start, to all spaces.
    pub appended: u64,
    /// The same, and what waits and what failed, by space.
    pub spaces: Vec<SpaceFigures>,
    /// Groups in which they were committed.
    pub commits: u64,
    /// Groups that could not be committed.
    pub failures: u64,
    /// Whether nothing can be written now, as far as is known: the disk is full, fails, or cannot be written.
    pub refusing: bool,
    /// Appends that wait now.
    pub waiting: usize,
    /// Bytes of these.
    pub waiting_bytes: u64,
    /// Time spent committing, the disk's flush included.
    pub committing: Duration,
    /// Connections there may be.
    pub connections_max: usize,
    /// Connections there are.
    pub connections: usize,
    /// Connections in use now.
    pub connections_busy: usize,
    /// Callers that wait for a connection.
    pub connections_awaited: usize,
    /// The statements that took longest, longest first.
    pub slowest: Vec<Statement>,
}

/// What is appended to one kind of streams.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpaceFigures {
    /// The space.
    pub name: Box<str>,
    /// Records appended since the start; one that was appended before is not counted again.
    pub appended: u64,
    /// Records that wait to be written now.
    pub waiting: usize,
    /// Appends that failed since the start, by why: for want of the disk, the database or room, not for what they said.
    pub faults: Vec<(ErrorKind, u64)>,
}

impl SpaceFigures {
    fn fault(&mut self, kind: ErrorKind, count: u64) {
        match self.faults.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, known)) => *known += count,
            None => self.faults.push((kind, count)),
        }
    }

    /// Appends that failed for that.
    pub fn faults_of(&self, kind: ErrorKind) -> u64 {
        self.faults.iter().find(|(known, _)| *known == kind).map_or(0, |(_, count)| *count)
    }
}

impl Figures {
    /// What is appended to the space `name`; nothing so far where it is not known.
    pub fn space(&self, name: &str) -> SpaceFigures {
        let found = self.spaces.iter().find(|space| &*space.name == name).cloned();
        found.unwrap_or_else(|| SpaceFigures { name: name.into(), ..SpaceFigures::default() })
    }
}

/// What keeps records from being appended that is no fault of theirs.
const FAULTS: [ErrorKind; 4] =
    [ErrorKind::DiskFull, ErrorKind::StoreUnavailable, ErrorKind::RecordDamaged, ErrorKind::TooManyRequests];

/// Where figures are gathered.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    spaces: Mutex<Vec<SpaceFigures>>,
    pub(crate) commits: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) committing_ns: AtomicU64,
    pub(crate) busy: AtomicU64,
    refusing: AtomicBool,
    statements: Mutex<Vec<Statement>>,
}

impl Gauges {
    /// Takes note that `text` took `time`.
    pub(crate) fn statement(&self, text: &str, time: Duration) {
        let mut statements = self.statements.lock().unwrap_or_else(PoisonError::into_inner);
        match statements.iter_mut().find(|statement| &*statement.text == text) {
            Some(statement) => {
                statement.longest = statement.longest.max(time);
                statement.count += 1;
                statement.total += time;
            }
            None => statements.push(Statement { text: text.into(), longest: time, count: 1, total: time }),
        }
    }

    fn spaces(&self) -> MutexGuard<'_, Vec<SpaceFigures>> {
        self.spaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `job` failed with `error`: counted where it appends and is not itself to blame.
    pub(crate) fn job_failed(&self, job: &Job, error: &StoreError) {
        if let Some((space, _)) = job.appends().filter(|_| FAULTS.contains(&error.kind())) {
            of(&mut self.spaces(), space).fault(error.kind(), 1);
        }
    }

    /// Whether nothing can be written, as far as is known.
    pub(crate) fn is_refusing(&self) -> bool {
        self.refusing.load(Relaxed)
    }

    /// A group was not committed.
    pub(crate) fn failed(&self, error: &StoreError) {
        use StoreError::{DiskFull, Io, ReadOnly, Unreachable, Vanished};
        self.failures.fetch_add(1, Relaxed);
        if matches!(error, DiskFull | Io(_) | ReadOnly(_) | Unreachable(_) | Vanished(_)) {
            self.refusing.store(true, Relaxed);
        }
    }

    /// A group was committed, and so many records are in each space now.
    pub(crate) fn committed<'a>(&self, records: impl Iterator<Item = (&'a str, usize)>, took: Duration) {
        let mut spaces = self.spaces();
        records.for_each(|(space, records)| of(&mut spaces, space).appended += records as u64);
        drop(spaces);
        self.commits.fetch_add(1, Relaxed);
        self.refusing.store(false, Relaxed);
        self.committing_ns.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// All of it, and what `gate` knows.
    pub(crate) fn figures(&self, engine: &'static str, gate: Option<&Gate>) -> Figures {
        let mut spaces = self.spaces().clone();
        for Space { name, waiting, refused } in gate.map(Gate::spaces).unwrap_or_default() {
            let space = of(&mut spaces, &name);
            space.waiting = waiting;
            if refused > 0 {
                space.fault(ErrorKind::TooManyRequests, refused);
            }
        }
        let (waiting, waiting_bytes) = gate.map(Gate::waiting).unwrap_or_default();
        let mut slowest = self.statements.lock().unwrap_or_else(PoisonError::into_inner).clone();
        slowest.sort_by_key(|statement| std::cmp::Reverse(statement.longest));
        slowest.truncate(SLOWEST);
        Figures {
            engine,
            appended: spaces.iter().map(|space| space.appended).sum(),
            spaces,
            waiting,
            waiting_bytes,
            commits: self.commits.load(Relaxed),
            failures: self.failures.load(Relaxed),
            refusing: self.refusing.load(Relaxed),
            committing: Duration::from_nanos(self.committing_ns.load(Relaxed)),
            connections_busy: self.busy.load(Relaxed) as usize,
            slowest,
            ..Figures::default()
        }
    }
}

/// The figures of the space `name` among `spaces`.
fn of<'a>(spaces: &'a mut Vec<SpaceFigures>, name: &str) -> &'a mut SpaceFigures {
    let place = spaces.iter().position(|space| &*space.name == name).unwrap_or_else(|| {
        spaces.push(SpaceFigures { name: name.into(), ..SpaceFigures::default() });
        spaces.len() - 1
    });
    &mut spaces[place]
}
