//! Runs kept in the store: SQLite or PostgreSQL. A run is a stream, and its journal the stream's records.

use std::sync::Arc;

use bytes::Bytes;
use caudal_store::{Append, List, NewRecord, NewStream, Order, Range, Record, Store, StoreError, StreamId};
use futures_util::{FutureExt, TryFutureExt};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Glance, Line, Listing, MAX_RECOVERIES, Reply, Runs, lines::recoveries};
use crate::error::RunError;

/// Streams of runs, and of values that stand beside them.
const RUN: &str = "run";
const BLOB: &str = "blob";
/// Records read in one go.
const PAGE: u32 = 1_000;

/// Runs kept in the store.
#[derive(Clone)]
pub struct StoredRuns {
    store: Arc<dyn Store>,
}

impl StoredRuns {
    /// Runs kept in `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }
}

fn record(kind: &str, body: Bytes) -> NewRecord {
    let digest = Sha256::digest(&body).into();
    NewRecord { id: Uuid::now_v7(), kind: kind.into(), meta: Bytes::new(), digest, body }
}

fn line(record: Record) -> Line {
    Line { kind: record.kind, body: record.body }
}

fn append(stream: StreamId, expected: u64, records: Vec<NewRecord>) -> Append {
    Append { stream, expected: Some(expected), key: None, records }
}

async fn lines(store: &dyn Store, id: &StreamId) -> Result<Vec<Line>, StoreError> {
    let mut lines = Vec::new();
    let mut after = 0;
    loop {
        let records = store.read(id, Range::after(after, PAGE)).await?;
        let Some(last) = records.last() else { return Ok(lines) };
        after = last.sequence;
        lines.extend(records.into_iter().map(line));
    }
}

impl Runs for StoredRuns {
    fn create(&self, id: &str, begun: Bytes) -> Reply<()> {
        let name: Box<str> = id.into();
        let made = self.store.create(NewStream { id: StreamId::new(RUN, id), meta: begun });
        async move {
            match made.await {
                Ok(_) => Ok(()),
                Err(StoreError::Exists(_)) => Err(RunError::Exists(name)),
                Err(error) => Err(error.into()),
            }
        }
        .boxed()
    }

    fn append(&self, id: &str, expected: u64, lines: Vec<Line>) -> Reply<()> {
        let records = lines.into_iter().map(|line| record(&line.kind, line.body)).collect();
        let appended = self.store.append(append(StreamId::new(RUN, id), expected, records));
        async move {
            match appended.await {
                Ok(_) => Ok(()),
                Err(StoreError::Version { .. }) => Err(RunError::Taken),
                Err(error) => Err(error.into()),
            }
        }
        .boxed()
    }

    fn read(&self, id: &str) -> Reply<Option<(Bytes, Vec<Line>)>> {
        let (store, id) = (Arc::clone(&self.store), StreamId::new(RUN, id));
        async move {
            let Some(stream) = store.stream(&id).await? else { return Ok(None) };
            Ok(Some((stream.meta, lines(&*store, &id).await?)))
        }
        .boxed()
    }

    fn list(&self, limit: u32, offset: u64) -> Reply<Listing> {
        let store = Arc::clone(&self.store);
        async move {
            let list = List { space: RUN.into(), order: Order::Newest, limit, offset, idle_since: None };
            let page = store.streams(list).await?;
            let mut runs = Vec::with_capacity(page.streams.len());
            for stream in page.streams {
                let head = stream.head.sequence;
                let last = match head {
                    0 => None,
                    head => store.read(&stream.id, Range::after(head - 1, 1)).await?.pop().map(line),
                };
                let recoveries = match &last {
                    Some(last) if &*last.kind == "resumed" => {
                        let most = head.min(MAX_RECOVERIES.into());
                        let latest = store.read(&stream.id, Range::after(head - most, most as u32)).await?;
                        recoveries(latest.into_iter().map(line).collect::<Vec<_>>().iter().rev())
                    }
                    _ => 0,
                };
                // Only of a run that may be going on does anybody want to know who has it.
                let resumed = match &last {
                    Some(line) if matches!(&*line.kind, "step" | "left" | "resumed") => {
                        let range = Range { kind: Some("resumed".into()), ..Range::after(0, PAGE) };
                        store.read(&stream.id, range).await?.pop()
                    }
                    _ => None,
                };
                runs.push(Glance {
                    id: stream.id.name,
                    begun: stream.meta,
                    time: stream.created,
                    last_time: stream.head.time,
                    lines: head,
                    resumed: resumed.map(line),
                    last,
                    recoveries,
                });
            }
            Ok(Listing { runs, total: page.total })
        }
        .boxed()
    }

    fn keep(&self, hash: &str, bytes: Bytes) -> Reply<()> {
        let (store, id) = (Arc::clone(&self.store), StreamId::new(BLOB, hash));
        async move {
            match store.create(NewStream { id: id.clone(), meta: Bytes::new() }).await {
                Ok(_) | Err(StoreError::Exists(_)) => {}
                Err(error) => return Err(error.into()),
            }
            // Whoever keeps the same at the same time keeps the same bytes.
            match store.append(append(id, 0, vec![record("value", bytes)])).await {
                Ok(_) | Err(StoreError::Version { .. }) => Ok(()),
                Err(error) => Err(error.into()),
            }
        }
        .boxed()
    }

    fn kept(&self, hash: &str) -> Reply<Option<Bytes>> {
        let (store, id) = (Arc::clone(&self.store), StreamId::new(BLOB, hash));
        async move {
            let mut records = store.read(&id, Range { bytes: usize::MAX, ..Range::after(0, 1) }).await?;
            Ok(records.pop().map(|record| record.body))
        }
        .boxed()
    }

    fn attend(&self, name: Uuid) -> Reply<()> {
        self.store.hold(name).map_err(RunError::from).boxed()
    }

    fn attended(&self, name: Uuid) -> Reply<bool> {
        self.store.held(name).map_err(RunError::from).boxed()
    }
}
