//! Who read or exported what: a stream of its own, in the same store, as append-only as all others.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use caudal_store::{Append, Clock, List, NewRecord, NewStream, Order, Range, Record, StoreError, StreamId};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use crate::{
    Consultations, RecordError,
    canonical::{canonical, sha256},
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

/// Seconds between two tries to record something while nothing can be.
const TRY_AGAIN: u64 = 2;
/// Notes that are recorded in one go.
const NOTES: usize = 500;

impl Access {
    fn meta(&self) -> Result<Vec<u8>, RecordError> {
        let meta = json!({"user_id": self.user, "from": self.from, "source": "caudal"});
        Ok(canonical(meta.to_string().as_bytes())?)
    }

    fn record(&self) -> Result<NewRecord, RecordError> {
        let body = canonical(&serde_json::to_vec(self).unwrap_or_default())?;
        Ok(new_record(Uuid::now_v7(), self.operation, self.meta()?, body))
    }

    /// The same, to be recorded later: it says when it was.
    fn waiting(&self) -> Result<WaitingNote, RecordError> {
        let mut body = json!(self);
        body["noted_at"] = iso(Clock::system().now()).into();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap_or_default();
        let body = text(canonical(body.to_string().as_bytes())?);
        Ok(WaitingNote { id: Uuid::now_v7(), kind: self.operation.to_owned(), meta: text(self.meta()?), body })
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
    use StoreError::{DiskFull, Io, ReadOnly, Vanished};
    matches!(error, RecordError::Store(DiskFull | Io(_) | ReadOnly(_) | Vanished(_)))
}

fn log() -> StreamId {
    StreamId::new(AUDIT, "log")
}

impl Consultations {
    /// Takes note of something that somebody did. Done when it is on disk: in the record, or, while that cannot be written,
    /// in the room that is kept for it.
    pub async fn note(&self, access: Access) -> Result<(), RecordError> {
        match self.append_notes(vec![access.record()?]).await {
            Ok(()) => {
                self.record_waiting_notes();
                Ok(())
            }
            Err(error) if cannot_be_written(&error) && self.reserve.put(access.waiting()?) => {
                let waiting = self.reserve.len();
                if waiting == 1 {
                    tracing::error!("who reads what waits to be recorded, and reads go on: {error}");
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// How many notes of who read what wait to be recorded.
    pub fn waiting_notes(&self) -> usize {
        self.reserve.len()
    }

    /// Whether something could be recorded, as far as is known. Where nothing could, it is tried again, at most once in
    /// two seconds: an entry of the audit log tells of it.
    pub fn is_writable(&self) -> bool {
        if !self.store.figures().refusing {
            return true;
        }
        let now = self.started.elapsed().as_secs();
        let last = self.tried.load(Relaxed);
        let due = now >= last + TRY_AGAIN && self.tried.compare_exchange(last, now, Relaxed, Relaxed).is_ok();
        if due && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let record = self.clone();
            runtime.spawn(async move {
                let details = serde_json::Value::Null;
                let again = Access {
                    operation: "WRITABLE_AGAIN",
                    consultation_id: None,
                    user: None,
                    from: None,
                    request_id: "none".to_owned(),
                    details,
                };
                if let Ok(again) = again.record()
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

    /// Records notes that were kept back. It runs in the background.
    fn record_waiting_notes(&self) {
        if self.reserve.len() == 0 {
            return;
        }
        let record = self.clone();
        tokio::spawn(async move {
            let Ok(_alone) = record.recording_notes.try_lock() else { return };
            while record.reserve.len() > 0 {
                let notes = record.reserve.first(NOTES);
                for note in &notes {
                    match record.append_notes(vec![note.record()]).await {
                        // It was recorded before the process ended that kept it.
                        Ok(()) | Err(RecordError::Store(StoreError::Duplicate)) => record.reserve.recorded(1),
                        Err(error) => {
                            tracing::warn!("who read what still waits to be recorded: {error}");
                            return;
                        }
                    }
                }
            }
            tracing::info!("who read what while nothing could be recorded is recorded now");
        });
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
