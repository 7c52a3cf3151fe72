//! Who read or exported what: a stream of its own, in the same store, as append-only as all others.

use bytes::Bytes;
use caudal_store::{Append, List, NewRecord, NewStream, Order, Range, Record, StoreError, StreamId};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use crate::{
    Consultations, RecordError,
    canonical::{canonical, sha256},
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

fn log() -> StreamId {
    StreamId::new(AUDIT, "log")
}

impl Consultations {
    /// Takes note of something that somebody did. Done when it is on disk.
    pub async fn note(&self, access: Access) -> Result<(), RecordError> {
        let body = canonical(&serde_json::to_vec(&access).unwrap_or_default())?;
        let meta = json!({"user_id": access.user, "from": access.from, "source": "caudal"});
        let record = NewRecord {
            id: Uuid::now_v7(),
            kind: access.operation.into(),
            meta: canonical(meta.to_string().as_bytes())?.into(),
            digest: sha256(&body),
            body: body.into(),
        };
        let append = || Append { stream: log(), expected: None, key: None, records: vec![record.clone()] };
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
