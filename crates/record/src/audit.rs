//! Who read or exported what: a stream of its own, in the same store, as append-only as all others.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use caudal_store::{Append, Clock, List, NewRecord, NewStream, Order, Range, Record, StoreError, StreamId};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use crate::{
    Consultations, RecordError,
    canonical::{canonical, sha256},
    consultations::aside,
    reserve::WaitingNote,
    time::iso,
};

/// The space of streams that tell who did what.
pub const AUDIT: &str = "audit";

/// Something that somebody did.
#[derive(Debug, Clone, Serialize)]
pub struct Access {
    /// What, such as `EVENTS_READ`.
    #[serde(skip)]
    pub operation: &'static str,
    /// With which consultation, if with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consultation_id: Option<String>,
    /// Who, by their own word.
    #[serde(skip)]
    pub user: Option<String>,
    /// From where.
    #[serde(skip)]
    pub from: Option<String>,
    /// By which request.
    pub request_id: String,
    /// What else is to be known.
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub details: serde_json::Value,
}

/// How much of the audit log waits to be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditBacklog {
    /// Notes that wait.
    pub notes: usize,
    /// Reads of which no note was kept since the reserve for notes was full. An entry of the audit log will count them.
    pub unnoted: u64,
}

impl AuditBacklog {
    /// Whether nothing waits, and every read has a note.
    pub fn is_empty(self) -> bool {
        self.notes == 0 && self.unnoted == 0
    }
}

/// Seconds between two tries to record something while nothing can be.
const TRY_AGAIN: u64 = 2;
/// Notes that are recorded in one go.
const NOTES: usize = 500;
/// How long a read waits for its note to be recorded, such as for another program's lock. The note then goes to the
/// reserve.
const NOTE_TIMEOUT: Duration = Duration::from_secs(2);

impl Access {
    fn meta(&self) -> Result<Vec<u8>, RecordError> {
        let meta = json!({"user_id": self.user, "from": self.from, "source": "caudal"});
        Ok(canonical(meta.to_string().as_bytes())?)
    }

    fn record(&self, id: Uuid) -> Result<NewRecord, RecordError> {
        let body = canonical(&serde_json::to_vec(self).unwrap_or_default())?;
        Ok(new_record(id, self.operation, self.meta()?, body))
    }

    /// The same, to be recorded later: it says when it was.
    fn waiting(&self, id: Uuid) -> Result<WaitingNote, RecordError> {
        let mut body = json!(self);
        body["noted_at"] = iso(Clock::system().now()).into();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap_or_default();
        let body = text(canonical(body.to_string().as_bytes())?);
        Ok(WaitingNote { id, kind: self.operation.to_owned(), meta: text(self.meta()?), body })
    }
}

impl WaitingNote {
    fn record(&self) -> NewRecord {
        new_record(self.id, &self.kind, self.meta.clone().into_bytes(), self.body.clone().into_bytes())
    }
}

fn new_record(id: Uuid, kind: &str, meta: Vec<u8>, body: Vec<u8>) -> NewRecord {
    NewRecord { id, kind: kind.into(), meta: meta.into(), digest: sha256(&body), body: body.into() }
}

/// Whether nothing can be recorded now, though it may be read.
fn cannot_be_written(error: &RecordError) -> bool {
    use StoreError::{DiskFull, Full, Io, ReadOnly, Unreachable, Vanished};
    let RecordError::Store(error) = error else { return false };
    matches!(error, DiskFull | Io(_) | ReadOnly(_) | Vanished(_) | Unreachable(_) | Full { .. })
}

/// An entry of the audit log that the server makes by itself.
fn own_entry(operation: &'static str, details: serde_json::Value) -> Access {
    let request_id = "none".to_owned();
    Access { operation, consultation_id: None, user: None, from: None, request_id, details }
}

fn log() -> StreamId {
    StreamId::new(AUDIT, "log")
}

impl Consultations {
    /// Takes note of an access. Done when it is on disk: in the record, or, while that cannot be written, in the reserve
    /// that is kept for it. Where the reserve is full the access is counted, and an entry of the audit log has the count
    /// later.
    pub async fn note(&self, access: Access) -> Result<(), RecordError> {
        let id = Uuid::now_v7();
        // Notes that wait are recorded before this one.
        let waits = !self.reserve.is_empty();
        if !waits {
            let noted = self.append_notes(vec![access.record(id)?]);
            match tokio::time::timeout(NOTE_TIMEOUT, noted).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if !cannot_be_written(&error) => return Err(error),
                Ok(Err(error)) => tracing::error!("notes of who reads what wait, and reads go on: {error}"),
                // It may still be recorded: the same id then tells.
                Err(_) => tracing::warn!("notes of who reads what wait for the store, and reads go on"),
            }
        }
        let (reserve, note) = (self.reserve.clone(), access.waiting(id)?);
        aside(move || {
            if !reserve.put(note) {
                reserve.count_unnoted(iso(Clock::system().now()));
            }
            Ok(())
        })
        .await?;
        self.record_waiting_notes();
        Ok(())
    }

    /// How much of the audit log waits to be recorded.
    pub fn audit_backlog(&self) -> AuditBacklog {
        AuditBacklog { notes: self.reserve.len(), unnoted: self.reserve.unnoted().map_or(0, |unnoted| unnoted.count) }
    }

    /// Whether something could be recorded, as far as is known. Where nothing could, it is tried again, at most once in
    /// two seconds, by an entry of the audit log.
    pub fn is_writable(&self) -> bool {
        if !self.store.figures().refusing {
            if !self.reserve.is_empty() {
                self.record_waiting_notes();
            }
            return true;
        }
        let now = self.started.elapsed().as_secs();
        let last = self.tried.load(Relaxed);
        let due = now >= last + TRY_AGAIN && self.tried.compare_exchange(last, now, Relaxed, Relaxed).is_ok();
        if due && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let record = self.clone();
            runtime.spawn(async move {
                let again = own_entry("WRITABLE_AGAIN", serde_json::Value::Null);
                if let Ok(again) = again.record(Uuid::now_v7())
                    && record.append_notes(vec![again]).await.is_ok()
                {
                    record.record_waiting_notes();
                }
            });
        }
        false
    }

    /// Takes room on disk for notes of who reads what, for when nothing can be recorded. What a process before this one
    /// left there is recorded with the next note.
    #[must_use]
    pub fn with_audit_reserve(self) -> Self {
        if let Some(folder) = &self.folder {
            self.reserve.prepare(&folder.audit_reserve());
        }
        self
    }

    /// Records in the background what waits in the reserve, and tries again until all of it is recorded.
    fn record_waiting_notes(&self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let record = self.clone();
        runtime.spawn(async move {
            // A note that came while the last ones were recorded found the lock taken.
            while !record.reserve.is_empty() {
                let Ok(_alone) = record.recording_notes.try_lock() else { return };
                match record.empty_reserve().await {
                    Ok(()) => tracing::info!("notes of who read what while nothing could be recorded are recorded now"),
                    Err(error) => {
                        tracing::debug!("notes of who reads what still wait to be recorded: {error}");
                        tokio::time::sleep(Duration::from_secs(TRY_AGAIN)).await;
                    }
                }
            }
        });
    }

    /// Records what waits in the reserve: notes, then the count of reads without a note.
    async fn empty_reserve(&self) -> Result<(), RecordError> {
        loop {
            let notes = self.reserve.first(NOTES);
            if notes.is_empty() {
                break;
            }
            match self.append_notes(notes.iter().map(WaitingNote::record).collect()).await {
                Ok(()) => self.leave_reserve(notes.len()).await?,
                // One of them was recorded before the process ended that kept it.
                Err(RecordError::Store(StoreError::Duplicate)) => {
                    for note in &notes {
                        match self.append_notes(vec![note.record()]).await {
                            Ok(()) | Err(RecordError::Store(StoreError::Duplicate)) => self.leave_reserve(1).await?,
                            Err(error) => return Err(error),
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(unnoted) = self.reserve.unnoted() {
            let entry = own_entry("READS_NOT_NOTED", json!(unnoted));
            self.append_notes(vec![entry.record(Uuid::now_v7())?]).await?;
            self.reserve.unnoted_recorded(&unnoted);
        }
        Ok(())
    }

    /// The first `count` notes of the reserve are recorded.
    async fn leave_reserve(&self, count: usize) -> Result<(), RecordError> {
        let reserve = Arc::clone(&self.reserve);
        aside(move || {
            reserve.recorded(count);
            Ok(())
        })
        .await
    }

    async fn append_notes(&self, records: Vec<NewRecord>) -> Result<(), RecordError> {
        let append = || Append { stream: log(), expected: None, key: None, records: records.clone() };
        match self.store.append(append()).await {
            Err(StoreError::NoStream(_)) => {
                let made = self.store.create(NewStream { id: log(), meta: Bytes::from_static(b"{}") }).await;
                if let Err(error) = made
                    && !matches!(error, StoreError::Exists(_))
                {
                    return Err(error.into());
                }
                self.store.append(append()).await?;
            }
            appended => drop(appended?),
        }
        Ok(())
    }

    /// What was noted, the last first: `limit` of it, but for the last `offset`.
    pub async fn noted(&self, limit: u32, offset: u64) -> Result<(u64, Vec<Record>), RecordError> {
        let list = List { space: AUDIT.into(), order: Order::Newest, limit: 1, offset: 0, idle_since: None };
        let Some(stream) = self.store.streams(list).await?.streams.into_iter().next() else {
            return Ok((0, Vec::new()));
        };
        let total = stream.head.sequence;
        let last = total.saturating_sub(offset);
        let after = last.saturating_sub(u64::from(limit));
        let wanted = u32::try_from(last - after).unwrap_or(limit);
        if wanted == 0 {
            return Ok((total, Vec::new()));
        }
        let mut found = self.store.read(&stream.id, Range::after(after, wanted)).await?;
        found.reverse();
        Ok((total, found))
    }
}
