//! Consultations: made, written to, read. Where a record lies, in the store or in an archive, is settled here.

use std::{
    path::PathBuf,
    sync::{Arc, LazyLock, atomic::AtomicU64},
    time::Instant,
};

use bytes::Bytes;
use caudal_store::{
    Append, Appended, Key, List, NewRecord, NewStream, Order, Page, Range, Record, Snapshot, Store, StoreError, Stream,
    StreamId, Time,
};
use futures_util::{
    FutureExt,
    future::{BoxFuture, ready},
};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    canonical::canonical,
    error::RecordError,
    event,
    export::room::ExportRoom,
    folder::Folder,
    kept::{KeptState, Opened, StateKey},
    raw::Raw,
    reserve::Reserve,
    state::State,
};

/// The space of streams in which consultations stand.
pub const SPACE: &str = "consultation";
/// Most bytes of a consultation's name.
const LONGEST_NAME: usize = 200;

/// All consultations of a store.
#[derive(Clone)]
pub struct Consultations {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) folder: Option<Arc<Folder>>,
    /// How much exports over HTTP may hold; without an end if nothing is said.
    pub(crate) exports: Option<Arc<ExportRoom>>,
    /// Notes of who reads what that cannot be recorded now.
    pub(crate) reserve: Arc<Reserve>,
    /// Held by who records these.
    pub(crate) recording_notes: Arc<tokio::sync::Mutex<()>>,
    /// Since when seconds are counted, and when it was last tried to record something while nothing could be.
    pub(crate) started: Instant,
    pub(crate) tried: Arc<AtomicU64>,
    snapshot_every: u64,
}

impl std::fmt::Debug for Consultations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Consultations")
    }
}

/// Events that are read and applied in one go.
const REPLAYED: u32 = 2_000;

/// Seals kept states where there is no folder for a key: those of this process alone are used.
static PROCESS_KEY: LazyLock<StateKey> = LazyLock::new(|| {
    let seed = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()];
    StateKey::of(&crate::canonical::sha256(seed.as_flattened()))
});

/// Does what takes long where it keeps nobody waiting.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RecordError> + Send + 'static,
) -> Result<T, RecordError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(RecordError::BrokeOff(error.to_string().into())),
    }
}

/// A consultation that is to be made.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewConsultation<'a> {
    /// Who makes it.
    pub user_id: String,
    /// What is known of the patient.
    #[serde(borrow, default)]
    pub patient_stub: Option<&'a serde_json::value::RawValue>,
    /// Its name, where it has one already.
    #[serde(default)]
    pub consultation_id: Option<String>,
    /// The session that it belongs to; one of its own if none is named.
    #[serde(default)]
    pub session_id: Option<String>,
    /// What the file said of it, where it is imported: an object as JSON.
    #[serde(skip)]
    pub original: Option<String>,
}

/// A consultation.
#[derive(Debug, Clone)]
pub struct Consultation {
    /// Its stream.
    pub stream: Stream,
    /// What was said when it was made.
    pub about: About,
    /// Whether it had been made before, by the same request.
    pub repeated: bool,
}

/// What was said when a consultation was made.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct About {
    /// Who made it.
    pub user_id: String,
    /// The session that it belongs to.
    pub session_id: String,
    /// What is known of the patient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patient_stub: Option<Raw>,
    /// What the file said of it that it was imported from, such as `created_at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<serde_json::Value>,
}

/// When a consultation was made in the system that it was imported from, by what is said of its stream.
pub fn original_created_at(stream: &Stream) -> Option<Time> {
    // Most were made here, and need not be parsed to know it.
    memchr::memmem::find(&stream.meta, b"\"original\"")?;
    let about: About = serde_json::from_slice(&stream.meta).ok()?;
    crate::time::parse(about.original?.get("created_at")?.as_str()?)
}

/// The JSON object `shown`, with `original_created_at` where the consultation was imported and its file said one. For what
/// holds no numbers of clients: these would lose digits in a tree.
pub fn with_original_time(mut shown: serde_json::Value, stream: &Stream) -> serde_json::Value {
    if let (Some(shown), Some(time)) = (shown.as_object_mut(), original_created_at(stream)) {
        shown.insert("original_created_at".to_owned(), crate::time::iso(time).into());
    }
    shown
}

impl Consultation {
    fn of(stream: Stream, repeated: bool) -> Result<Self, RecordError> {
        let about = serde_json::from_slice(&stream.meta)
            .map_err(|_| StoreError::Damaged(format!("what is said of the consultation {}", stream.id.name)))?;
        Ok(Self { stream, about, repeated })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.stream.id.name
    }

    /// What was said when it was made, as it was written: numbers keep their digits.
    pub fn about_as_written(&self) -> Raw {
        Raw::json_or_text(&self.stream.meta)
    }
}

/// The stream of a consultation of that name.
pub fn stream_of(name: &str) -> StreamId {
    StreamId::new(SPACE, name)
}

impl Consultations {
    /// Those in `store`, with archives, exports and keys in `folder`. What the events of one come to is kept every
    /// `snapshot_every` events, so that no more have to be read again.
    pub fn new(store: Arc<dyn Store>, folder: Option<PathBuf>, snapshot_every: u64) -> Self {
        let folder = folder.map(|folder| Arc::new(Folder::new(folder)));
        Self {
            store,
            folder,
            exports: None,
            reserve: Arc::default(),
            recording_notes: Arc::default(),
            started: Instant::now(),
            tried: Arc::default(),
            snapshot_every: snapshot_every.max(1),
        }
    }

    /// The same, whose own exports hold at most so many bytes together.
    #[must_use]
    pub fn with_exports_of(mut self, bytes: u64) -> Self {
        self.exports = self.folder.as_ref().map(|folder| ExportRoom::new(folder.exports(), bytes));
        self
    }

    /// The store that they lie in.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Makes one. The same request under the same key makes it once.
    pub async fn make(&self, new: &NewConsultation<'_>, key: Option<&str>) -> Result<Consultation, RecordError> {
        let name = match (&new.consultation_id, key) {
            (Some(name), _) => named(name)?.to_owned(),
            (None, None) => Uuid::new_v4().to_string(),
            // The name follows from the key, so that whoever asks again finds it.
            (None, Some(key)) => made_of("consultation", &new.user_id, key).to_string(),
        };
        let session = match (&new.session_id, key) {
            (Some(session), _) => session.clone(),
            (None, None) => Uuid::new_v4().to_string(),
            (None, Some(key)) => made_of("session", &new.user_id, key).to_string(),
        };
        let patient = new.patient_stub.map(serde_json::value::RawValue::get);
        let meta = about(&new.user_id, &session, patient, new.original.as_deref())?;
        let id = stream_of(&name);
        match self.store.create(NewStream { id: id.clone(), meta: meta.clone() }).await {
            Ok(stream) => Consultation::of(stream, false),
            Err(StoreError::Exists(_)) if key.is_some() => {
                let stream = self.stream(&name).await?;
                match stream.meta == meta {
                    true => Consultation::of(stream, true),
                    false => Err(StoreError::KeyReused.into()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Appends to one: all of the records, or none. They are on their way before the answer is awaited, so what is appended
    /// by one caller stays in order.
    pub fn append(
        &self,
        name: &str,
        records: Vec<NewRecord>,
        expected: Option<u64>,
        key: Option<&str>,
    ) -> BoxFuture<'static, Result<Appended, RecordError>> {
        if records.is_empty() {
            return ready(Err(RecordError::Nothing)).boxed();
        }
        let key = key.map(|key| Key { name: key.into(), request: request(&records, expected) });
        let appended = self.store.append(Append { stream: stream_of(name), expected, key, records });
        let name = name.to_owned();
        appended.map(move |appended| appended.map_err(|error| missing(&name, error))).boxed()
    }

    /// One of them.
    pub async fn find(&self, name: &str) -> Result<Consultation, RecordError> {
        Consultation::of(self.stream(name).await?, false)
    }

    pub(crate) async fn stream(&self, name: &str) -> Result<Stream, RecordError> {
        let stream = self.store.stream(&stream_of(name)).await?;
        stream.ok_or_else(|| RecordError::NoConsultation(name.into()))
    }

    /// The folder of archives, exports and keys.
    pub(crate) fn folder(&self, what: &'static str) -> Result<&Arc<Folder>, RecordError> {
        self.folder.as_ref().ok_or(RecordError::NoFolder(what))
    }

    /// Some of them.
    pub async fn list(&self, order: Order, limit: u32, offset: u64) -> Result<Page, RecordError> {
        let list = List { space: SPACE.into(), order, limit, offset, idle_since: None };
        Ok(self.store.streams(list).await?)
    }

    /// Events of one, in order.
    pub async fn events(&self, name: &str, range: Range) -> Result<Vec<Record>, RecordError> {
        loop {
            let stream = self.stream(name).await?;
            let found = self.read(&stream, &range).await?;
            // What was sealed while it was read was in neither place for us.
            if self.stream(name).await?.sealed == stream.sealed {
                return Ok(found);
            }
        }
    }

    /// Events of a stream, from archives as far as it is sealed, then from the store.
    async fn read(&self, stream: &Stream, range: &Range) -> Result<Vec<Record>, RecordError> {
        let mut found = Vec::new();
        if range.after < stream.sealed {
            let (parts, folder) = (self.store.sealed(&stream.id).await?, Arc::clone(self.folder("archives")?));
            let (id, range) = (stream.id.clone(), range.clone());
            let (some, complete) = aside(move || folder.archived(&parts, &id, &range)).await?;
            if !complete {
                return Ok(some);
            }
            found = some;
        }
        let bytes: usize = found.iter().map(|record| record.body.len() + record.meta.len()).sum();
        if bytes >= range.bytes {
            return Ok(found);
        }
        let limit = range.limit - found.len() as u32;
        let rest = Range { after: range.after.max(stream.sealed), limit, ..range.clone() };
        found.extend(self.store.read(&stream.id, rest).await?);
        Ok(found)
    }

    /// Where one stands: what its events say together. A state that was kept is used only if it is sealed by our key and
    /// the events continue from it; else all events are replayed.
    pub async fn state(&self, name: &str) -> Result<(Consultation, State), RecordError> {
        // The kept state is read first: one that another process keeps meanwhile would be ahead of the stream.
        let snapshot = self.store.snapshot(&stream_of(name)).await?;
        let consultation = self.find(name).await?;
        let stream = &consultation.stream;
        let (kept, mut discard) = self.usable(stream, snapshot.as_ref());
        let began = kept.as_ref().map_or(0, |kept| kept.state.sequence);
        let made = match kept {
            Some(kept) => match self.replay(stream, kept).await? {
                Some(made) => made,
                None => {
                    discarded(stream, began);
                    discard = true;
                    self.replay_all(stream).await?
                }
            },
            None => self.replay_all(stream).await?,
        };
        let began = if discard { 0 } else { began };
        if discard || made.state.sequence - began >= self.snapshot_every {
            self.keep(stream, &made, began == 0);
        }
        Ok((consultation, made.state))
    }

    /// What was kept of a stream, if it may be used; and whether it is to be discarded.
    pub(crate) fn usable(&self, stream: &Stream, snapshot: Option<&Snapshot>) -> (Option<KeptState>, bool) {
        let Some(snapshot) = snapshot else { return (None, false) };
        let Some(key) = self.state_key() else { return (None, false) };
        match key.open(stream, snapshot) {
            Opened::Good(kept) if kept.state.sequence <= stream.head.sequence => (Some(*kept), false),
            Opened::Foreign => (None, false),
            Opened::Good(_) | Opened::Forged => {
                discarded(stream, snapshot.sequence);
                (None, true)
            }
        }
    }

    /// The key that seals kept states.
    pub(crate) fn state_key(&self) -> Option<StateKey> {
        let Some(folder) = &self.folder else { return Some(*PROCESS_KEY) };
        match folder.key() {
            Ok(key) => Some(StateKey::of(key.as_bytes())),
            Err(error) => {
                tracing::debug!("kept states are not used: {error}");
                None
            }
        }
    }

    /// Stores a state in the background.
    fn keep(&self, stream: &Stream, made: &KeptState, replace: bool) {
        if let Some(snapshot) = self.state_key().and_then(|key| key.close(stream, made)) {
            drop(self.store.keep_snapshot(&stream.id, snapshot, replace));
        }
    }

    async fn replay_all(&self, stream: &Stream) -> Result<KeptState, RecordError> {
        let start = KeptState { state: State::default(), link: stream.origin() };
        let made = self.replay(stream, start).await?;
        made.ok_or_else(|| StoreError::Damaged(format!("consultation {} is not of one piece", stream.id.name)).into())
    }

    /// Applies the events after `from` to it; `None` if they do not continue from there.
    async fn replay(&self, stream: &Stream, from: KeptState) -> Result<Option<KeptState>, RecordError> {
        let (name, mut made) = (&*stream.id.name, from);
        if made.state.sequence == stream.head.sequence {
            // No event is replayed: that the last one is still there is found out by reading it.
            if let Some(before) = stream.head.sequence.checked_sub(1) {
                self.events(name, Range::after(before, 1)).await?;
            }
            let holds = stream.head.sequence == 0 || made.link == stream.head.chain;
            return Ok(holds.then_some(made));
        }
        let mut first = true;
        while made.state.sequence < stream.head.sequence {
            let some = self.events(name, Range::after(made.state.sequence, REPLAYED)).await?;
            let Some(next) = some.first() else {
                let message = format!("consultation {name} ends at event {}", made.state.sequence);
                return Err(StoreError::Damaged(message).into());
            };
            if std::mem::take(&mut first) && !made.precedes(next) {
                return Ok(None);
            }
            made = aside(move || {
                some.iter().for_each(|record| made.state.apply(&record.into()));
                made.link = some.last().map_or(made.link, |last| last.chain);
                Ok(made)
            })
            .await?;
        }
        Ok(Some(made))
    }

    /// One event, by its id or by its sequence.
    pub async fn event(&self, name: &str, which: &str) -> Result<Record, RecordError> {
        let none = || RecordError::NoEvent(which.into());
        let sequence = match which.parse::<u64>() {
            Ok(sequence) => sequence,
            Err(_) => {
                let id = Uuid::try_parse(which).map_err(|_| none())?;
                let (stream, sequence) = self.store.find(id).await?.ok_or_else(none)?;
                if stream != stream_of(name) {
                    return Err(none());
                }
                sequence
            }
        };
        let before = sequence.checked_sub(1).ok_or_else(none)?;
        let found = self.events(name, Range::after(before, 1)).await?;
        let found = found.into_iter().next().ok_or_else(none)?;
        // The index of ids is beside the events: what they say counts.
        let asked = Uuid::try_parse(which).ok().filter(|_| which.parse::<u64>().is_err());
        match asked.is_none_or(|id| id == found.id) {
            true => Ok(found),
            false => Err(StoreError::Damaged(format!("the index of ids leads from {which} to another event")).into()),
        }
    }

    /// Tells when one grows.
    pub fn follow(&self, name: &str) -> watch::Receiver<u64> {
        self.store.follow(&stream_of(name))
    }
}

/// Says that a kept state is not used any more.
fn discarded(stream: &Stream, sequence: u64) {
    let consultation = &*stream.id.name;
    tracing::error!(
        consultation,
        sequence,
        "a kept state is not what the events make: it was changed or replaced; it is discarded and rebuilt from the events"
    );
}

fn missing(name: &str, error: StoreError) -> RecordError {
    match error {
        StoreError::NoStream(_) => RecordError::NoConsultation(name.into()),
        error => error.into(),
    }
}

/// A name that stands in a URL, in a file's name and in a line of text without any ado.
pub(crate) fn named(name: &str) -> Result<&str, RecordError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    match !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(fits) && !name.starts_with('.') {
        true => Ok(name),
        false => Err(RecordError::Name("a consultation's id has 1 to 200 letters, digits, '-', '_', '.' and ':'")),
    }
}

fn made_of(what: &str, user: &str, key: &str) -> Uuid {
    let mut hash = Sha256::new();
    for part in [what, user, key] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let hash: [u8; 32] = hash.finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// What is kept of a consultation, in canonical form.
fn about(user: &str, session: &str, patient: Option<&str>, original: Option<&str>) -> Result<Bytes, RecordError> {
    let mut text = b"{\"user_id\": ".to_vec();
    event::string(&mut text, user);
    text.extend_from_slice(b", \"session_id\": ");
    event::string(&mut text, session);
    if let Some(patient) = patient {
        text.extend_from_slice(b", \"patient_stub\": ");
        text.extend_from_slice(patient.as_bytes());
    }
    if let Some(original) = original {
        text.extend_from_slice(b", \"original\": ");
        text.extend_from_slice(original.as_bytes());
    }
    text.push(b'}');
    Ok(canonical(&text)?.into())
}

/// What an append asks for, so that another one with the same key is not taken for it. Ids that were made for it do not
/// count: they are others each time.
fn request(records: &[NewRecord], expected: Option<u64>) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(expected.map_or([255; 8], u64::to_be_bytes));
    for record in records {
        hash.update((record.kind.len() as u64).to_be_bytes());
        hash.update(record.kind.as_bytes());
        hash.update((record.meta.len() as u64).to_be_bytes());
        hash.update(&record.meta);
        hash.update(record.digest);
    }
    hash.finalize().into()
}
