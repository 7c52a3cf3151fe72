//! A group of jobs as one transaction: lock and look (one round trip), compute, write and commit (another).

use std::collections::{BTreeSet, HashMap};

use deadpool_postgres::Object;
use futures_util::future::{join, join4};
use tokio_postgres::{Row, Statement, types::ToSql};
use uuid::Uuid;

use super::{
    fault::Trouble,
    rows::{self, digest, number, signed, text, value},
    writer::{Outcomes, harmless},
};
use crate::{
    chain::{self, Digest},
    clock::Clock,
    engine::{Append, Appended, Key, NewStream, Snapshot},
    error::StoreError,
    guard,
    jobs::{Done, Job},
    record::{Head, Stream, StreamId, Time},
};

/// Heads are locked in the order of their keys: of two groups with the same streams, one waits for the other.
const LOCK: &str = "select from streams where (space, name) in (select * from unnest($1::text[], $2::text[]))
    order by key for no key update";

/// Heads as they stand once they are locked, each with the link that its last record has.
const HEADS: &str = "select {STREAM}, case
        when s.sequence > s.sealed then
            (select r.chain from records r where r.stream = s.key and r.sequence = s.sequence)
        when s.sequence > 0 then
            (select a.chain from sealed a where a.stream = s.key and a.last = s.sequence limit 1)
        end
    from unnest($1::text[], $2::text[]) w (space, name) join streams s on s.space = w.space and s.name = w.name";

/// What became of appends that had the same keys. Their records may be in an archive by now.
const REPEATS: &str = "select s.key, r.name, r.request, r.first, r.last, r.guard, coalesce(e.time, 0), e.chain
    from unnest($1::text[], $2::text[], $3::text[]) w (space, name, key)
    join streams s on s.space = w.space and s.name = w.name
    join repeats r on r.stream = s.key and r.name = w.key
    left join records e on e.stream = s.key and e.sequence = r.last";

const CREATE: &str = "insert into streams (space, name, meta, created, sequence, time, chain, sealed, guard)
    select w.space, w.name, w.meta, w.created, 0, w.created, w.chain, 0, ''
    from unnest($1::text[], $2::text[], $3::bytea[], $4::bigint[], $5::bytea[]) w (space, name, meta, created, chain)
    on conflict (space, name) do nothing returning key, space, name";

const RECORDS: &str = "insert into records (stream, sequence, time, id, kind, meta, body, digest, chain)
    select * from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::uuid[], $5::text[], $6::bytea[], $7::bytea[],
        $8::bytea[], $9::bytea[])";

const IDS: &str = "insert into ids (id, stream, sequence) select * from unnest($1::uuid[], $2::bigint[], $3::bigint[])";

const KEPT_REPEATS: &str = "insert into repeats (stream, name, request, first, last, guard)
    select * from unnest($1::bigint[], $2::text[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bytea[])";

const KEPT_HEADS: &str = "update streams s set sequence = w.sequence, time = w.time, chain = w.chain, guard = w.guard
    from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bytea[], $5::bytea[]) w (key, sequence, time, chain, guard)
    where s.key = w.key";

const KEPT_SNAPSHOTS: &str = "insert into snapshots as s (stream, sequence, body, guard)
    select * from unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::bytea[])
    on conflict (stream) do update set sequence = excluded.sequence, body = excluded.body, guard = excluded.guard
    where s.sequence < excluded.sequence or s.stream = any($5::bigint[])";

const NO_NUL: &str = "PostgreSQL keeps no name or kind with a NUL in it";

/// Does all jobs in one transaction.
pub(super) async fn attempt(client: &Object, jobs: &[&Job], clock: &Clock) -> Result<Outcomes, Trouble> {
    let statements = Statements::of(client).await.map_err(harmless)?;
    let asking = Asking { client, statements: &statements };
    let mut state = asking.look(jobs).await?;
    asking.create(&mut state, jobs, clock).await?;
    let outcomes = jobs.iter().map(|job| state.plan(job, clock)).collect();
    asking.write(&state).await?;
    Ok(outcomes)
}

/// All statements. They are prepared before any is sent: one that had to be prepared in the middle would be overtaken by
/// those behind it, the commit among them.
struct Statements {
    lock: Statement,
    heads: Statement,
    repeats: Statement,
    create: Statement,
    records: Statement,
    ids: Statement,
    kept_repeats: Statement,
    kept_heads: Statement,
    kept_snapshots: Statement,
}

impl Statements {
    async fn of(client: &Object) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            lock: client.prepare_cached(LOCK).await?,
            heads: client.prepare_cached(&HEADS.replace("{STREAM}", rows::STREAM)).await?,
            repeats: client.prepare_cached(REPEATS).await?,
            create: client.prepare_cached(CREATE).await?,
            records: client.prepare_cached(RECORDS).await?,
            ids: client.prepare_cached(IDS).await?,
            kept_repeats: client.prepare_cached(KEPT_REPEATS).await?,
            kept_heads: client.prepare_cached(KEPT_HEADS).await?,
            kept_snapshots: client.prepare_cached(KEPT_SNAPSHOTS).await?,
        })
    }
}

/// A connection, with what is asked over it.
#[derive(Clone, Copy)]
struct Asking<'c> {
    client: &'c Object,
    statements: &'c Statements,
}

/// A stream as the next job finds it.
struct Known {
    key: i64,
    stream: Stream,
    changed: bool,
}

/// What became of an append: what it asked for, and what it was answered.
type Before = Result<(Digest, Appended), StoreError>;

/// What the database holds of all that the group is about, and what the group adds to it.
#[derive(Default)]
struct State<'a> {
    known: HashMap<StreamId, Result<Known, StoreError>>,
    repeats: HashMap<(i64, Box<str>), Before>,
    created: HashMap<StreamId, Stream>,
    records: Records<'a>,
    kept: Vec<Kept<'a>>,
    /// Snapshots by stream, and whether each replaces a newer one.
    snapshots: HashMap<i64, (&'a Snapshot, bool)>,
}

/// Records that are to be written, by columns.
#[derive(Default)]
struct Records<'a> {
    streams: Vec<i64>,
    sequences: Vec<i64>,
    times: Vec<Time>,
    ids: Vec<Uuid>,
    kinds: Vec<&'a str>,
    metas: Vec<&'a [u8]>,
    bodies: Vec<&'a [u8]>,
    digests: Vec<&'a [u8]>,
    chains: Vec<Digest>,
}

/// An append that is to be recognised when it is sent again.
struct Kept<'a> {
    stream: i64,
    key: &'a Key,
    first: u64,
    last: u64,
}

fn stream_of(job: &Job) -> Option<&StreamId> {
    match job {
        Job::Create(new, _) => Some(&new.id),
        Job::Append(append, _) => Some(&append.stream),
        Job::Snapshot(id, ..) => Some(id),
        Job::Seal(..) => None,
    }
}

/// Whether PostgreSQL can keep what the job brings: its texts hold no NUL.
fn fits(job: &Job) -> bool {
    let whole = |text: &str| !text.contains('\0');
    let named = stream_of(job).is_none_or(|id| whole(&id.space) && whole(&id.name));
    let Job::Append(append, _) = job else { return named };
    named
        && append.key.as_ref().is_none_or(|key| whole(&key.name))
        && append.records.iter().all(|record| whole(&record.kind))
}

impl Asking<'_> {
    /// Begins, locks the heads of all streams that the jobs are about, and reads what stands there.
    async fn look<'a>(self, jobs: &[&Job]) -> Result<State<'a>, Trouble> {
        let Self { client, statements } = self;
        let fitting = || jobs.iter().filter(|job| fits(job));
        let ids: BTreeSet<&StreamId> = fitting().filter_map(|job| stream_of(job)).collect();
        let (spaces, names): (Vec<&str>, Vec<&str>) = ids.iter().map(|id| (&*id.space, &*id.name)).unzip();
        let keys: BTreeSet<(&str, &str, &str)> = fitting()
            .filter_map(|job| match job {
                Job::Append(append, _) => {
                    Some((&*append.stream.space, &*append.stream.name, &*append.key.as_ref()?.name))
                }
                _ => None,
            })
            .collect();
        let key_spaces: Vec<&str> = keys.iter().map(|key| key.0).collect();
        let key_names: Vec<&str> = keys.iter().map(|key| key.1).collect();
        let key_keys: Vec<&str> = keys.iter().map(|key| key.2).collect();
        let streams: [&(dyn ToSql + Sync); 2] = [&spaces, &names];
        let repeated: [&(dyn ToSql + Sync); 3] = [&key_spaces, &key_names, &key_keys];
        // All is sent before the first answer is awaited. Each statement sees what was committed before it began, and the
        // second begins once the first has the locks.
        let (begun, locked, heads, repeats) = join4(
            client.batch_execute("begin isolation level read committed"),
            client.execute(&statements.lock, &streams),
            client.query(&statements.heads, &streams),
            async {
                match keys.is_empty() {
                    true => Ok(Vec::new()),
                    false => client.query(&statements.repeats, &repeated).await,
                }
            },
        )
        .await;
        begun.map_err(harmless)?;
        locked.map_err(harmless)?;
        let mut state = State::default();
        for row in heads.map_err(harmless)? {
            state.known.insert(rows::stream_id(&row)?, known(&row));
        }
        for row in repeats.map_err(harmless)? {
            state.repeats.insert((value(&row, 0)?, text(&row, 1)?), before(&row));
        }
        Ok(state)
    }

    /// Makes the streams that are to be made and are not there.
    async fn create(self, state: &mut State<'_>, jobs: &[&Job], clock: &Clock) -> Result<(), Trouble> {
        let mut made: HashMap<StreamId, (&NewStream, Stream)> = HashMap::new();
        for job in jobs.iter().filter(|job| fits(job)) {
            let Job::Create(new, _) = job else { continue };
            if !state.known.contains_key(&new.id) && !made.contains_key(&new.id) {
                made.insert(new.id.clone(), (new, begun(new, clock)));
            }
        }
        if made.is_empty() {
            return Ok(());
        }
        // Of two groups that make the same streams, one waits for the other.
        let mut sorted: Vec<&Stream> = made.values().map(|(_, stream)| stream).collect();
        sorted.sort_by_key(|stream| &stream.id);
        let spaces: Vec<&str> = sorted.iter().map(|stream| &*stream.id.space).collect();
        let names: Vec<&str> = sorted.iter().map(|stream| &*stream.id.name).collect();
        let metas: Vec<&[u8]> = sorted.iter().map(|stream| &stream.meta[..]).collect();
        let times: Vec<Time> = sorted.iter().map(|stream| stream.created).collect();
        let chains: Vec<&[u8]> = sorted.iter().map(|stream| &stream.head.chain[..]).collect();
        let create = &self.statements.create;
        let rows = self.client.query(create, &[&spaces, &names, &metas, &times, &chains]).await?;
        if rows.len() < made.len() {
            // Somebody else made one meanwhile: seen and locked the next time.
            let error = StoreError::Unreachable("others make the same streams all the time".to_owned());
            return Err(Trouble { error, again: true });
        }
        for row in rows {
            let id = StreamId { space: text(&row, 1)?, name: text(&row, 2)? };
            let Some((_, stream)) = made.remove(&id) else { continue };
            // The guard is over the key too: it is written with the head.
            let known = Known { key: value(&row, 0)?, stream: stream.clone(), changed: true };
            state.known.insert(id.clone(), Ok(known));
            state.created.insert(id, stream);
        }
        Ok(())
    }

    /// Writes what the group adds, and commits. If anything fails, PostgreSQL makes a rollback of the commit. All is sent
    /// before the first answer is awaited, in this order.
    async fn write(self, state: &State<'_>) -> Result<(), Trouble> {
        let changed: Vec<&Known> = state.known.values().flatten().filter(|known| known.changed).collect();
        let snapshots: Vec<(i64, &Snapshot, bool)> =
            state.snapshots.iter().map(|(key, (kept, replace))| (*key, *kept, *replace)).collect();
        let ((records, ids, heads, kept), (snapshots, committed)) = join(
            join4(
                self.records(&state.records),
                self.ids(&state.records),
                self.heads(&changed),
                self.repeats(&state.kept),
            ),
            join(self.snapshots(&snapshots), self.client.batch_execute("commit")),
        )
        .await;
        for outcome in [records, ids, heads, kept, snapshots, committed] {
            outcome?;
        }
        Ok(())
    }

    async fn records(self, records: &Records<'_>) -> Sent {
        let chains = slices(&records.chains);
        let Records { streams, sequences, times, ids, kinds, metas, bodies, digests, .. } = records;
        let columns: [&(dyn ToSql + Sync); 9] =
            [streams, sequences, times, ids, kinds, metas, bodies, digests, &chains];
        self.send(&self.statements.records, ids.len(), &columns).await
    }

    async fn ids(self, records: &Records<'_>) -> Sent {
        let Records { ids, streams, sequences, .. } = records;
        self.send(&self.statements.ids, ids.len(), &[ids, streams, sequences]).await
    }

    async fn heads(self, changed: &[&Known]) -> Sent {
        let guards: Vec<Digest> = changed.iter().map(|known| guard::stream(known.key, &known.stream)).collect();
        let keys: Vec<i64> = changed.iter().map(|known| known.key).collect();
        let sequences: Vec<i64> = changed.iter().map(|known| signed(known.stream.head.sequence)).collect();
        let times: Vec<Time> = changed.iter().map(|known| known.stream.head.time).collect();
        let chains: Vec<&[u8]> = changed.iter().map(|known| &known.stream.head.chain[..]).collect();
        let columns: [&(dyn ToSql + Sync); 5] = [&keys, &sequences, &times, &chains, &slices(&guards)];
        self.send(&self.statements.kept_heads, changed.len(), &columns).await
    }

    async fn repeats(self, kept: &[Kept<'_>]) -> Sent {
        let guard =
            |kept: &Kept<'_>| guard::repeat(kept.stream, &kept.key.name, &kept.key.request, kept.first, kept.last);
        let guards: Vec<Digest> = kept.iter().map(guard).collect();
        let streams: Vec<i64> = kept.iter().map(|kept| kept.stream).collect();
        let names: Vec<&str> = kept.iter().map(|kept| &*kept.key.name).collect();
        let requests: Vec<&[u8]> = kept.iter().map(|kept| &kept.key.request[..]).collect();
        let firsts: Vec<i64> = kept.iter().map(|kept| signed(kept.first)).collect();
        let lasts: Vec<i64> = kept.iter().map(|kept| signed(kept.last)).collect();
        let columns: [&(dyn ToSql + Sync); 6] = [&streams, &names, &requests, &firsts, &lasts, &slices(&guards)];
        self.send(&self.statements.kept_repeats, kept.len(), &columns).await
    }

    async fn snapshots(self, kept: &[(i64, &Snapshot, bool)]) -> Sent {
        let guards: Vec<Digest> =
            kept.iter().map(|(key, snapshot, _)| guard::snapshot(*key, snapshot.sequence, &snapshot.body)).collect();
        let streams: Vec<i64> = kept.iter().map(|(key, ..)| *key).collect();
        let sequences: Vec<i64> = kept.iter().map(|(_, snapshot, _)| signed(snapshot.sequence)).collect();
        let bodies: Vec<&[u8]> = kept.iter().map(|(_, snapshot, _)| &snapshot.body[..]).collect();
        let replaced: Vec<i64> = kept.iter().filter(|(_, _, replace)| *replace).map(|(key, ..)| *key).collect();
        let columns: [&(dyn ToSql + Sync); 5] = [&streams, &sequences, &bodies, &slices(&guards), &replaced];
        self.send(&self.statements.kept_snapshots, kept.len(), &columns).await
    }

    /// Sends a statement when it is first polled, if there are any rows for it.
    async fn send(self, statement: &Statement, rows: usize, columns: &[&(dyn ToSql + Sync)]) -> Sent {
        if rows > 0 {
            self.client.execute(statement, columns).await?;
        }
        Ok(())
    }
}

type Sent = Result<(), tokio_postgres::Error>;

/// A head. What is appended next is chained to it: a damaged one is not carried on.
fn known(row: &Row) -> Result<Known, StoreError> {
    let (key, stream) = rows::stream(row)?;
    let link: Option<&[u8]> = value(row, 10)?;
    let expected = if stream.head.sequence == 0 { stream.origin() } else { stream.head.chain };
    if stream.head.chain != expected
        || link.is_some_and(|link| *link != expected)
        || link.is_none() != (stream.head.sequence == 0)
    {
        return Err(StoreError::Damaged(format!("the head of {} {}", stream.id.space, stream.id.name)));
    }
    Ok(Known { key, stream, changed: false })
}

fn before(row: &Row) -> Before {
    let (key, name): (i64, &str) = (value(row, 0)?, value(row, 1)?);
    let (request, first, last) = (digest(row, 2)?, number(row, 3)?, number(row, 4)?);
    if guard::repeat(key, name, &request, first, last)[..] != *value::<&[u8]>(row, 5)? {
        return Err(StoreError::Damaged(format!("what is kept of the idempotency key {name}")));
    }
    let chain = match value::<Option<&[u8]>>(row, 7)? {
        Some(_) => digest(row, 7)?,
        None => [0; 32],
    };
    Ok((request, Appended { first, last, time: value(row, 6)?, chain, repeated: true }))
}

impl<'a> State<'a> {
    /// What comes of a job, if the group is committed.
    fn plan(&mut self, job: &&'a Job, clock: &Clock) -> Result<Done, StoreError> {
        if !fits(job) {
            return Err(StoreError::Unsupported(NO_NUL));
        }
        match job {
            Job::Create(new, _) => match self.created.remove(&new.id) {
                Some(stream) => Ok(Done::Created(stream)),
                None => Err(StoreError::Exists(new.id.clone())),
            },
            Job::Append(append, _) => self.append(append, clock).map(Done::Appended),
            Job::Snapshot(id, snapshot, replace, _) => self.keep(id, snapshot, *replace).map(|()| Done::Kept),
            Job::Seal(..) => Err(StoreError::Closed),
        }
    }

    fn append(&mut self, append: &'a Append, clock: &Clock) -> Result<Appended, StoreError> {
        let known = find(&mut self.known, &append.stream)?;
        if let Some(key) = &append.key
            && let Some(before) = self.repeats.get(&(known.key, key.name.clone()))
        {
            let (request, appended) = before.as_ref().map_err(StoreError::clone)?;
            return if *request == key.request { Ok(*appended) } else { Err(StoreError::KeyReused) };
        }
        let Head { sequence, time, chain } = known.stream.head;
        if let Some(expected) = append.expected.filter(|expected| *expected != sequence) {
            return Err(StoreError::Version { stream: append.stream.clone(), expected, actual: sequence });
        }
        let time = clock.after(time);
        let mut head = Head { sequence, time, chain };
        let to = &mut self.records;
        for record in &append.records {
            head.sequence += 1;
            let leaf = chain::leaf(head.sequence, time, &record.id, &record.kind, &record.meta, &record.digest);
            head.chain = chain::link(&head.chain, &leaf);
            to.streams.push(known.key);
            to.sequences.push(signed(head.sequence));
            to.times.push(time);
            to.ids.push(record.id);
            to.kinds.push(&record.kind);
            to.metas.push(&record.meta);
            to.bodies.push(&record.body);
            to.digests.push(&record.digest);
            to.chains.push(head.chain);
        }
        known.stream.head = head;
        known.changed = true;
        let appended = Appended { first: sequence + 1, last: head.sequence, time, chain: head.chain, repeated: false };
        if let Some(key) = &append.key {
            let again = Appended { repeated: true, ..appended };
            self.repeats.insert((known.key, key.name.clone()), Ok((key.request, again)));
            self.kept.push(Kept { stream: known.key, key, first: appended.first, last: appended.last });
        }
        Ok(appended)
    }

    fn keep(&mut self, id: &StreamId, snapshot: &'a Snapshot, replace: bool) -> Result<(), StoreError> {
        let known = find(&mut self.known, id)?;
        if snapshot.sequence <= known.stream.head.sequence {
            let kept = self.snapshots.entry(known.key).or_insert((snapshot, replace));
            kept.1 |= replace;
            if snapshot.sequence > kept.0.sequence {
                kept.0 = snapshot;
            }
        }
        Ok(())
    }
}

fn slices(digests: &[Digest]) -> Vec<&[u8]> {
    digests.iter().map(|digest| &digest[..]).collect()
}

fn find<'k>(
    known: &'k mut HashMap<StreamId, Result<Known, StoreError>>,
    id: &StreamId,
) -> Result<&'k mut Known, StoreError> {
    match known.get_mut(id) {
        None => Err(StoreError::NoStream(id.clone())),
        Some(Err(error)) => Err(error.clone()),
        Some(Ok(known)) => Ok(known),
    }
}

/// A stream at its beginning.
fn begun(new: &NewStream, clock: &Clock) -> Stream {
    let created = clock.now();
    let chain = chain::origin(&new.id, created, &new.meta);
    let head = Head { sequence: 0, time: created, chain };
    Stream { id: new.id.clone(), meta: new.meta.clone(), created, head, sealed: 0 }
}
