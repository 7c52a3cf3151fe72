//! The contents of an HDF5 file of others, said item by item: consultations with their events, then interactions and
//! embeddings as events of the consultations they belong to. Everything that is left out is named, with its size.
//!
//! Events are for ever, so nothing is said before all datasets of events have been looked at: whether they are some that can
//! be read.

use std::{collections::BTreeMap, io, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};

use super::{
    columns::Table,
    error::ArchiveError,
    hdf5::{self, Class, Dataset, Failed, Group, Link},
    names, unindexed,
    worker::Said,
};
use crate::imports::BYTES;

/// Rows that are read in one go.
const ROWS: u64 = 256;
/// Bytes that are read in one go.
const PIECE: u64 = 1 << 20;
/// The groups that are known.
pub(super) const CONSULTATIONS: &str = "consultations";
const INTERACTIONS: &str = "interactions";
const EMBEDDINGS: &str = "embeddings";
const METADATA: &str = "metadata";
/// The datasets of a consultation that are known.
pub(super) const EVENTS: &str = "events";
const OFFSETS: &str = "offsets";

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
    let wrong = |error| Stopped::File(ArchiveError::hdf5(file)(error));
    hdf5::register_filters().map_err(wrong)?;
    let hdf5 = hdf5::File::open(file).map_err(wrong)?;
    let mut corpus = Corpus { file, tell, events: 0, about: Map::new() };
    corpus.all(&hdf5)?;
    let events = corpus.events;
    corpus.say(&Said::Done(events))
}

pub(super) struct Corpus<'a> {
    pub(super) file: &'a Path,
    tell: Tell<'a>,
    events: u64,
    /// Attributes of the file as a whole.
    about: Map<String, Value>,
}

impl Corpus<'_> {
    pub(super) fn say(&mut self, said: &Said) -> Result<(), Stopped> {
        self.events += u64::from(matches!(said, Said::Event(_)));
        (self.tell)(said).map_err(Stopped::Output)
    }

    pub(super) fn skip(&mut self, part: impl Into<String>) -> Result<(), Stopped> {
        self.say(&Said::Skipped(part.into()))
    }

    pub(super) fn wrong(&self, error: Failed) -> Stopped {
        Stopped::File(ArchiveError::hdf5(self.file)(error))
    }

    /// What is wrong with the part of the file that `path` names.
    fn wrong_at(&self, path: &str) -> impl Fn(Failed) -> Stopped + use<> {
        let (file, path) = (self.file.to_owned(), path.to_owned());
        move |Failed(words)| Stopped::File(ArchiveError::hdf5(&file)(Failed(format!("{path}: {words}"))))
    }

    fn all(&mut self, hdf5: &hdf5::File) -> Result<(), Stopped> {
        let root = hdf5.root().map_err(|error| self.wrong(error))?;
        let links = root.links().map_err(|error| self.wrong(error))?;
        let is_group = |link: &Link| link.here && root.linked_group(link).is_ok();
        let has = |name: &str| links.iter().any(|link| link.name == name && is_group(link));
        self.about = self.attributes(&root, "")?;
        if unindexed::is_ours(&self.about) {
            return self.archive(&root, &links);
        }
        if !has(CONSULTATIONS) {
            return Err(self.wrong(Failed(format!("it has no group {CONSULTATIONS} of its own"))));
        }
        let (group, consultations) = self.look(&root)?;
        for link in &links {
            let name = link.name.as_str();
            match name {
                METADATA if has(METADATA) => {
                    let group = root.linked_group(link).map_err(self.wrong_at(METADATA))?;
                    let attributes = self.attributes(&group, METADATA)?;
                    self.about.extend(attributes);
                    self.skip_members(&group, METADATA)?;
                }
                CONSULTATIONS | INTERACTIONS | EMBEDDINGS if has(name) => {}
                _ => self.leave_out(&root, link, "")?,
            }
        }
        for link in &consultations {
            self.consultation(&group, link)?;
        }
        let sessions = if has(INTERACTIONS) { self.interactions(&root)? } else { BTreeMap::new() };
        if has(EMBEDDINGS) {
            self.embeddings(&root, &sessions)?;
        }
        Ok(())
    }

    /// Names a part that is not carried over: what a link leads to, with its size, which is not looked at where that may be
    /// in another file.
    pub(super) fn leave_out(&mut self, group: &Group, link: &Link, path: &str) -> Result<(), Stopped> {
        let name = if path.is_empty() { link.name.clone() } else { format!("{path}/{}", link.name) };
        let size = if link.here { size_of(group, link) } else { " (a link to another place, not followed)".to_owned() };
        self.skip(format!("{name}{size}"))
    }

    /// Attributes of a group; those that are neither a text nor a number are named as left out.
    pub(super) fn attributes(&mut self, group: &Group, path: &str) -> Result<Map<String, Value>, Stopped> {
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
        for link in group.links().map_err(self.wrong_at(path))? {
            self.leave_out(group, &link, path)?;
        }
        Ok(())
    }

    /// The group of consultations and which there are, after it has been looked whether all their events can be read.
    fn look(&mut self, root: &Group) -> Result<(Group, Vec<Link>), Stopped> {
        let group = root.group(CONSULTATIONS).map_err(self.wrong_at(CONSULTATIONS))?;
        for (name, _) in group.attributes().map_err(self.wrong_at(CONSULTATIONS))? {
            self.skip(format!("{CONSULTATIONS}/@{name} (an attribute of all consultations)"))?;
        }
        let mut found = Vec::new();
        for link in group.links().map_err(self.wrong_at(CONSULTATIONS))? {
            let path = format!("{CONSULTATIONS}/{}", link.name);
            let opened = if link.here { group.linked_group(&link) } else { Err(Failed(String::new())) };
            let consultation = match opened {
                Ok(consultation) => consultation,
                Err(_) if !link.here || group.linked_dataset(&link).is_ok() => {
                    self.leave_out(&group, &link, CONSULTATIONS)?;
                    continue;
                }
                Err(error) => return Err(self.wrong_at(&path)(error)),
            };
            for part in consultation.links().map_err(self.wrong_at(&path))? {
                if part.name == EVENTS && part.here {
                    self.check_events(&consultation, &part, &path)?;
                }
            }
            found.push(link);
        }
        Ok((group, found))
    }

    /// Whether a dataset of events is one whose elements are texts, or bytes of lines.
    fn check_events(&self, consultation: &Group, link: &Link, path: &str) -> Result<(), Stopped> {
        let path = format!("{path}/{EVENTS}");
        let wrong = self.wrong_at(&path);
        let set = consultation.linked_dataset(link).map_err(&wrong)?;
        let (class, shape) = (set.class().map_err(&wrong)?, set.shape().map_err(&wrong)?);
        let refuse = |words: String| {
            Err(Stopped::File(ArchiveError::NotEvents { path: self.file.to_owned(), words: format!("{path} {words}") }))
        };
        match class {
            Class::Text | Class::Bytes if shape.len() == 1 => set.check_filters().map_err(&wrong),
            Class::Text | Class::Bytes => refuse(format!("has {} dimensions instead of one", shape.len())),
            Class::Compound => {
                let members = set.members().map_err(&wrong)?.join(", ");
                refuse(format!("holds several values for each event ({members}) instead of its JSON alone"))
            }
            _ => refuse("holds neither strings nor bytes".to_owned()),
        }
    }

    fn consultation(&mut self, group: &Group, link: &Link) -> Result<(), Stopped> {
        let path = format!("{CONSULTATIONS}/{}", link.name);
        let consultation = &group.linked_group(link).map_err(self.wrong_at(&path))?;
        // Names of ours are escaped; those of others stay as they are.
        let name = names::unescape(&link.name).unwrap_or_else(|| link.name.clone());
        let mut about = self.attributes(consultation, &path)?;
        if !self.about.is_empty() {
            about.insert("corpus".to_owned(), Value::Object(self.about.clone()));
        }
        self.say(&Said::Consultation(name))?;
        self.say(&Said::About(about))?;
        for part in consultation.links().map_err(self.wrong_at(&path))? {
            match part.name.as_str() {
                EVENTS if part.here => {
                    let set = consultation.linked_dataset(&part).map_err(self.wrong_at(&path))?;
                    for name in set.attribute_names().map_err(self.wrong_at(&path))? {
                        self.skip(format!("{path}/{EVENTS}/@{name} (an attribute of a dataset)"))?;
                    }
                    self.events(&set, &path)?;
                }
                // Where lines of `events` begin: it follows from these.
                OFFSETS if part.here => {}
                _ => self.leave_out(consultation, &part, &path)?,
            }
        }
        Ok(())
    }

    fn events(&mut self, set: &Dataset, path: &str) -> Result<(), Stopped> {
        let wrong = self.wrong_at(&format!("{path}/{EVENTS}"));
        let length = set.length().map_err(&wrong)?;
        let (mut empty, mut filled) = (0_u64, 0_u64);
        if set.class().map_err(&wrong)? == Class::Bytes {
            let mut lines = Lines::new(set, length);
            while let Some(line) = lines.next().map_err(&wrong)? {
                match line.trim_ascii().is_empty() {
                    true => empty += 1,
                    false => self.event(line)?,
                }
            }
            return self.skip_empty(path, empty, "empty lines");
        }
        let fill = set.fill_text().map_err(&wrong)?;
        for start in (0..length).step_by(ROWS as usize) {
            for text in set.strings(start, ROWS.min(length - start) as usize).map_err(&wrong)? {
                match text {
                    text if text.is_empty() => empty += 1,
                    text if Some(&text) == fill.as_ref() => filled += 1,
                    text => self.event(text)?,
                }
            }
        }
        self.skip_empty(path, empty, "empty rows")?;
        self.skip_empty(path, filled, "rows that hold the fill value, as those do that nothing was written to")
    }

    fn skip_empty(&mut self, path: &str, count: u64, what: &str) -> Result<(), Stopped> {
        if count == 0 { Ok(()) } else { self.skip(format!("{path}/{EVENTS} ({count} {what})")) }
    }

    /// An event as it stands there; bytes that are no text are kept as base64.
    pub(super) fn event(&mut self, bytes: Vec<u8>) -> Result<(), Stopped> {
        let text = String::from_utf8(bytes).unwrap_or_else(|error| {
            let payload = json!({"base64": BASE64_STANDARD.encode(error.as_bytes())});
            json!({"event_type": BYTES, "payload": payload}).to_string()
        });
        self.say(&Said::Event(text))
    }

    /// Rows of interactions, as events of their sessions; gives the session of each interaction.
    fn interactions(&mut self, root: &Group) -> Result<BTreeMap<String, String>, Stopped> {
        let (table, rows) = self.table(root, INTERACTIONS)?;
        let (mut sessions, mut by_session) = (BTreeMap::new(), BTreeMap::<String, Vec<u64>>::new());
        for row in rows {
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
        let (table, rows) = self.table(root, EMBEDDINGS)?;
        let mut by_session = BTreeMap::<String, Vec<u64>>::new();
        for row in rows {
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
            let Some(payload) = table.row(*row).map_err(|error| self.wrong(error))? else { continue };
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

    /// The columns of a group, and its rows that something was written to. What is left out is named.
    fn table(&mut self, root: &Group, name: &str) -> Result<(Table, Vec<u64>), Stopped> {
        let wrong = self.wrong_at(name);
        let opened = root.group(name).and_then(|group| Table::open(&group, name));
        let (table, left_out) = opened.map_err(&wrong)?;
        for part in left_out {
            self.skip(part)?;
        }
        let mut rows = Vec::new();
        for row in 0..table.length {
            if table.row(row).map_err(&wrong)?.is_some() {
                rows.push(row);
            }
        }
        let empty = table.length - rows.len() as u64;
        if empty > 0 {
            self.skip(format!("{name} ({empty} empty rows)"))?;
        }
        Ok((table, rows))
    }
}

/// Lines that stand in a dataset of bytes, as in archives of ours. What fills up the last chunk are zeros.
pub(super) struct Lines<'a> {
    set: &'a Dataset,
    length: u64,
    /// How many bytes have been read, of which those from `at` on have not been given out.
    read: u64,
    bytes: Vec<u8>,
    at: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(set: &'a Dataset, length: u64) -> Self {
        Self { set, length, read: 0, bytes: Vec::new(), at: 0 }
    }

    /// The next line, without its end.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, Failed> {
        let mut looked = self.at;
        loop {
            if let Some(length) = memchr::memchr(b'\n', &self.bytes[looked..]) {
                let line = self.bytes[self.at..looked + length].to_vec();
                self.at = looked + length + 1;
                return Ok(Some(line));
            }
            if self.read == self.length {
                return match self.bytes[self.at..].iter().all(|byte| *byte == 0) {
                    true => Ok(None),
                    false => Err(Failed("the last line of a dataset of events does not end".to_owned())),
                };
            }
            self.bytes.drain(..self.at);
            (self.at, looked) = (0, self.bytes.len());
            let more = self.set.bytes(self.read, PIECE.min(self.length - self.read) as usize)?;
            self.read += more.len() as u64;
            self.bytes.extend(more);
        }
    }
}

/// How large a part is that is left out: rows of a dataset, members of a group; nothing where that cannot be read.
pub(super) fn size_of(group: &Group, link: &Link) -> String {
    if let Ok(inner) = group.linked_group(link) {
        return inner.links().map_or_else(|_| String::new(), |links| format!(" (a group of {})", links.len()));
    }
    let shape = group.linked_dataset(link).and_then(|set| set.shape()).unwrap_or_default();
    shape.first().map_or_else(String::new, |rows| format!(" ({rows} rows)"))
}
