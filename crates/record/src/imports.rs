//! Events of another system taken in: each once, however often that is tried, and nothing of what it said lost.

mod times;

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
};

use caudal_store::{Clock, NewRecord, Range, StoreError};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    About, Consultations, Ingest, NewConsultation, RecordError,
    archive::Original,
    canonical::{canonical, sha256},
    consultations::named,
    event::OCCURRED_AT,
    hash::Hash,
    kinds::{Kind, LONGEST_NAME},
    stream_of,
    time::iso,
};
use times::own_time;

/// Events that are appended in one go, and about the most bytes of these.
const CHUNK: usize = 500;
const CHUNK_BYTES: usize = 4 << 20;
/// Events that are read in one go.
const STEP: u32 = 2_000;
/// The namespace of types that are not ours.
const SPACE: &str = "imported";
/// The type of events that are no text.
pub(crate) const BYTES: &str = "imported:BYTES";
/// Names under which an event's metadata keeps what would be lost.
const OURS: [&str; 10] = [
    "imported_at",
    "imported_from",
    OCCURRED_AT,
    "original_audit_hash",
    "original_consultation_id",
    "original_event_id",
    "original_event_type",
    "original_members",
    "original_metadata",
    "original_timestamp",
];

/// What came of an import.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ImportSummary {
    /// Consultations that had events.
    pub consultations: u64,
    /// Of these, the ones that were not there before.
    pub made: u64,
    /// Events that were appended.
    pub events: u64,
    /// Events that an earlier import had brought.
    pub already_there: u64,
    /// Events that an earlier import had brought, and that say something else in the file now. They stay as they were.
    pub differing: u64,
    /// Events whose type got the namespace `imported:`.
    pub renamed: u64,
    /// Events that are no JSON which can be recorded, kept as a text.
    pub as_text: u64,
    /// Events that are no text, kept in base64.
    pub as_bytes: u64,
    /// Events whose audit hash in the file is not that of their payload.
    pub wrong_hashes: u64,
    /// Parts of the file that are not carried over.
    pub skipped: Vec<String>,
    /// Consultations of an archive that are not what was written, and so are not carried over, and why.
    pub damaged: Vec<String>,
}

/// Takes events in, consultation by consultation.
#[derive(Debug)]
pub struct Importer {
    record: Consultations,
    ingest: Ingest,
    from: Box<str>,
    at: String,
    current: Option<Current>,
    /// Consultations that came, by their names in the file.
    came: HashSet<Box<str>>,
    done: ImportSummary,
}

/// The consultation whose events come.
#[derive(Debug)]
struct Current {
    /// Its name in the file, and ours.
    given: Box<str>,
    name: String,
    made: bool,
    /// What the file says of it.
    original: Option<Original>,
    /// Events that are there already, with their digests.
    known: HashMap<Uuid, [u8; 32]>,
    /// Ids that came in this run.
    seen: HashSet<Uuid>,
    position: u64,
    chunk: Vec<Coming>,
    bytes: usize,
}

/// An event on its way.
#[derive(Debug)]
struct Coming {
    record: NewRecord,
    json: String,
    position: u64,
}

impl Importer {
    /// One that brings events of `from`, a file's name, into `record`.
    pub fn new(record: Consultations, from: &str, timezone: &str) -> Self {
        let at = iso(Clock::system().now());
        let ingest = Ingest::new("import", timezone);
        let (came, done) = (HashSet::new(), ImportSummary::default());
        Self { record, ingest, from: from.into(), at, current: None, came, done }
    }

    /// Takes note of what the file says of the consultation `given`, whose events come next. One without events is made
    /// all the same.
    ///
    /// # Errors
    /// See [`Importer::event`].
    pub async fn consultation(&mut self, given: &str, original: Original) -> Result<(), RecordError> {
        self.enter(given).await?;
        if let Some(current) = self.current.as_mut().filter(|_| original != Original::default()) {
            current.original = Some(original);
        }
        Ok(())
    }

    /// Takes note of a part that is not carried over.
    pub fn skipped(&mut self, part: String) {
        self.done.skipped.push(part);
    }

    /// Takes note of a consultation that cannot be carried over.
    pub fn damaged(&mut self, consultation: &str, words: &str) {
        self.done.damaged.push(format!("{consultation}: {words}"));
    }

    /// Takes an event of the consultation `given`, in the order of the file.
    ///
    /// # Errors
    /// The store did not take it. What was taken before stays; another run goes on.
    pub async fn event(&mut self, given: &str, json: String) -> Result<(), RecordError> {
        self.enter(given).await?;
        let Some(current) = &mut self.current else { return Ok(()) };
        current.position += 1;
        let position = current.position;
        let derived = derived(given, position, &json);
        let own = event_id(&json).filter(|id| current.seen.insert(*id));
        let id = own.unwrap_or(derived);
        let foreign = Foreign { given, name: &current.name, from: &self.from, at: &self.at };
        let coming = foreign.read(&mut self.ingest, &json, id, own.is_some())?;
        if let Some(digest) = current.known.get(&id).or_else(|| current.known.get(&derived)) {
            match *digest == coming.record.digest {
                true => self.done.already_there += 1,
                false => self.done.differing += 1,
            }
            return Ok(());
        }
        self.done.renamed += u64::from(coming.renamed);
        self.done.as_text += u64::from(coming.as_text);
        self.done.as_bytes += u64::from(*coming.record.kind == *BYTES);
        self.done.wrong_hashes += u64::from(coming.wrong_hash);
        current.bytes += json.len();
        current.chunk.push(Coming { record: coming.record, json, position });
        if current.chunk.len() >= CHUNK || current.bytes >= CHUNK_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// Events that were appended so far, and those that were there.
    pub fn progress(&self) -> (u64, u64) {
        (self.done.events, self.done.already_there)
    }

    /// Appends what is left.
    ///
    /// # Errors
    /// See [`Importer::event`].
    pub async fn finish(mut self) -> Result<ImportSummary, RecordError> {
        self.leave().await?;
        Ok(self.done)
    }

    /// Makes `given` the consultation whose events come.
    async fn enter(&mut self, given: &str) -> Result<(), RecordError> {
        if self.current.as_ref().is_none_or(|current| *current.given != *given) {
            self.leave().await?;
            self.current = Some(self.begin(given).await?);
        }
        Ok(())
    }

    /// Appends what is left of the consultation whose events came.
    async fn leave(&mut self) -> Result<(), RecordError> {
        self.flush().await?;
        if self.current.as_ref().is_some_and(|current| !current.made && current.original.is_some()) {
            self.make(None).await?;
        }
        Ok(())
    }

    async fn begin(&mut self, given: &str) -> Result<Current, RecordError> {
        let name = our_name(given);
        let mut known = HashMap::new();
        let made = match self.record.find(&name).await {
            Ok(_) => {
                let mut at = 0;
                loop {
                    let some = self.record.events(&name, Range::after(at, STEP)).await?;
                    let Some(last) = some.last() else { break };
                    at = last.sequence;
                    known.extend(some.iter().map(|record| (record.id, record.digest)));
                }
                true
            }
            Err(RecordError::NoConsultation(_)) => false,
            Err(error) => return Err(error),
        };
        self.done.consultations += u64::from(self.came.insert(given.into()));
        let (seen, chunk, original) = (HashSet::new(), Vec::new(), None);
        Ok(Current { given: given.into(), name, made, original, known, seen, position: 0, chunk, bytes: 0 })
    }

    /// Makes the consultation; `user` is the one who said its first event.
    async fn make(&mut self, user: Option<String>) -> Result<(), RecordError> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let Original { meta, mut attributes } = current.original.clone().unwrap_or_default();
        let about = meta.and_then(|meta| serde_json::from_slice::<About>(&meta).ok());
        let (user_id, session_id, patient, earlier) = match about {
            Some(About { user_id, session_id, patient_stub, original }) => {
                (Some(user_id), Some(session_id), patient_stub, original)
            }
            None => (user, None, None, None),
        };
        if let Some(earlier) = earlier {
            // One that had been imported before was made before that.
            attributes.extend(earlier.get("created_at").map(|made| ("created_at".to_owned(), made.clone())));
            attributes.insert("original".to_owned(), earlier);
        }
        attributes.insert("imported_at".to_owned(), self.at.as_str().into());
        attributes.insert("imported_from".to_owned(), (&*self.from).into());
        let patient = patient.map(|patient| raw(&patient));
        let new = NewConsultation {
            user_id: user_id.unwrap_or_else(|| "import".to_owned()),
            patient_stub: patient.as_deref(),
            consultation_id: Some(current.name.clone()),
            session_id: Some(session_id.unwrap_or_else(|| current.given.as_ref().into())),
            original: serde_json::to_string(&attributes).ok(),
        };
        self.record.make(&new, None).await?;
        current.made = true;
        self.done.made += 1;
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), RecordError> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let (chunk, made) = (std::mem::take(&mut current.chunk), current.made);
        current.bytes = 0;
        let Some(first) = chunk.first() else { return Ok(()) };
        if !made {
            self.make(user(&first.record)).await?;
        }
        let Some(current) = &self.current else { return Ok(()) };
        let count = chunk.len() as u64;
        let records = chunk.iter().map(|coming| coming.record.clone()).collect();
        match self.record.append(&current.name, records, None, None).await {
            Err(RecordError::Store(StoreError::Duplicate)) => self.append_renamed(chunk).await?,
            appended => drop(appended?),
        }
        self.done.events += count;
        Ok(())
    }

    /// Appends events some of whose ids another consultation has already: these get ids of their own.
    async fn append_renamed(&mut self, chunk: Vec<Coming>) -> Result<(), RecordError> {
        let Some(current) = &self.current else { return Ok(()) };
        let foreign = Foreign { given: &current.given, name: &current.name, from: &self.from, at: &self.at };
        let mut records = Vec::with_capacity(chunk.len());
        for Coming { record, json, position } in chunk {
            let found = self.record.store().find(record.id).await?;
            records.push(match found {
                Some((stream, _)) if stream != stream_of(&current.name) => {
                    let id = derived(&current.given, position, &json);
                    foreign.read(&mut self.ingest, &json, id, false)?.record
                }
                _ => record,
            });
        }
        self.record.append(&current.name, records, None, None).await?;
        Ok(())
    }
}

/// Where an event comes from and goes to.
struct Foreign<'a> {
    given: &'a str,
    name: &'a str,
    from: &'a str,
    at: &'a str,
}

struct Translated {
    record: NewRecord,
    renamed: bool,
    as_text: bool,
    wrong_hash: bool,
}

#[derive(Serialize)]
struct Envelope<'a> {
    event_type: &'a str,
    payload: &'a RawValue,
    metadata: &'a BTreeMap<String, Box<RawValue>>,
    event_id: Uuid,
}

type Members<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

impl Foreign<'_> {
    /// The record of an event; `own`: `id` is the one that it had.
    fn read(&self, ingest: &mut Ingest, json: &str, id: Uuid, own: bool) -> Result<Translated, RecordError> {
        // What readers would not agree about is not taken apart.
        let members: Option<Members<'_>> =
            canonical(json.as_bytes()).ok().and_then(|_| serde_json::from_str(json).ok());
        let read = members.and_then(|members| self.translate(ingest, members, id, own).ok());
        read.map_or_else(|| self.text(ingest, json, id), Ok)
    }

    fn translate(
        &self,
        ingest: &mut Ingest,
        mut members: Members<'_>,
        id: Uuid,
        own: bool,
    ) -> Result<Translated, RecordError> {
        let mut meta = self.about();
        let text = |value: Option<&RawValue>| value.and_then(|value| serde_json::from_str::<String>(value.get()).ok());
        let payload = match members.remove("payload") {
            Some(payload) if payload.get().starts_with('{') => payload.to_owned(),
            Some(value) => raw(&BTreeMap::from([("value", value)])),
            None => raw(&BTreeMap::<&str, &str>::new()),
        };
        let form = canonical(payload.get().as_bytes())?;
        let given_type = members.remove("event_type");
        let named = text(given_type).unwrap_or_default();
        let kind = our_kind(&named, &form);
        if kind != named {
            meta.extend(given_type.map(|given| ("original_event_type".to_owned(), given.to_owned())));
        }
        let hash = members.remove("audit_hash");
        let wrong_hash = text(hash).is_some_and(|hash| hash.parse::<Hash>() != Ok(sha256(&form).into()));
        meta.extend(hash.map(|hash| ("original_audit_hash".to_owned(), hash.to_owned())));
        if let Some(given) = members.remove("event_id").filter(|_| !own) {
            meta.insert("original_event_id".to_owned(), given.to_owned());
        }
        if let Some(time) = own_time(&members) {
            meta.insert(OCCURRED_AT.to_owned(), raw(&iso(time)));
        }
        if let Some(time) = members.remove("timestamp") {
            meta.insert("original_timestamp".to_owned(), time.to_owned());
        }
        if text(members.get("consultation_id").copied()).is_some_and(|id| id == self.given) {
            members.remove("consultation_id");
        }
        let said = members.remove("metadata").filter(|said| said.get() != "null");
        keep_metadata(&mut meta, said);
        if !members.is_empty() {
            meta.insert("original_members".to_owned(), raw(&members));
        }
        let envelope = Envelope { event_type: &kind, payload: &payload, metadata: &meta, event_id: id };
        let record = ingest.event(&serde_json::to_vec(&envelope).unwrap_or_default(), None)?.record;
        Ok(Translated { record, renamed: kind != named, as_text: false, wrong_hash })
    }

    fn text(&self, ingest: &mut Ingest, json: &str, id: Uuid) -> Result<Translated, RecordError> {
        let (payload, kind) = (raw(&BTreeMap::from([("text", json)])), format!("{SPACE}:TEXT"));
        let envelope = Envelope { event_type: &kind, payload: &payload, metadata: &self.about(), event_id: id };
        let record = ingest.event(&serde_json::to_vec(&envelope).unwrap_or_default(), None)?.record;
        Ok(Translated { record, renamed: false, as_text: true, wrong_hash: false })
    }

    fn about(&self) -> BTreeMap<String, Box<RawValue>> {
        let mut meta =
            BTreeMap::from([("imported_at".to_owned(), raw(self.at)), ("imported_from".to_owned(), raw(self.from))]);
        if self.name != self.given {
            meta.insert("original_consultation_id".to_owned(), raw(self.given));
        }
        meta
    }
}

/// What was said of the event stays where it was; what bears a name of ours moves a step down.
fn keep_metadata(meta: &mut BTreeMap<String, Box<RawValue>>, said: Option<&RawValue>) {
    let Some(said) = said else { return };
    match serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(said.get()) {
        Err(_) => drop(meta.insert("original_metadata".to_owned(), said.to_owned())),
        Ok(members) => {
            let (moved, stay): (BTreeMap<_, _>, BTreeMap<_, _>) =
                members.into_iter().partition(|(name, _)| OURS.contains(&name.as_str()));
            meta.extend(stay);
            if !moved.is_empty() {
                meta.insert("original_metadata".to_owned(), raw(&moved));
            }
        }
    }
}

/// The type under which an event is kept: its own, if it is one of ours and the payload is one of it, or has a
/// namespace; else its own in the namespace of what was imported.
fn our_kind(name: &str, payload: &[u8]) -> String {
    match Kind::read(name) {
        Ok(None) => return name.to_owned(),
        Ok(Some(kind)) if kind.check(payload).is_ok() => return name.to_owned(),
        _ => {}
    }
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "_-.:".contains(letter);
    let clean: String = name.chars().map(|letter| if fits(letter) { letter } else { '_' }).collect();
    let clean = &clean[..clean.len().min(LONGEST_NAME - SPACE.len() - 1)];
    format!("{SPACE}:{}", if clean.is_empty() { "EVENT" } else { clean })
}

/// The id of an event, where that is a UUID.
fn event_id(json: &str) -> Option<Uuid> {
    #[derive(serde::Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        event_id: Cow<'a, str>,
    }
    let named: Named<'_> = serde_json::from_str(json).ok()?;
    Uuid::try_parse(&named.event_id).ok()
}

/// An id for an event that has none of its own: the same for the same event at the same place.
fn derived(given: &str, position: u64, json: &str) -> Uuid {
    let mut hash = Sha256::new();
    for part in ["caudal import", given, json] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.update(position.to_be_bytes());
    let hash: [u8; 32] = hash.finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// A name that a consultation can have.
fn our_name(given: &str) -> String {
    if named(given).is_ok() {
        return given.to_owned();
    }
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
    let clean: String = given.chars().take(100).map(|letter| if fits(letter) { letter } else { '_' }).collect();
    let mark = Hash::from(sha256(given.as_bytes())).to_string();
    format!("{}-{}", clean.trim_start_matches('_'), &mark[..8]).trim_start_matches('-').to_owned()
}

/// Who said it.
fn user(record: &NewRecord) -> Option<String> {
    let meta: serde_json::Value = serde_json::from_slice(&record.meta).ok()?;
    Some(meta["user_id"].as_str()?.to_owned())
}

fn raw(value: &(impl Serialize + ?Sized)) -> Box<RawValue> {
    // Plain data is always JSON.
    to_raw_value(value).unwrap_or_default()
}

#[cfg(test)]
mod tests;
