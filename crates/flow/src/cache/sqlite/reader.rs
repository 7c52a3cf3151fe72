//! Threads that look answers up, each with a connection of its own.

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension};
use tokio::sync::oneshot;

use super::{Common, file, guard, writer::Waker};
use crate::{
    cache::{Shelved, body},
    key::Key,
};

/// How many.
const READERS: usize = 2;
/// Questions that may wait; who asks beyond finds nothing.
const WAITING: usize = 1_024;
/// Within this time of its last use, in microseconds, a further one is not noted.
const USE_EVERY: i64 = 60_000_000;

type Asked = (Key, oneshot::Sender<Option<Shelved>>);

/// The threads.
pub(super) struct Readers {
    /// None once they are to end.
    questions: Option<mpsc::SyncSender<Asked>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    pub(super) fn start(common: &Arc<Common>, waker: Waker) -> Result<Self, String> {
        let (questions, asked) = mpsc::sync_channel::<Asked>(WAITING);
        let asked = Arc::new(Mutex::new(asked));
        let mut threads = Vec::with_capacity(READERS);
        for number in 0..READERS {
            let connection = file::reading(&common.file).map_err(|error| error.to_string())?;
            let reader = Reader { connection, common: Arc::clone(common), waker: waker.clone() };
            let asked = Arc::clone(&asked);
            let work = move || {
                // The lock is held while waiting: one waits for a question, the others for the lock.
                while let Ok((key, reply)) = { asked.lock().unwrap_or_else(PoisonError::into_inner).recv() } {
                    if !reply.is_closed() {
                        let _ = reply.send(reader.find(&key));
                    }
                }
            };
            let thread = thread::Builder::new().name(format!("cache-read-{number}")).spawn(work);
            threads.push(thread.map_err(|error| error.to_string())?);
        }
        Ok(Self { questions: Some(questions), threads })
    }

    /// Has a thread look; none if too many wait.
    pub(super) fn ask(&self, key: Key) -> Option<oneshot::Receiver<Option<Shelved>>> {
        let (reply, found) = oneshot::channel();
        self.questions.as_ref()?.try_send((key, reply)).ok().map(|()| found)
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.questions = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

struct Reader {
    connection: Connection,
    common: Arc<Common>,
    waker: Waker,
}

impl Reader {
    fn find(&self, key: &Key) -> Option<Shelved> {
        if self.common.is_over() {
            return None;
        }
        let now = self.common.clock.now();
        let found = self.look(key, now).unwrap_or_else(|error| {
            self.common.failed(&error);
            None
        })?;
        let (shelved, used) = found;
        if now.saturating_sub(used) >= USE_EVERY && self.common.used(*key, now) {
            self.waker.wake();
        }
        Some(shelved)
    }

    /// The answer, and when it was last used as far as that is written.
    fn look(&self, key: &Key, now: i64) -> rusqlite::Result<Option<(Shelved, i64)>> {
        let sql = "select body, guard, made, expires, used from answers
                   where key = ?1 and (expires is null or expires > ?2)";
        let mut statement = self.connection.prepare_cached(sql)?;
        let row = statement.query_row((key, now), |row| {
            let (made, expires): (i64, Option<i64>) = (row.get(2)?, row.get(3)?);
            let stored = row.get_ref(0)?.as_blob()?;
            // What is damaged is not there: it is made again and written over.
            let whole = row.get_ref(1)?.as_blob()? == guard(key, stored);
            let Some(answer) = whole.then(|| body::read(stored)).flatten() else { return Ok(None) };
            let left = expires.map(|expires| between(now, expires));
            Ok(Some((Shelved { answer, age: between(made, now), left }, row.get(4)?)))
        });
        row.optional().map(Option::flatten)
    }
}

/// From one moment to a later one; nothing if the clock was put back.
fn between(from: i64, to: i64) -> Duration {
    Duration::from_micros(to.saturating_sub(from).max(0) as u64)
}
