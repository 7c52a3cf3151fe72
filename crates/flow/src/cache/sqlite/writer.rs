//! The one thread that writes. What waits is committed in one go; what does not find room to wait is dropped.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::{Common, guard};
use crate::{
    cache::{Answered, body},
    key::Key,
};

/// Answers that may wait to be written.
const WAITING: usize = 1_024;
/// Bytes that these may have.
const WAITING_BYTES: usize = 32 << 20;
/// Answers that are written in one go: other processes write in between.
const GROUP: usize = 256;
/// How long uses of answers may wait for a write that takes them along.
const USES_WAIT: Duration = Duration::from_secs(2);
/// Between two looks for answers whose time is over, in microseconds.
const SWEEP_EVERY: i64 = 60_000_000;
/// Bytes that an answer takes beside its own.
const AROUND: usize = 256;

enum Job {
    Put(Put),
    /// There are uses to write.
    Uses,
}

struct Put {
    key: Key,
    answer: Answered,
    size: usize,
    made: i64,
    expires: Option<i64>,
}

/// The thread.
pub(super) struct Writer {
    /// None once it is to end.
    jobs: Option<mpsc::SyncSender<Job>>,
    waiting: Arc<AtomicUsize>,
    common: Arc<Common>,
    thread: Option<JoinHandle<()>>,
}

/// Tells the writer that there are uses to write.
#[derive(Clone)]
pub(super) struct Waker(mpsc::SyncSender<Job>);

impl Waker {
    pub(super) fn wake(&self) {
        // If so many answers wait, it is awake.
        let _ = self.0.try_send(Job::Uses);
    }
}

impl Writer {
    pub(super) fn start(connection: Connection, bytes: u64, common: &Arc<Common>) -> Result<Self, String> {
        let (jobs, asked) = mpsc::sync_channel(WAITING);
        let waiting = Arc::new(AtomicUsize::new(0));
        let limit = i64::try_from(bytes).unwrap_or(i64::MAX);
        let mut work =
            Work { connection, limit, swept: i64::MIN, common: Arc::clone(common), waiting: Arc::clone(&waiting) };
        let thread = thread::Builder::new().name("cache-write".to_owned()).spawn(move || work.run(&asked));
        let thread = thread.map_err(|error| error.to_string())?;
        Ok(Self { jobs: Some(jobs), waiting, common: Arc::clone(common), thread: Some(thread) })
    }

    pub(super) fn waker(&self) -> Waker {
        Waker(self.jobs.clone().expect("the writer is closed when it is dropped"))
    }

    /// Has an answer written, if there is room for it to wait.
    pub(super) fn put(&self, key: Key, answer: Answered, ttl: Option<Duration>) {
        let Some(jobs) = self.jobs.as_ref().filter(|_| !self.common.is_over()) else { return };
        let size = answer.size() + AROUND;
        if self.waiting.fetch_add(size, Relaxed) + size > WAITING_BYTES {
            self.waiting.fetch_sub(size, Relaxed);
            return;
        }
        let made = self.common.clock.now();
        let expires = ttl.map(|ttl| made.saturating_add(i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX)));
        if jobs.try_send(Job::Put(Put { key, answer, size, made, expires })).is_err() {
            self.waiting.fetch_sub(size, Relaxed);
        }
    }
}

impl Drop for Writer {
    /// What was handed over is still written.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Work {
    connection: Connection,
    limit: i64,
    /// When it was last looked for answers whose time is over.
    swept: i64,
    common: Arc<Common>,
    waiting: Arc<AtomicUsize>,
}

impl Work {
    fn run(&mut self, jobs: &mpsc::Receiver<Job>) {
        self.write(&[]);
        // Room that a smaller limit has freed is given back.
        let _ = self.connection.prepare("pragma incremental_vacuum").and_then(|mut vacuum| {
            let mut pages = vacuum.query([])?;
            while pages.next()?.is_some() {}
            Ok(())
        });
        while let Ok(mut job) = jobs.recv() {
            if matches!(job, Job::Uses) {
                match jobs.recv_timeout(USES_WAIT) {
                    Ok(next) => job = next,
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
                }
            }
            let more = jobs.try_iter().take(GROUP);
            let group: Vec<Put> = [job].into_iter().chain(more).filter_map(Job::put).collect();
            let size = group.iter().map(|put| put.size).sum();
            self.write(&group);
            self.waiting.fetch_sub(size, Relaxed);
        }
    }

    /// Writes a group, with the uses that are known.
    fn write(&mut self, group: &[Put]) {
        if self.common.is_over() {
            return;
        }
        if let Err(error) = self.attempt(group) {
            self.common.failed(&error);
        }
    }

    fn attempt(&mut self, group: &[Put]) -> rusqlite::Result<()> {
        let now = self.common.clock.now();
        // Made bytes before the file is taken: others wait for it.
        let bodies: Vec<(&Put, Vec<u8>)> =
            group.iter().filter_map(|put| Some((put, body::write(&put.answer)?))).collect();
        let change = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for (put, body) in bodies.iter().filter(|(_, body)| (body.len() + AROUND) as i64 <= self.limit) {
            insert(&change, put, body)?;
        }
        for (key, used) in self.common.take_uses() {
            let mut statement = change.prepare_cached("update answers set used = max(used, ?2) where key = ?1")?;
            statement.execute(params![key, used])?;
        }
        let sweep = now.saturating_sub(self.swept) >= SWEEP_EVERY;
        if sweep {
            change.prepare_cached("delete from answers where expires <= ?1")?.execute([now])?;
        }
        make_room(&change, self.limit)?;
        change.commit()?;
        if sweep {
            self.swept = now;
        }
        Ok(())
    }
}

impl Job {
    fn put(self) -> Option<Put> {
        match self {
            Self::Put(put) => Some(put),
            Self::Uses => None,
        }
    }
}

fn insert(change: &Transaction<'_>, put: &Put, body: &[u8]) -> rusqlite::Result<()> {
    let sql = "insert into answers (key, body, guard, bytes, made, expires, used) values (?1, ?2, ?3, ?4, ?5, ?6, ?5)
               on conflict (key) do update set body = ?2, guard = ?3, bytes = ?4, made = ?5, expires = ?6, used = ?5";
    let bytes = (body.len() + AROUND) as i64;
    let guard = guard(&put.key, body);
    change.prepare_cached(sql)?.execute(params![put.key, body, guard, bytes, put.made, put.expires])?;
    Ok(())
}

/// Removes the least recently used until the others fit.
fn make_room(change: &Transaction<'_>, limit: i64) -> rusqlite::Result<()> {
    let all: i64 = change.prepare_cached("select bytes from room")?.query_row([], |row| row.get(0))?;
    let (mut over, mut gone) = (all - limit, Vec::new());
    if over > 0 {
        let mut oldest = change.prepare_cached("select number, bytes from answers order by used, number")?;
        let mut rows = oldest.query([])?;
        while let Some(row) = rows.next()?.filter(|_| over > 0) {
            gone.push(row.get::<_, i64>(0)?);
            over -= row.get::<_, i64>(1)?;
        }
    }
    let mut delete = change.prepare_cached("delete from answers where number = ?1")?;
    gone.into_iter().try_for_each(|number| delete.execute([number]).map(drop))
}
