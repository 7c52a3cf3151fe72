//! How a store does: what waits, what was written, which statements took longest.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::error::StoreError;

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
    /// Records appended since the start.
    pub appended: u64,
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

/// Where figures are gathered.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) appended: AtomicU64,
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

    /// A group was not committed.
    pub(crate) fn failed(&self, error: &StoreError) {
        use StoreError::{DiskFull, Io, ReadOnly, Unreachable, Vanished};
        self.failures.fetch_add(1, Relaxed);
        if matches!(error, DiskFull | Io(_) | ReadOnly(_) | Unreachable(_) | Vanished(_)) {
            self.refusing.store(true, Relaxed);
        }
    }

    /// A group was committed.
    pub(crate) fn committed(&self, records: usize, took: Duration) {
        self.appended.fetch_add(records as u64, Relaxed);
        self.commits.fetch_add(1, Relaxed);
        self.refusing.store(false, Relaxed);
        self.committing_ns.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(crate) fn figures(&self, engine: &'static str) -> Figures {
        let mut slowest = self.statements.lock().unwrap_or_else(PoisonError::into_inner).clone();
        slowest.sort_by_key(|statement| std::cmp::Reverse(statement.longest));
        slowest.truncate(SLOWEST);
        Figures {
            engine,
            appended: self.appended.load(Relaxed),
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
