//! The contents of an HDF5 file of others, said item by item: consultations with their events, then interactions and
//! embeddings as events of the consultations they belong to. Everything that is left out is named, with its size.

use std::{collections::BTreeMap, io, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};

use super::{
    error::ArchiveError,
    hdf5::{self, Class, Dataset, Failed, Group},
    names,
    worker::Said,
};

/// Rows that are read in one go.
const ROWS: u64 = 256;
/// Bytes that are read in one go.
const PIECE: u64 = 1 << 20;
/// The groups that are known.
const CONSULTATIONS: &str = "consultations";
const INTERACTIONS: &str = "interactions";
const EMBEDDINGS: &str = "embeddings";
const METADATA: &str = "metadata";

/// Why reading ended early.
pub(super) enum Stopped {
    /// Nobody takes what is said.
    Output(io::Error),
    /// The file is wrong.
    File(ArchiveError),
}

/// Takes what is said.
pub(super) type Tell<'a> = &'a mut dyn FnMut(&Said) -> io::Result<()>;

/// Reads `file` from its beginning to its end.
pub(super) fn read(file: &Path, tell: Tell<'_>) -> Result<(), Stopped> {
    let hdf5 = hdf5::File::open(file).map_err(|error| Stopped::File(ArchiveError::hdf5(file)(error)))?;
    let mut corpus = Corpus { file, tell, events: 0, about: Map::new() };
    corpus.all(&hdf5)?;
    let events = corpus.events;
    corpus.say(&Said::Done(events))
}

struct Corpus<'a> {
    file: &'a Path,
    tell: Tell<'a>,
    events: u64,
    /// Attributes of the file as a whole.
    about: Map<String, Value>,
}

impl Corpus<'_> {
    fn say(&mut self, said: &Said) -> Result<(), Stopped> {
        self.events += u64::from(matches!(said, Said::Event(_)));
        (self.tell)(said).map_err(Stopped::Output)
    }

    fn skip(&mut self, part: impl Into<String>) -> Result<(), Stopped> {
        self.say(&Said::Skipped(part.into()))
    }

    fn wrong(&self, error: Failed) -> Stopped {
        Stopped::File(ArchiveError::hdf5(self.file)(error))
    }

    fn all(&mut self, hdf5: &hdf5::File) -> Result<(), Stopped> {
        let root = hdf5.root().map_err(|error| self.wrong(error))?;
        let links = root.links().map_err(|error| self.wrong(error))?;
        if !links.iter().any(|link| link.name == CONSULTATIONS && link.here) {
            return Err(self.wrong(Failed(format!("it has no group {CONSULTATIONS}"))));
        }
        self.about = self.attributes(&root, "")?;
        for link in &links {
            let name = link.name.as_str();
            match name {
                _ if !link.here => self.skip(format!("{name} (a link to another place, not followed)"))?,
                METADATA => {
                    let group = root.group(METADATA).map_err(|error| self.wrong(error))?;
                    let attributes = self.attributes(&group, METADATA)?;
                    self.about.extend(attributes);
                    self.skip_members(&group, METADATA)?;
                }
                CONSULTATIONS | INTERACTIONS | EMBEDDINGS => {}
                _ => {
                    let size = size_of(&root, name);
                    self.skip(format!("{name}{size}"))?;
                }
            }
        }
        self.consultations(&root)?;
        let has = |name: &str| links.iter().any(|link| link.name == name && link.here);
        let sessions = if has(INTERACTIONS) { self.interactions(&root)? } else { BTreeMap::new() };
        if has(EMBEDDINGS) {
            self.embeddings(&root, &sessions)?;
        }
        Ok(())
    }

    /// Attributes of a group; those that are neither a text nor a number are named as left out.
    fn attributes(&mut self, group: &Group, path: &str) -> Result<Map<String, Value>, Stopped> {
        let mut all = Map::new();
        for (name, value) in group.attributes().map_err(|error| self.wrong(error))? {
            match value {
                Some(value) => drop(all.insert(name, value)),
                None => self.skip(format!("{path}/@{name} (an attribute that is neither a text nor a number)"))?,
            }
        }
        Ok(all)
    }

    fn skip_members(&mut self, group: &Group, path: &str) -> Result<(), Stopped> {
        for link in group.links().map_err(|error| self.wrong(error))? {
            let size = size_of(group, &link.name);
            self.skip(format!("{path}/{}{size}", link.name))?;
        }
        Ok(())
    }

    fn consultations(&mut self, root: &Group) -> Result<(), Stopped> {
        let group = root.group(CONSULTATIONS).map_err(|error| self.wrong(error))?;
        for link in group.links().map_err(|error| self.wrong(error))? {
            let path = format!("{CONSULTATIONS}/{}", link.name);
            if !link.here {
                self.skip(format!("{path} (a link to another place, not followed)"))?;
                continue;
            }
            let consultation = group.group(&link.name).map_err(|error| self.wrong(error))?;
            // Names of ours are escaped; those of others stay as they are.
            let name = names::unescape(&link.name).unwrap_or_else(|| link.name.clone());
            let mut about = self.attributes(&consultation, &path)?;
            if !self.about.is_empty() {
                about.insert("corpus".to_owned(), Value::Object(self.about.clone()));
            }
            self.say(&Said::Consultation(name))?;
            self.say(&Said::About(about))?;
            for part in consultation.links().map_err(|error| self.wrong(error))? {
                match part.name.as_str() {
                    "events" if part.here => {
                        let set = consultation.dataset("events").map_err(|error| self.wrong(error))?;
                        self.events(&set, &path)?;
                    }
                    // Where lines of `events` begin: it follows from these.
                    "offsets" if part.here => {}
                    _ => {
                        let size = size_of(&consultation, &part.name);
                        self.skip(format!("{path}/{}{size}", part.name))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn events(&mut self, set: &Dataset, path: &str) -> Result<(), Stopped> {
        let length = set.length().map_err(|error| self.wrong(error))?;
        if set.class().map_err(|error| self.wrong(error))? == Class::Bytes {
            return self.lines(set, length);
        }
        let mut empty = 0_u64;
        for start in (0..length).step_by(ROWS as usize) {
            for text in set.strings(start, ROWS.min(length - start) as usize).map_err(|error| self.wrong(error))? {
                match text.is_empty() {
                    true => empty += 1,
                    false => self.event(text)?,
                }
            }
        }
        match empty {
            0 => Ok(()),
            empty => self.skip(format!("{path}/events ({empty} empty rows)")),
        }
    }

    /// Events that stand as lines in a dataset of bytes, as in archives of ours. What fills up the last chunk are zeros.
    fn lines(&mut self, set: &Dataset, length: u64) -> Result<(), Stopped> {
        let mut rest: Vec<u8> = Vec::new();
        for start in (0..length).step_by(PIECE as usize) {
            rest.extend(set.bytes(start, PIECE.min(length - start) as usize).map_err(|error| self.wrong(error))?);
            while let Some(end) = memchr::memchr(b'\n', &rest) {
                let line: Vec<u8> = rest.drain(..=end).take(end).collect();
                self.event(line)?;
            }
        }
        match rest.iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(self.wrong(Failed("the last line of a dataset of events does not end".to_owned()))),
        }
    }

    /// An event as it stands there; bytes that are no text are kept as base64.
    fn event(&mut self, bytes: Vec<u8>) -> Result<(), Stopped> {
        let text = String::from_utf8(bytes).unwrap_or_else(|error| {
            let payload = json!({"base64": BASE64_STANDARD.encode(error.as_bytes())});
            json!({"event_type": "imported:BYTES", "payload": payload}).to_string()
        });
        self.say(&Said::Event(text))
    }

    /// Rows of interactions, as events of their sessions; gives the session of each interaction.
    fn interactions(&mut self, root: &Group) -> Result<BTreeMap<String, String>, Stopped> {
        let group = root.group(INTERACTIONS).map_err(|error| self.wrong(error))?;
        let table = self.table(&group, INTERACTIONS)?;
        let (mut sessions, mut by_session) = (BTreeMap::new(), BTreeMap::<String, Vec<u64>>::new());
        for row in 0..table.length {
            let text = |name: &str| table.text(name, row).map_err(|error| self.wrong(error));
            let session = text("session_id")?.unwrap_or_else(|| INTERACTIONS.to_owned());
            if let Some(id) = text("interaction_id")? {
                sessions.insert(id, session.clone());
            }
            by_session.entry(session).or_default().push(row);
        }
        for (session, rows) in by_session {
            self.rows(&table, "imported:INTERACTION", &session, &rows)?;
        }
        Ok(sessions)
    }

    /// Rows of embeddings, as events of the sessions of their interactions.
    fn embeddings(&mut self, root: &Group, sessions: &BTreeMap<String, String>) -> Result<(), Stopped> {
        let group = root.group(EMBEDDINGS).map_err(|error| self.wrong(error))?;
        let table = self.table(&group, EMBEDDINGS)?;
        let mut by_session = BTreeMap::<String, Vec<u64>>::new();
        for row in 0..table.length {
            let id = table.text("interaction_id", row).map_err(|error| self.wrong(error))?;
            let session = id.and_then(|id| sessions.get(&id).cloned());
            by_session.entry(session.unwrap_or_else(|| EMBEDDINGS.to_owned())).or_default().push(row);
        }
        for (session, rows) in by_session {
            self.rows(&table, "imported:EMBEDDING", &session, &rows)?;
        }
        Ok(())
    }

    fn rows(&mut self, table: &Table, kind: &str, session: &str, rows: &[u64]) -> Result<(), Stopped> {
        self.say(&Said::Consultation(session.to_owned()))?;
        for row in rows {
            let payload = table.row(*row).map_err(|error| self.wrong(error))?;
            let id = payload.get("interaction_id").filter(|_| kind == "imported:INTERACTION").cloned();
            let mut event = json!({"event_type": kind});
            event["metadata"] = json!({"session_id": session});
            if let Some(id) = id {
                event["event_id"] = id;
            }
            if let Some(time) = payload.get("timestamp") {
                event["timestamp"] = time.clone();
            }
            event["payload"] = Value::Object(payload);
            self.say(&Said::Event(event.to_string()))?;
        }
        Ok(())
    }

    /// A group of columns. Columns that cannot be read, or are shorter than others, are named as left out.
    fn table(&mut self, group: &Group, path: &str) -> Result<Table, Stopped> {
        let mut columns = Vec::new();
        for link in group.links().map_err(|error| self.wrong(error))? {
            let column = if link.here { Column::open(group, &link.name) } else { None };
            match column {
                Some(column) => columns.push(column),
                None => self.skip(format!("{path}/{}{}", link.name, size_of(group, &link.name)))?,
            }
        }
        let length = columns.iter().map(|column| column.length).max().unwrap_or(0);
        for column in columns.iter().filter(|column| column.length < length) {
            let (name, has) = (column.name.clone(), column.length);
            self.skip(format!("{path}/{name} (it has {has} rows and others {length}: the last ones lack it)"))?;
        }
        Ok(Table { columns, length })
    }
}

/// Columns of the same rows.
struct Table {
    columns: Vec<Column>,
    length: u64,
}

struct Column {
    name: String,
    set: Dataset,
    class: Class,
    length: u64,
    /// Numbers of a row, where there are several.
    width: Option<usize>,
}

impl Column {
    fn open(group: &Group, name: &str) -> Option<Self> {
        let set = group.dataset(name).ok()?;
        let (class, shape) = (set.class().ok()?, set.shape().ok()?);
        let (length, width) = match (shape[..].len(), class) {
            (1, Class::Text | Class::Bytes | Class::Integer | Class::Float) => (shape[0], None),
            (2, Class::Float) => (shape[0], Some(usize::try_from(shape[1]).ok()?)),
            _ => return None,
        };
        Some(Self { name: name.to_owned(), set, class, length, width })
    }

    fn value(&self, row: u64) -> Result<Option<Value>, Failed> {
        if row >= self.length {
            return Ok(None);
        }
        Ok(Some(match (self.class, self.width) {
            (_, Some(width)) => {
                let bytes: Vec<u8> = self.set.row(row, width)?.into_iter().flat_map(f32::to_le_bytes).collect();
                json!({"dimensions": width, "float32_base64": BASE64_STANDARD.encode(bytes)})
            }
            (Class::Text, _) => self.set.strings(row, 1)?.first().map_or(Value::Null, |text| text_value(text)),
            (Class::Float, _) => self.set.doubles(row, 1)?.first().copied().into(),
            _ => self.set.integers(row, 1)?.first().copied().into(),
        }))
    }
}

impl Table {
    fn row(&self, row: u64) -> Result<Map<String, Value>, Failed> {
        let mut payload = Map::new();
        for column in &self.columns {
            if let Some(value) = column.value(row)? {
                payload.insert(column.name.clone(), value);
            }
        }
        Ok(payload)
    }

    fn text(&self, name: &str, row: u64) -> Result<Option<String>, Failed> {
        let Some(column) = self.columns.iter().find(|column| column.name == name) else { return Ok(None) };
        Ok(column.value(row)?.and_then(|value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)))
    }
}

/// A text as JSON; bytes that are none as base64.
fn text_value(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({"base64": BASE64_STANDARD.encode(bytes)}),
    }
}

/// How large a part is that is left out: rows of a dataset, members of a group; nothing where that cannot be read.
fn size_of(group: &Group, name: &str) -> String {
    if let Ok(inner) = group.group(name) {
        return inner.links().map_or_else(|_| String::new(), |links| format!(" (a group of {})", links.len()));
    }
    let shape = group.dataset(name).and_then(|set| set.shape()).unwrap_or_default();
    shape.first().map_or_else(String::new, |rows| format!(" ({rows} rows)"))
}
