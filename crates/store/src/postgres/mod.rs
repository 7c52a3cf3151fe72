//! The shared engine: PostgreSQL, for several servers over one database.
//!
//! A few tasks write, each for its share of the streams. What waits for one of them is committed in one go: the heads of
//! all its streams are locked in one order, so that neither this process nor another leaves a gap or a fork; sequences,
//! times and chains are computed here, and everything is sent at once. A group takes two round trips.

mod fault;
mod group;
mod held;
mod pool;
mod reader;
mod rows;
mod schema;
mod seal;
mod writer;

use std::{
    fmt,
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};

use deadpool_postgres::Object;
use futures_util::FutureExt;
use tokio::{
    runtime::Runtime,
    sync::{Notify, oneshot, watch},
};
use uuid::Uuid;

use crate::{
    clock::Clock,
    engine::{
        Append, Appended, Archive, ArchiveNote, List, NewStream, Page, Progress, Range, Reply, Sealed, Snapshot, Store,
    },
    error::StoreError,
    figures::{Figures, Gauges},
    followers::Followers,
    jobs::{Asker, Gate, Job},
    record::{Record, Stream, StreamId},
};
use pool::Connections;
pub use pool::check_address;
use writer::Writer;

/// Threads of the engine's own runtime.
const THREADS: usize = 2;
/// How often streams that are followed are asked whether another process appended to them.
const LOOK: Duration = Duration::from_millis(250);
/// How often connections beyond the usual number are looked for.
const SHRINK: Duration = Duration::from_secs(1);
/// Rows removed in one go once an archive holds them: others write in between.
const SWEPT: i64 = 2_000;
/// How long closing waits for what was handed over.
const FAREWELL: Duration = Duration::from_secs(40);

/// How the engine is set up.
#[derive(Clone)]
pub struct Options {
    /// Where the database is: `postgres://user:password@host:port/database`, or `host=/run/postgresql user=…`.
    pub url: String,
    /// Connections that stay open. Those of the writing tasks are among them.
    pub pool_size: usize,
    /// Connections that there may be beyond these while they are needed.
    pub max_overflow: usize,
    /// How long a caller waits for a connection.
    pub pool_timeout: Duration,
    /// How old a connection may become.
    pub pool_recycle: Duration,
    /// Whether an idle connection is tried before it is used.
    pub pre_ping: bool,
    /// Whether what is asked of the database is logged.
    pub echo: bool,
    /// Tasks that write. More of them overlap the work of one group with the flush of another, and make groups smaller.
    pub writers: usize,
    /// Appends that may wait.
    pub waiting: usize,
    /// Bytes that these may have.
    pub waiting_bytes: usize,
    /// Tells the time.
    pub clock: Clock,
    /// In which schema of the database the tables are. It is made if it is not there.
    pub schema: String,
}

impl Options {
    /// The usual for the database at `url`.
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            pool_size: 20,
            max_overflow: 10,
            pool_timeout: Duration::from_secs(10),
            pool_recycle: Duration::from_secs(1_800),
            pre_ping: true,
            echo: false,
            writers: 2,
            waiting: 10_000,
            waiting_bytes: 64 << 20,
            clock: Clock::system(),
            schema: "caudal".to_owned(),
        }
    }
}

impl fmt::Debug for Options {
    /// Without the address: a password may stand in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("schema", &self.schema)
            .field("pool_size", &self.pool_size)
            .finish_non_exhaustive()
    }
}

/// The store on PostgreSQL.
pub struct Postgres {
    askers: Vec<Asker>,
    gate: Gate,
    shared: Shared,
    /// Ends when the last writer has.
    written: Mutex<mpsc::Receiver<()>>,
    runtime: Option<Runtime>,
}

/// What all tasks share.
#[derive(Clone)]
struct Shared {
    connections: Connections,
    gauges: Arc<Gauges>,
    followers: Arc<Followers>,
    /// Wakes who removes the rows that archives hold.
    sealed: Arc<Notify>,
    echo: bool,
}

impl Shared {
    /// Takes note that `name` has been done since `start`.
    fn done(&self, name: &'static str, start: Instant) {
        let took = start.elapsed();
        self.gauges.statement(name, took);
        if self.echo {
            tracing::info!(statement = name, ms = (took.as_secs_f64() * 1e6).round() / 1e3, "asked the database");
        }
    }
}

impl Postgres {
    /// Opens the database: logs in, and brings its tables to the newest form.
    pub fn open(options: Options) -> Result<Self, StoreError> {
        let writers = options.writers.max(1);
        let connections = Connections::new(&options, writers + 2)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("store-pg")
            .enable_all()
            .build()
            .map_err(|error| StoreError::Io(error.to_string()))?;
        let shared = Shared {
            connections,
            gauges: Arc::default(),
            followers: Arc::default(),
            sealed: Arc::default(),
            echo: options.echo,
        };
        let (opened, outcome) = mpsc::channel();
        let (connections, schema) = (shared.connections.clone(), options.schema.clone());
        runtime.spawn(async move {
            let form = async { schema::migrate(&mut connections.get().await?, &schema).await };
            let _ = opened.send(form.await);
        });
        // Whoever opens a store waits for it, on a thread of the caller's own.
        if let Err(error) = outcome.recv().unwrap_or(Err(StoreError::Closed)) {
            runtime.shutdown_background();
            return Err(error);
        }
        let gate = Gate::new(options.waiting, options.waiting_bytes);
        let (writing, written) = mpsc::channel();
        let askers = (0..writers).map(|_| {
            let (asker, asked) = Asker::new(gate.clone());
            let writer = Writer::new(shared.clone(), options.clock.clone(), options.pre_ping);
            let writing = writing.clone();
            runtime.spawn(async move {
                writer.run(asked).await;
                drop(writing);
            });
            asker
        });
        let askers = askers.collect();
        runtime.spawn(seal::sweep(shared.clone()));
        runtime.spawn(look(shared.clone()));
        runtime.spawn(shrink(shared.connections.clone()));
        Ok(Self { askers, gate, shared, written: Mutex::new(written), runtime: Some(runtime) })
    }

    /// Who writes to `stream`: always the same one, so that appends of one caller stay in their order.
    fn writer(&self, stream: &StreamId) -> &Asker {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let mut hash = DefaultHasher::new();
        stream.hash(&mut hash);
        &self.askers[(hash.finish() % self.askers.len() as u64) as usize]
    }

    /// Has a task of the engine's find out.
    fn ask<T: Send + 'static>(
        &self,
        name: &'static str,
        find: impl for<'a> FnOnce(&'a mut Object) -> Found<'a, T> + Send + 'static,
    ) -> Reply<T> {
        let (mut reply, found) = oneshot::channel();
        let Some(runtime) = &self.runtime else { return async { Err(StoreError::Closed) }.boxed() };
        let shared = self.shared.clone();
        runtime.spawn(async move {
            let answer = async {
                let mut connection = shared.connections.get().await?;
                let start = Instant::now();
                let found = find(&mut connection).await;
                shared.done(name, start);
                if found.is_err() {
                    pool::discard(connection);
                }
                found
            };
            // Who has gone away needs no answer. A connection that is left in the middle of one is given up.
            tokio::select! {
                answer = answer => drop(reply.send(answer)),
                () = reply.closed() => {}
            }
        });
        async move { found.await.unwrap_or(Err(StoreError::Closed)) }.boxed()
    }
}

/// What comes of asking the database.
type Found<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

impl Store for Postgres {
    fn create(&self, new: NewStream) -> Reply<Stream> {
        self.writer(&new.id).ask(0, |reply| Job::Create(new, reply))
    }

    fn append(&self, append: Append) -> Reply<Appended> {
        self.writer(&append.stream).ask(append.bytes(), |reply| Job::Append(append, reply))
    }

    fn stream(&self, id: &StreamId) -> Reply<Option<Stream>> {
        let id = id.clone();
        self.ask("stream", move |client| Box::pin(async move { reader::stream(client, &id).await }))
    }

    fn streams(&self, list: List) -> Reply<Page> {
        self.ask("streams", move |client| Box::pin(async move { reader::streams(client, &list).await }))
    }

    fn read(&self, id: &StreamId, range: Range) -> Reply<Vec<Record>> {
        let id = id.clone();
        self.ask("read", move |client| Box::pin(async move { reader::read(client, &id, &range).await }))
    }

    fn find(&self, id: Uuid) -> Reply<Option<(StreamId, u64)>> {
        self.ask("find", move |client| Box::pin(reader::find(client, id)))
    }

    fn keep_snapshot(&self, id: &StreamId, snapshot: Snapshot, replace: bool) -> Reply<()> {
        let (id, bytes) = (id.clone(), snapshot.body.len());
        self.writer(&id).ask(bytes, |reply| Job::Snapshot(id.clone(), snapshot, replace, reply))
    }

    fn snapshot(&self, id: &StreamId) -> Reply<Option<Snapshot>> {
        let id = id.clone();
        self.ask("snapshot", move |client| Box::pin(async move { reader::snapshot(client, &id).await }))
    }

    fn seal(&self, archive: Archive) -> Reply<()> {
        self.askers[0].ask(0, |reply| Job::Seal(archive, reply))
    }

    fn archives(&self) -> Reply<Vec<ArchiveNote>> {
        self.ask("archives", move |client| Box::pin(reader::archives(client)))
    }

    fn sealed(&self, id: &StreamId) -> Reply<Vec<Sealed>> {
        let id = id.clone();
        self.ask("sealed", move |client| Box::pin(async move { reader::sealed(client, &id).await }))
    }

    fn backup(&self, _: PathBuf, _: Progress) -> Reply<()> {
        async { Err(StoreError::Unsupported("PostgreSQL is copied by its own tools: pg_dump, or pg_basebackup")) }
            .boxed()
    }

    fn check(&self) -> Reply<Vec<String>> {
        self.ask("check", move |client| Box::pin(reader::check(client)))
    }

    fn figures(&self) -> Figures {
        let status = self.shared.connections.status();
        Figures {
            connections_max: status.max_size,
            connections: status.size,
            connections_busy: status.size.saturating_sub(status.available),
            connections_awaited: status.waiting,
            ..self.shared.gauges.figures("postgresql", Some(&self.gate))
        }
    }

    fn follow(&self, id: &StreamId) -> watch::Receiver<u64> {
        self.shared.followers.follow(id)
    }

    fn hold(&self, name: Uuid) -> Reply<()> {
        let (told, holds) = oneshot::channel();
        if let Some(runtime) = &self.runtime {
            runtime.spawn(held::hold(self.shared.connections.clone(), name, told));
        }
        async move { holds.await.unwrap_or(Err(StoreError::Closed)) }.boxed()
    }

    fn held(&self, name: Uuid) -> Reply<bool> {
        self.ask("held", move |client| Box::pin(held::held(client, name)))
    }
}

impl Drop for Postgres {
    /// What was handed over is still written.
    fn drop(&mut self) {
        self.askers.clear();
        let _ = self.written.get_mut().unwrap_or_else(PoisonError::into_inner).recv_timeout(FAREWELL);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("gate", &self.gate).finish_non_exhaustive()
    }
}

/// Tells followers of what other processes append.
async fn look(shared: Shared) {
    loop {
        tokio::time::sleep(LOOK).await;
        let followed = shared.followers.followed();
        if followed.is_empty() {
            continue;
        }
        let found = async { reader::heads(&shared.connections.get().await?, &followed).await };
        match found.await {
            Ok(heads) => heads.iter().for_each(|(stream, sequence)| shared.followers.tell(stream, *sequence)),
            Err(error) => tracing::debug!("followers wait: {error}"),
        }
    }
}

async fn shrink(connections: Connections) {
    loop {
        tokio::time::sleep(SHRINK).await;
        connections.shrink();
    }
}
