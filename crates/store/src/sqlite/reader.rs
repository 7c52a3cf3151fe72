//! Threads that read, each with a connection of its own. What they give back has been checked against its hashes.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use bytes::Bytes;
use futures_util::FutureExt;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{Access, connect, fault, rows};
use crate::{
    chain::Digest,
    engine::{ArchiveNote, List, Order, Page, Range, Reply, Sealed, Snapshot},
    error::StoreError,
    figures::Gauges,
    guard,
    record::{Record, Stream, StreamId},
    verified::verified,
};

type Question = Box<dyn FnOnce(&Connection) + Send>;

/// The threads.
#[derive(Debug)]
pub(super) struct Readers {
    /// None once they are to end.
    questions: Option<mpsc::Sender<Question>>,
    threads: Vec<JoinHandle<()>>,
    awaited: Arc<AtomicUsize>,
    gauges: Arc<Gauges>,
}

impl Readers {
    pub(super) fn start(file: &Path, count: usize, gauges: &Arc<Gauges>) -> Result<Self, StoreError> {
        Self::start_as(Access::Read, file, count, gauges)
    }

    pub(super) fn start_as(
        access: Access,
        file: &Path,
        count: usize,
        gauges: &Arc<Gauges>,
    ) -> Result<Self, StoreError> {
        let (questions, asked) = mpsc::channel::<Question>();
        let asked = Arc::new(Mutex::new(asked));
        let mut threads = Vec::with_capacity(count);
        for number in 0..count {
            let connection = connect(file, access)?;
            let (asked, gauges) = (Arc::clone(&asked), Arc::clone(gauges));
            let work = move || {
                // The lock is held while waiting: one waits for a question, the others for the lock.
                while let Ok(question) = { asked.lock().unwrap_or_else(PoisonError::into_inner).recv() } {
                    gauges.busy.fetch_add(1, Relaxed);
                    question(&connection);
                    gauges.busy.fetch_sub(1, Relaxed);
                }
            };
            let thread = thread::Builder::new().name(format!("store-read-{number}"));
            threads.push(thread.spawn(work).map_err(|error| StoreError::Io(error.to_string()))?);
        }
        Ok(Self { questions: Some(questions), threads, awaited: Arc::default(), gauges: Arc::clone(gauges) })
    }

    pub(super) fn count(&self) -> usize {
        self.threads.len()
    }

    pub(super) fn awaited(&self) -> usize {
        self.awaited.load(Relaxed)
    }

    /// Has a thread find out.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        name: &'static str,
        find: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Reply<T> {
        let (reply, found) = oneshot::channel();
        let (awaited, gauges) = (Arc::clone(&self.awaited), Arc::clone(&self.gauges));
        awaited.fetch_add(1, Relaxed);
        let question: Question = Box::new(move |connection| {
            awaited.fetch_sub(1, Relaxed);
            // Who has gone away needs no answer.
            if !reply.is_closed() {
                let start = Instant::now();
                let found = find(connection);
                gauges.statement(name, start.elapsed());
                let _ = reply.send(found);
            }
        });
        let asked =
            self.questions.as_ref().and_then(|questions| questions.send(question).ok()).ok_or(StoreError::Closed);
        async move {
            asked?;
            found.await.unwrap_or(Err(StoreError::Closed))
        }
        .boxed()
    }

    /// Does what takes long on a thread of its own.
    pub(super) fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Reply<T> {
        let (reply, done) = oneshot::channel();
        let thread = thread::Builder::new().name("store-aside".to_owned());
        let begun = thread.spawn(move || {
            let _ = reply.send(work());
        });
        async move {
            begun.map_err(|error| StoreError::Io(error.to_string()))?;
            done.await.unwrap_or(Err(StoreError::Closed))
        }
        .boxed()
    }
}

impl Drop for Readers {
    /// Whoever closes the database last tidies up beside it: nobody does so later, when the place may be another's.
    fn drop(&mut self) {
        self.questions = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The stream's key and itself.
pub(super) fn keyed(connection: &Connection, id: &StreamId) -> Result<Option<(i64, Stream)>, StoreError> {
    let sql = format!("select {} from streams where space = ?1 and name = ?2", rows::STREAM);
    let mut statement = connection.prepare_cached(&sql).map_err(fault)?;
    statement.query_row(params![id.space, id.name], rows::stream).optional().map_err(fault)
}

pub(super) fn stream(connection: &Connection, id: &StreamId) -> Result<Option<Stream>, StoreError> {
    Ok(keyed(connection, id)?.map(|(_, stream)| stream))
}

pub(super) fn streams(connection: &Connection, list: &List) -> Result<Page, StoreError> {
    let order = match list.order {
        Order::Newest => "created desc, key desc",
        Order::Oldest => "created, key",
        Order::Longest => "sequence desc, key",
        Order::Shortest => "sequence, key",
    };
    let among = "from streams where space = ?1 and (?2 is null or (sequence > sealed and time <= ?2))";
    let sql = format!("select {} {among} order by {order} limit ?3 offset ?4", rows::STREAM);
    let mut statement = connection.prepare_cached(&sql).map_err(fault)?;
    let found = statement
        .query_map(params![list.space, list.idle_since, list.limit, list.offset], rows::stream)
        .and_then(|found| found.map(|row| row.map(|(_, stream)| stream)).collect());
    let streams = found.map_err(fault)?;
    let mut statement = connection.prepare_cached(&format!("select count(*) {among}")).map_err(fault)?;
    let total = statement.query_row(params![list.space, list.idle_since], |row| row.get(0)).map_err(fault)?;
    Ok(Page { streams, total })
}

pub(super) fn read(connection: &Connection, id: &StreamId, range: &Range) -> Result<Vec<Record>, StoreError> {
    // One look at the database: between two statements, an archive could take the rows away.
    let look = connection.unchecked_transaction().map_err(fault)?;
    let (key, stream) = keyed(&look, id)?.ok_or_else(|| StoreError::NoStream(id.clone()))?;
    let kind = range.kind.as_deref();
    let and_kind = if kind.is_some() { "and kind = ?4" } else { "and ?4 is null" };
    let sql = format!(
        "select {} from records where stream = ?1 and sequence > ?2 {and_kind} order by sequence limit ?3",
        rows::RECORD
    );
    // No record stands beyond what a column holds.
    let after = range.after.max(stream.sealed).min(i64::MAX as u64);
    let mut statement = look.prepare_cached(&sql).map_err(fault)?;
    let mut found = statement.query(params![key, after, range.limit, kind]).map_err(fault)?;
    let (mut records, mut bytes, mut cut) = (Vec::new(), 0, false);
    let mut before: Option<(u64, Digest)> = None;
    while let Some(row) = found.next().map_err(fault)? {
        let record = rows::record(row).map_err(fault)?;
        bytes += record.body.len() + record.meta.len();
        if bytes > range.bytes && !records.is_empty() {
            cut = true;
            break;
        }
        let place = record.sequence - 1;
        let link = match before {
            Some((sequence, link)) if sequence == place => link,
            _ => link_at(&look, key, &stream, place)?,
        };
        verified(&stream.id, &link, &record)?;
        before = Some((record.sequence, record.chain));
        records.push(record);
    }
    let reached = before.map_or(after, |(sequence, _)| sequence);
    let ends = !cut && records.len() < range.limit as usize;
    let until = if ends { stream.head.sequence.max(reached) } else { reached };
    check_all_there(&look, key, &stream, Looked { after, reached, until, by_kind: kind.is_some() })?;
    Ok(records)
}

/// What a read has looked through: the records after `after` up to `until`, of which `reached` was the last that was found.
struct Looked {
    after: u64,
    reached: u64,
    until: u64,
    by_kind: bool,
}

/// Refuses what lacks records. The link of a record shows that one before it is missing; that the last ones are missing
/// shows by the stream's head alone, and among records of one kind by their number.
fn check_all_there(look: &Connection, key: i64, stream: &Stream, looked: Looked) -> Result<(), StoreError> {
    let Looked { after, reached, until, by_kind } = looked;
    let missing =
        |which: u64| StoreError::Damaged(format!("{} {} has no record {which}", stream.id.space, stream.id.name));
    if !by_kind {
        return if reached < until { Err(missing(reached + 1)) } else { Ok(()) };
    }
    let sql = "select count(*) from records where stream = ?1 and sequence > ?2 and sequence <= ?3";
    let mut statement = look.prepare_cached(sql).map_err(fault)?;
    let count: u64 = statement.query_row(params![key, after, until], |row| row.get(0)).map_err(fault)?;
    if count == until.saturating_sub(after) {
        return Ok(());
    }
    // The first that is missing follows the last of those that stand in their places.
    let sql =
        "select min(?2 + place) from (select sequence, row_number() over (order by sequence) as place from records
               where stream = ?1 and sequence > ?2 and sequence <= ?3) where sequence <> ?2 + place";
    let first: Option<u64> = look.query_row(sql, params![key, after, until], |row| row.get(0)).map_err(fault)?;
    Err(missing(first.unwrap_or(after + count + 1)))
}

/// The chain's link of the record at `sequence`, wherever that is.
pub(super) fn link_at(connection: &Connection, key: i64, stream: &Stream, sequence: u64) -> Result<Digest, StoreError> {
    if sequence == 0 {
        return Ok(stream.origin());
    }
    let sql = match sequence > stream.sealed {
        true => "select chain from records where stream = ?1 and sequence = ?2",
        false => "select chain from sealed where stream = ?1 and last = ?2",
    };
    let mut statement = connection.prepare_cached(sql).map_err(fault)?;
    let link = statement.query_row(params![key, sequence], |row| row.get(0)).optional().map_err(fault)?;
    link.ok_or_else(|| StoreError::Damaged(format!("{} {} has no record {sequence}", stream.id.space, stream.id.name)))
}

pub(super) fn find(connection: &Connection, id: Uuid) -> Result<Option<(StreamId, u64)>, StoreError> {
    let sql = "select s.space, s.name, i.sequence from ids i join streams s on s.key = i.stream where i.id = ?1";
    let mut statement = connection.prepare_cached(sql).map_err(fault)?;
    let found = statement
        .query_row(params![id.as_bytes()], |row| Ok((StreamId { space: row.get(0)?, name: row.get(1)? }, row.get(2)?)));
    found.optional().map_err(fault)
}

pub(super) fn snapshot(connection: &Connection, id: &StreamId) -> Result<Option<Snapshot>, StoreError> {
    let Some((key, _)) = keyed(connection, id)? else { return Ok(None) };
    let sql = "select sequence, body, guard from snapshots where stream = ?1";
    let mut statement = connection.prepare_cached(sql).map_err(fault)?;
    let found = statement.query_row(params![key], |row| {
        Ok((row.get::<_, u64>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, Digest>(2)?))
    });
    let found = found.optional().map_err(fault)?;
    // It is made of records: one that is damaged is not missed.
    let whole = |(sequence, body, guard): &(u64, Vec<u8>, Digest)| guard::snapshot(key, *sequence, body) == *guard;
    Ok(found.filter(whole).map(|(sequence, body, _)| Snapshot { sequence, body: Bytes::from(body) }))
}

pub(super) fn archives(connection: &Connection) -> Result<Vec<ArchiveNote>, StoreError> {
    let sql = "select file, time, records, bytes, digest from archives order by time, file";
    let mut statement = connection.prepare_cached(sql).map_err(fault)?;
    let found = statement.query_map([], |row| {
        Ok(ArchiveNote {
            file: row.get(0)?,
            time: row.get(1)?,
            records: row.get(2)?,
            bytes: row.get(3)?,
            digest: row.get(4)?,
        })
    });
    found.and_then(Iterator::collect).map_err(fault)
}

pub(super) fn sealed(connection: &Connection, id: &StreamId) -> Result<Vec<Sealed>, StoreError> {
    let (key, _) = keyed(connection, id)?.ok_or_else(|| StoreError::NoStream(id.clone()))?;
    let sql = "select file, first, last, chain from sealed where stream = ?1 order by first";
    let mut statement = connection.prepare_cached(sql).map_err(fault)?;
    let found = statement.query_map(params![key], |row| {
        Ok(Sealed { file: row.get(0)?, first: row.get(1)?, last: row.get(2)?, chain: row.get(3)? })
    });
    found.and_then(Iterator::collect).map_err(fault)
}

/// What SQLite finds wrong with its pages and indexes, and what stands in them that no chain covers.
pub(super) fn check(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let mut wrong: Vec<String> = Vec::new();
    {
        let mut statement = connection.prepare("pragma integrity_check(100)").map_err(fault)?;
        let mut found = statement.query([]).map_err(fault)?;
        loop {
            match found.next() {
                Ok(Some(row)) => match row.get::<_, String>(0) {
                    Ok(words) if words == "ok" => {}
                    Ok(words) => wrong.push(words),
                    Err(error) => wrong.push(error.to_string()),
                },
                Ok(None) => break,
                Err(error) => {
                    wrong.push(error.to_string());
                    break;
                }
            }
        }
    }
    for (what, sql) in CHECKS {
        let count = connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        match count {
            Ok(0) => {}
            Ok(count) => wrong.push(format!("{what}: {count}")),
            Err(error) => wrong.push(format!("{what}: {error}")),
        }
    }
    let mut guarded = |table: &str, sql: &str, parts: usize| {
        let looked = connection.prepare(sql).and_then(|mut statement| {
            let mut found = statement.query([])?;
            let mut broken = 0;
            while let Some(row) = found.next()? {
                let parts: Vec<Vec<u8>> = (0..parts).map(|column| as_bytes(row, column)).collect::<Result<_, _>>()?;
                let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
                let guard: Vec<u8> = row.get(parts.len())?;
                broken += usize::from(guard::guard(&parts)[..] != guard[..]);
            }
            Ok(broken)
        });
        match looked {
            Ok(0) => {}
            Ok(broken) => wrong.push(format!("rows of {table} that were changed: {broken}")),
            Err(error) => wrong.push(format!("{table}: {error}")),
        }
    };
    guarded("repeats", "select stream, name, request, first, last, guard from repeats", 5);
    guarded("snapshots", "select stream, sequence, body, guard from snapshots", 3);
    guarded("streams", "select key, space, name, meta, created, sequence, time, chain, guard from streams", 8);
    guarded("archives", "select file, time, records, bytes, digest, guard from archives", 5);
    guarded("sealed", "select stream, first, last, chain, file, ids, guard from sealed", 6);
    match changed_ids(connection) {
        Ok(0) => {}
        Ok(broken) => wrong.push(format!("archives whose records had other ids: {broken}")),
        Err(error) => wrong.push(format!("ids: {error}")),
    }
    Ok(wrong)
}

fn changed_ids(connection: &Connection) -> rusqlite::Result<usize> {
    let sql = "select a.stream, a.first, a.ids, i.id
               from sealed a join ids i on i.stream = a.stream and i.sequence between a.first and a.last
               order by a.stream, a.first, i.sequence";
    let mut statement = connection.prepare(sql)?;
    let mut found = statement.query([])?;
    let mut parts = guard::Parts::default();
    while let Some(row) = found.next()? {
        parts.add((row.get(0)?, row.get(1)?), &row.get::<_, Digest>(2)?, &Uuid::from_bytes(row.get(3)?));
    }
    Ok(parts.broken())
}

fn as_bytes(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Vec<u8>> {
    Ok(match row.get_ref(column)? {
        rusqlite::types::ValueRef::Integer(number) => number.to_be_bytes().to_vec(),
        rusqlite::types::ValueRef::Text(bytes) | rusqlite::types::ValueRef::Blob(bytes) => bytes.to_vec(),
        rusqlite::types::ValueRef::Real(_) | rusqlite::types::ValueRef::Null => Vec::new(),
    })
}

/// What must be nought.
const CHECKS: [(&str, &str); 8] = [
    (
        "records whose id stands nowhere or elsewhere",
        "select count(*) from records r left join ids i on i.id = r.id
         where i.stream is not r.stream or i.sequence is not r.sequence",
    ),
    (
        "ids without a record",
        "select count(*) from ids i join streams s on s.key = i.stream
         where i.sequence > s.sequence or i.sequence < 1 or (i.sequence > s.sealed and not exists
            (select 1 from records r where r.stream = i.stream and r.sequence = i.sequence and r.id = i.id))",
    ),
    (
        "rows that belong to no stream",
        "select (select count(*) from records where stream not in (select key from streams))
              + (select count(*) from ids where stream not in (select key from streams))
              + (select count(*) from repeats where stream not in (select key from streams))",
    ),
    (
        "streams that are sealed further than their archives go",
        "select count(*) from streams s
         where s.sealed <> coalesce((select max(last) from sealed where stream = s.key), 0)",
    ),
    (
        "streams that do not end with their last record",
        "select count(*) from streams s left join records r on r.stream = s.key and r.sequence = s.sequence
         where s.sequence > s.sealed and (r.time is not s.time or r.chain is not s.chain)",
    ),
    (
        "streams with records missing or beyond their end",
        "select count(*) from streams s left join
            (select stream, count(*) as count, min(sequence) as first, max(sequence) as last from ids group by stream) i
            on i.stream = s.key
         where coalesce(i.count, 0) <> s.sequence or coalesce(i.last, 0) <> s.sequence or coalesce(i.first, 1) <> 1",
    ),
    (
        "records that are there twice",
        "select count(*) from (select 1 from ids group by stream, sequence having count(*) > 1)",
    ),
    ("archives that are not known", "select count(*) from sealed where file not in (select file from archives)"),
];
