//! The one thread that writes. What waits is committed in one go: while the disk flushes one group, the next gathers.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{Access, Options, SWEPT, connect, fault, place::Place, reader, schema, settle};
use crate::{
    chain::{self, Digest},
    clock::Clock,
    engine::{Append, Appended, Archive, NewStream, Reply, Snapshot},
    error::StoreError,
    figures::Gauges,
    followers::Followers,
    guard,
    jobs::{Answer, Asker, Done, Gate, Group, Job, Jobs, Pace, Waiting},
    record::{Head, Stream, StreamId},
};

/// Streams whose heads are kept in memory.
const HEADS: usize = 16_384;
/// Between two looks at who has come back.
const PAUSE: Duration = Duration::from_micros(20);

/// The thread.
#[derive(Debug)]
pub(super) struct Writer {
    asker: Option<Asker>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(options: &Options, gauges: Arc<Gauges>, followers: Arc<Followers>) -> Result<Self, StoreError> {
        let access = Access::Write { flush: options.flush, log_pages: options.log_pages };
        let mut connection = connect(&options.file, access)?;
        schema::migrate(&mut connection)?;
        settle::make_room(&options.file, options.log_pages);
        let unswept = unswept(&connection)?;
        let place = Place::of(&options.file)?;
        let (asker, asked) = Asker::new(Gate::new(options.waiting, options.waiting_bytes));
        let file = options.file.clone();
        let heads = Heads { heads: HashMap::new(), version: 0 };
        let (connection, clock) = (Some(connection), options.clock.clone());
        let mut work = Work { file, place, access, connection, heads, unswept, clock, gauges, followers };
        let thread = thread::Builder::new().name("store-write".to_owned()).spawn(move || work.run(asked));
        let thread = thread.map_err(|error| StoreError::Io(error.to_string()))?;
        Ok(Self { asker: Some(asker), thread: Some(thread) })
    }

    pub(super) fn ask<T: Send + 'static>(&self, bytes: usize, job: impl FnOnce(Answer<T>) -> Job) -> Reply<T> {
        self.asker.as_ref().expect("the writer is closed when it is dropped").ask(bytes, job)
    }

    /// How much may wait, and does.
    pub(super) fn gate(&self) -> Option<&Gate> {
        self.asker.as_ref().map(Asker::gate)
    }
}

impl Drop for Writer {
    /// What was handed over is still written.
    fn drop(&mut self) {
        self.asker = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Streams as they stand after all that was committed, and `version`, by which another process's changes show.
#[derive(Default)]
struct Heads {
    heads: HashMap<StreamId, Known>,
    version: i64,
}

/// A stream as the next job finds it.
#[derive(Debug, Clone)]
struct Known {
    key: i64,
    stream: Stream,
    changed: bool,
}

struct Work {
    file: PathBuf,
    place: Place,
    access: Access,
    /// None after the disk has failed, until it can be opened again.
    connection: Option<Connection>,
    heads: Heads,
    /// Whose rows an archive holds and nobody has removed, and up to which.
    unswept: Vec<(StreamId, u64)>,
    clock: Clock,
    gauges: Arc<Gauges>,
    followers: Arc<Followers>,
}

impl Work {
    fn run(&mut self, mut asked: mpsc::UnboundedReceiver<Waiting>) {
        let mut pace = Pace::default();
        loop {
            let first = match self.unswept.is_empty() {
                true => asked.blocking_recv(),
                false => match asked.try_recv() {
                    Err(mpsc::error::TryRecvError::Empty) => {
                        self.sweep();
                        continue;
                    }
                    first => first.ok(),
                },
            };
            let Some(first) = first else { break };
            let (mut group, start) = (Group::of(first, &mut asked), Instant::now());
            while pace.waits(&group, start) {
                thread::sleep(PAUSE);
                group.fill(&mut asked);
            }
            let (bytes, group, start) = (group.bytes(), group.jobs(), Instant::now());
            let count = group.len();
            self.write(group);
            pace = Pace::after(count, bytes, asked.len(), start.elapsed());
            if !self.unswept.is_empty() {
                self.sweep();
            }
        }
    }

    /// Removes some rows that an archive holds. What cannot be removed now is removed after the next start.
    fn sweep(&mut self) {
        let Some((stream, last)) = self.unswept.last() else { return };
        let step = |connection: &mut Connection| -> Result<bool, StoreError> {
            let change = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fault)?;
            let done = sweep(&change, stream, *last)?;
            change.commit().map_err(fault)?;
            Ok(done)
        };
        match self.connection.as_mut().map_or(Ok(true), step) {
            Ok(false) => {}
            Ok(true) => drop(self.unswept.pop()),
            Err(error) => {
                tracing::warn!("rows that an archive holds could not be removed: {error}");
                self.unswept.clear();
            }
        }
    }

    /// Writes a group, and answers all who wait for it.
    fn write(&mut self, mut group: Jobs) {
        let jobs: Vec<&Job> = group.iter().map(|(job, _)| job).collect();
        let start = Instant::now();
        match self.commit(&jobs) {
            Ok(outcomes) => {
                if self.gauges.is_refusing() {
                    tracing::info!("records can be written again");
                }
                let records = jobs.iter().zip(&outcomes).filter_map(|(job, outcome)| job.appended(outcome));
                self.gauges.committed(records, start.elapsed());
                for ((job, place), outcome) in group.into_iter().zip(outcomes) {
                    drop(place);
                    self.answer(job, outcome);
                }
            }
            // One of them is at fault: the half that it is not in is written.
            Err(StoreError::Duplicate | StoreError::Damaged(_)) if group.len() > 1 => {
                let rest = group.split_off(group.len() / 2);
                self.write(group);
                self.write(rest);
            }
            Err(error) => {
                self.gauges.failed(&error);
                for (job, _) in group {
                    self.gauges.job_failed(&job, &error);
                    job.fail(error.clone());
                }
            }
        }
    }

    fn answer(&mut self, job: Job, outcome: Result<Done, StoreError>) {
        match (job, outcome) {
            (job, Err(error)) => {
                self.gauges.job_failed(&job, &error);
                job.fail(error);
            }
            (Job::Create(_, answer), Ok(Done::Created(stream))) => drop(answer.send(Ok(stream))),
            (Job::Append(append, answer), Ok(Done::Appended(appended))) => {
                if !appended.repeated {
                    self.followers.tell(&append.stream, appended.last);
                }
                drop(answer.send(Ok(appended)));
            }
            (Job::Snapshot(_, _, _, answer), Ok(Done::Kept)) => drop(answer.send(Ok(()))),
            (Job::Seal(archive, answer), Ok(Done::Kept)) => {
                self.unswept.extend(archive.parts.into_iter().map(|part| (part.stream, part.last.sequence)));
                drop(answer.send(Ok(())));
            }
            (job, Ok(_)) => job.fail(StoreError::Closed),
        }
    }

    /// Does all jobs in one transaction. The inner results are those of jobs that are refused; an error is of the group,
    /// and then nothing of it was done.
    fn commit(&mut self, jobs: &[&Job]) -> Result<Vec<Result<Done, StoreError>>, StoreError> {
        // Nothing is acknowledged into a file that has no name any more.
        if let Err(error) = self.place.check() {
            self.report(&error);
            return Err(error);
        }
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                settle::settle(&self.file)?;
                connect(&self.file, self.access)?
            }
        };
        let outcome = attempt(&mut connection, jobs, &mut self.heads, &self.clock);
        match &outcome {
            Ok(_) => self.connection = Some(connection),
            Err(error) => {
                self.heads = Heads::default();
                // After a failed flush nobody knows what the kernel holds: read from the disk again.
                let kept = matches!(error, StoreError::Duplicate | StoreError::DiskFull | StoreError::Unreachable(_));
                self.connection = kept.then_some(connection);
                self.report(error);
            }
        }
        outcome
    }

    /// Logs a failure: the first as an error; those that follow it in the same state, with each retry, and ids that
    /// callers send twice, for debugging.
    fn report(&self, error: &StoreError) {
        match self.gauges.is_refusing() || *error == StoreError::Duplicate {
            false => tracing::error!("what was to be recorded was not: {error}"),
            true => tracing::debug!("what was to be recorded was not: {error}"),
        }
    }
}

fn attempt(
    connection: &mut Connection,
    jobs: &[&Job],
    heads: &mut Heads,
    clock: &Clock,
) -> Result<Vec<Result<Done, StoreError>>, StoreError> {
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fault)?;
    let version = change.pragma_query_value(None, "data_version", |row| row.get(0)).map_err(fault)?;
    if version != heads.version || heads.heads.len() > HEADS {
        *heads = Heads { heads: HashMap::new(), version };
    }
    let mut outcomes = Vec::with_capacity(jobs.len());
    for job in jobs {
        let outcome = match job {
            Job::Create(new, _) => create(&change, heads, new, clock).map(|made| made.map(Done::Created)),
            Job::Append(append, _) => self::append(&change, heads, append, clock).map(|made| made.map(Done::Appended)),
            Job::Snapshot(id, snapshot, replace, _) => {
                keep(&change, id, snapshot, *replace).map(|made| made.map(|()| Done::Kept))
            }
            Job::Seal(archive, _) => seal(&change, heads, archive).map(|made| made.map(|()| Done::Kept)),
        };
        outcomes.push(outcome?);
    }
    heads.write(&change)?;
    change.commit().map_err(fault)?;
    Ok(outcomes)
}

impl Heads {
    /// The stream as it stands, with what jobs of this group have done to it.
    fn find(&mut self, change: &Transaction<'_>, id: &StreamId) -> Result<Option<&mut Known>, StoreError> {
        if !self.heads.contains_key(id) {
            let Some((key, stream)) = reader::keyed(change, id)? else { return Ok(None) };
            // What is appended next is chained to this: a damaged head would be carried on.
            if reader::link_at(change, key, &stream, stream.head.sequence)? != stream.head.chain {
                return Err(StoreError::Damaged(format!("the head of {} {}", id.space, id.name)));
            }
            self.heads.insert(id.clone(), Known { key, stream, changed: false });
        }
        Ok(self.heads.get_mut(id))
    }

    /// Writes the heads that have changed, each once.
    fn write(&mut self, change: &Transaction<'_>) -> Result<(), StoreError> {
        let sql = "update streams set sequence = ?2, time = ?3, chain = ?4, guard = ?5 where key = ?1";
        let mut statement = change.prepare_cached(sql).map_err(fault)?;
        for known in self.heads.values_mut().filter(|known| known.changed) {
            let Head { sequence, time, chain } = known.stream.head;
            let guard = guard::stream(known.key, &known.stream);
            statement.execute(params![known.key, sequence, time, chain, guard]).map_err(fault)?;
            known.changed = false;
        }
        Ok(())
    }
}

/// What a job is answered, within what the group is.
type Outcome<T> = Result<Result<T, StoreError>, StoreError>;

fn create(change: &Transaction<'_>, heads: &mut Heads, new: &NewStream, clock: &Clock) -> Outcome<Stream> {
    if heads.find(change, &new.id)?.is_some() {
        return Ok(Err(StoreError::Exists(new.id.clone())));
    }
    let created = clock.now();
    let chain = chain::origin(&new.id, created, &new.meta);
    let head = Head { sequence: 0, time: created, chain };
    let stream = Stream { id: new.id.clone(), meta: new.meta.clone(), created, head, sealed: 0 };
    // The guard is over the key too: it is written with the head.
    let sql = "insert into streams (space, name, meta, created, sequence, time, chain, sealed, guard)
               values (?1, ?2, ?3, ?4, 0, ?4, ?5, 0, zeroblob(32))";
    let mut statement = change.prepare_cached(sql).map_err(fault)?;
    let values = params![new.id.space, new.id.name, &new.meta[..], created, chain];
    let key = statement.insert(values).map_err(fault)?;
    heads.heads.insert(new.id.clone(), Known { key, stream: stream.clone(), changed: true });
    Ok(Ok(stream))
}

fn append(change: &Transaction<'_>, heads: &mut Heads, append: &Append, clock: &Clock) -> Outcome<Appended> {
    let Some(known) = heads.find(change, &append.stream)? else {
        return Ok(Err(StoreError::NoStream(append.stream.clone())));
    };
    if let Some(key) = &append.key
        && let Some(before) = repeated(change, known, &key.name)?
    {
        let (request, appended) = before;
        return Ok(if request == key.request { Ok(appended) } else { Err(StoreError::KeyReused) });
    }
    let Head { sequence, time, chain } = known.stream.head;
    if let Some(expected) = append.expected.filter(|expected| *expected != sequence) {
        return Ok(Err(StoreError::Version { stream: append.stream.clone(), expected, actual: sequence }));
    }
    let time = clock.after(time);
    let mut head = Head { sequence, time, chain };
    let sql = "insert into records (stream, sequence, time, id, kind, meta, body, digest, chain)
               values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let mut records = change.prepare_cached(sql).map_err(fault)?;
    let mut ids = change.prepare_cached("insert into ids (id, stream, sequence) values (?1, ?2, ?3)").map_err(fault)?;
    for record in &append.records {
        head.sequence += 1;
        let leaf = chain::leaf(head.sequence, time, &record.id, &record.kind, &record.meta, &record.digest);
        head.chain = chain::link(&head.chain, &leaf);
        let id = record.id.as_bytes();
        ids.execute(params![id, known.key, head.sequence]).map_err(fault)?;
        let (kind, meta, body) = (&record.kind, &record.meta[..], &record.body[..]);
        let values = params![known.key, head.sequence, time, id, kind, meta, body, record.digest, head.chain];
        records.execute(values).map_err(fault)?;
    }
    let (first, last) = (sequence + 1, head.sequence);
    known.stream.head = head;
    known.changed = true;
    if let Some(key) = &append.key {
        let sql = "insert into repeats (stream, name, request, first, last, guard) values (?1, ?2, ?3, ?4, ?5, ?6)";
        let mut statement = change.prepare_cached(sql).map_err(fault)?;
        let guard = guard::repeat(known.key, &key.name, &key.request, first, last);
        statement.execute(params![known.key, key.name, key.request, first, last, guard]).map_err(fault)?;
    }
    Ok(Ok(Appended { first, last, time, chain: head.chain, repeated: false }))
}

/// What became of the append that had this key, and what it asked for.
fn repeated(change: &Transaction<'_>, known: &Known, name: &str) -> Result<Option<(Digest, Appended)>, StoreError> {
    let sql = "select request, first, last, guard from repeats where stream = ?1 and name = ?2";
    let mut statement = change.prepare_cached(sql).map_err(fault)?;
    let found = statement.query_row(params![known.key, name], |row| {
        Ok((row.get::<_, Digest>(0)?, row.get::<_, u64>(1)?, row.get::<_, u64>(2)?, row.get::<_, Digest>(3)?))
    });
    let Some((request, first, last, guard)) = found.optional().map_err(fault)? else { return Ok(None) };
    if guard::repeat(known.key, name, &request, first, last) != guard {
        return Err(StoreError::Damaged(format!("what is kept of the idempotency key {name}")));
    }
    // The record may be in an archive by now; its time is the caller's to read there.
    let sql = "select time, chain from records where stream = ?1 and sequence = ?2";
    let mut statement = change.prepare_cached(sql).map_err(fault)?;
    let found = statement.query_row(params![known.key, last], |row| Ok((row.get(0)?, row.get(1)?)));
    let (time, chain) = found.optional().map_err(fault)?.unwrap_or((0, [0; 32]));
    Ok(Some((request, Appended { first, last, time, chain, repeated: true })))
}

fn keep(change: &Transaction<'_>, id: &StreamId, snapshot: &Snapshot, replace: bool) -> Outcome<()> {
    let Some((key, stream)) = reader::keyed(change, id)? else { return Ok(Err(StoreError::NoStream(id.clone()))) };
    let Snapshot { sequence, body } = snapshot;
    if *sequence > stream.head.sequence {
        return Ok(Ok(()));
    }
    let guard = guard::snapshot(key, *sequence, body);
    let sql = "insert into snapshots (stream, sequence, body, guard) values (?1, ?2, ?3, ?4)
               on conflict (stream) do update set sequence = ?2, body = ?3, guard = ?4 where sequence < ?2 or ?5";
    let mut statement = change.prepare_cached(sql).map_err(fault)?;
    statement.execute(params![key, sequence, &body[..], guard, replace]).map_err(fault)?;
    Ok(Ok(()))
}

fn seal(change: &Transaction<'_>, heads: &mut Heads, archive: &Archive) -> Outcome<()> {
    for part in &archive.parts {
        let Some(known) = heads.find(change, &part.stream)? else {
            return Ok(Err(StoreError::NoStream(part.stream.clone())));
        };
        let (first, last) = (part.first, part.last.sequence);
        let follows = known.stream.sealed + 1 == first && first <= last && last <= known.stream.head.sequence;
        if !follows || reader::link_at(change, known.key, &known.stream, last)? != part.last.chain {
            return Ok(Err(StoreError::NotSealed(part.stream.clone())));
        }
    }
    let note = &archive.note;
    let sql = match archive.parts.is_empty() {
        true => "update archives set time = ?2, records = ?3, bytes = ?4, digest = ?5, guard = ?6 where file = ?1",
        false => "insert into archives (file, time, records, bytes, digest, guard) values (?1, ?2, ?3, ?4, ?5, ?6)",
    };
    let mut statement = change.prepare_cached(sql).map_err(fault)?;
    let values = params![note.file, note.time, note.records, note.bytes, note.digest, guard::archive(note)];
    statement.execute(values).map_err(fault)?;
    let sql = "insert into sealed (stream, first, last, chain, file, ids, swept, guard)
               values (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7)";
    let mut sealed = change.prepare_cached(sql).map_err(fault)?;
    let mut streams = change.prepare_cached("update streams set sealed = ?2 where key = ?1").map_err(fault)?;
    for part in &archive.parts {
        let Some(known) = heads.find(change, &part.stream)? else { continue };
        let last = part.last.sequence;
        let chain = &part.last.chain;
        let ids = ids(change, known.key, part.first, last)?;
        let guard = guard::sealed(known.key, part.first, last, chain, &note.file, &ids);
        sealed.execute(params![known.key, part.first, last, chain, note.file, ids, guard]).map_err(fault)?;
        streams.execute(params![known.key, last]).map_err(fault)?;
        known.stream.sealed = last;
    }
    Ok(Ok(()))
}

/// What the ids of some records come to.
fn ids(change: &Transaction<'_>, key: i64, first: u64, last: u64) -> Result<Digest, StoreError> {
    let sql = "select id from records where stream = ?1 and sequence between ?2 and ?3 order by sequence";
    let mut statement = change.prepare_cached(sql).map_err(fault)?;
    let mut found = statement.query(params![key, first, last]).map_err(fault)?;
    let mut ids = guard::Ids::default();
    while let Some(row) = found.next().map_err(fault)? {
        ids.add(&Uuid::from_bytes(row.get(0).map_err(fault)?));
    }
    Ok(ids.digest())
}

/// Removes some rows that an archive holds, and tells whether that was all.
fn sweep(change: &Transaction<'_>, id: &StreamId, last: u64) -> Result<bool, StoreError> {
    let Some((key, stream)) = reader::keyed(change, id)? else { return Ok(true) };
    let sql = "delete from records where position in
               (select position from records where stream = ?1 and sequence <= ?2 limit ?3)";
    let mut statement = change.prepare_cached(sql).map_err(fault)?;
    let last = last.min(stream.sealed);
    if statement.execute(params![key, last, SWEPT]).map_err(fault)? > 0 {
        return Ok(false);
    }
    let sql = "update sealed set swept = 1 where stream = ?1 and last <= ?2";
    let mut statement = change.prepare_cached(sql).map_err(fault)?;
    statement.execute(params![key, last]).map_err(fault)?;
    Ok(true)
}

/// What an archive holds and nobody has removed: whoever sealed it was cut off.
fn unswept(connection: &Connection) -> Result<Vec<(StreamId, u64)>, StoreError> {
    let sql = "select s.space, s.name, max(a.last) from sealed a join streams s on s.key = a.stream
               where a.swept = 0 group by a.stream";
    let mut statement = connection.prepare(sql).map_err(fault)?;
    let found = statement.query_map([], |row| Ok((StreamId { space: row.get(0)?, name: row.get(1)? }, row.get(2)?)));
    found.and_then(Iterator::collect).map_err(fault)
}
