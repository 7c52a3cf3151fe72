//! An archive of ours that is read by the HDF5 library, because its index is gone or damaged. Its lines hold all of each
//! event, and each group says where its chain begins and ends: what is said has been checked by these.

use caudal_store::{Digest, StreamId, origin};
use serde_json::{Map, Value};

use super::{
    corpus::{CONSULTATIONS, Corpus, EVENTS, Lines, Stopped},
    error::ArchiveError,
    hdf5::{Dataset, Group, Link},
    index::DATASET,
    line, names,
    worker::Said,
};
use crate::consultations::SPACE;

/// Whether a file with these attributes is an archive of ours.
pub(super) fn is_ours(attributes: &Map<String, Value>) -> bool {
    let writer = attributes.get("written_by").and_then(Value::as_str).unwrap_or_default();
    writer.starts_with("caudal ") && ["format_version", "codec"].iter().all(|name| attributes.contains_key(*name))
}

impl Corpus<'_> {
    /// Says all consultations of an archive of ours.
    pub(super) fn archive(&mut self, root: &Group, links: &[Link]) -> Result<(), Stopped> {
        for link in links {
            match link.name.as_str() {
                DATASET => {}
                CONSULTATIONS if link.here => {
                    let group = root.linked_group(link).map_err(|error| self.wrong(error))?;
                    for link in group.links().map_err(|error| self.wrong(error))? {
                        match link.here {
                            true => self.archived(&group, &link)?,
                            false => self.leave_out(&group, &link, CONSULTATIONS)?,
                        }
                    }
                }
                _ => self.leave_out(root, link, "")?,
            }
        }
        Ok(())
    }

    /// Says a consultation, or that it is not what was written. It is read twice, so that nothing is said of one that is not.
    fn archived(&mut self, group: &Group, link: &Link) -> Result<(), Stopped> {
        let name = names::unescape(&link.name).unwrap_or_else(|| link.name.clone());
        match self.checked(group, link, &name) {
            Ok((about, set)) => {
                self.say(&Said::Consultation(name))?;
                self.say(&Said::About(about))?;
                let length = set.length().map_err(|error| self.wrong(error))?;
                let mut lines = Lines::new(&set, length);
                while let Some(line) = lines.next().map_err(|error| self.wrong(error))? {
                    self.event(line)?;
                }
                Ok(())
            }
            Err(Stopped::File(ArchiveError::Damaged { what: words, .. } | ArchiveError::Hdf5 { words, .. })) => {
                self.say(&Said::Damaged { consultation: name, words })
            }
            Err(error) => Err(error),
        }
    }

    fn checked(&mut self, group: &Group, link: &Link, name: &str) -> Result<(Map<String, Value>, Dataset), Stopped> {
        let consultation = group.linked_group(link).map_err(|error| self.wrong(error))?;
        let about = self.attributes(&consultation, &format!("{CONSULTATIONS}/{name}"))?;
        let set = consultation.dataset(EVENTS).and_then(|set| set.check_filters().map(|()| set));
        let set = set.map_err(|error| self.wrong(error))?;
        let file = self.file;
        let damaged = |words: String| Stopped::File(ArchiveError::damaged(file, words));
        let mut chain = Chain::of(name, &about).map_err(damaged)?;
        let mut lines = Lines::new(&set, set.length().map_err(|error| self.wrong(error))?);
        while let Some(line) = lines.next().map_err(|error| self.wrong(error))? {
            chain.follow(&line).map_err(damaged)?;
        }
        chain.end(&about).map_err(damaged)?;
        Ok((about, set))
    }
}

/// The chain of a consultation's events, as far as they have been read.
struct Chain {
    first: u64,
    /// The sequence of the next event, and the link before it.
    sequence: u64,
    before: Digest,
    /// Whether it is known how the chain begins. Archives of format 1 do not say it where it takes more than 32 KiB; then
    /// each event is checked by its own digest alone.
    begins: bool,
}

impl Chain {
    /// Where it begins, by what the consultation's group says.
    fn of(name: &str, about: &Map<String, Value>) -> Result<Self, String> {
        let text = |name: &str| about.get(name).and_then(Value::as_str);
        let first = about.get("first_sequence").and_then(Value::as_u64).unwrap_or(1);
        let created = text("created_at").and_then(line::moment).ok_or("its attribute created_at is no time")?;
        let before = match (text("chain_before"), text("meta")) {
            (Some(link), _) => Some(line::unhex(link).ok_or("its attribute chain_before is no link")?),
            (None, Some(meta)) => Some(origin(&StreamId::new(SPACE, name), created, meta.as_bytes())),
            (None, None) => None,
        };
        Ok(Self { first, sequence: first, begins: before.is_some(), before: before.unwrap_or_default() })
    }

    fn follow(&mut self, line: &[u8]) -> Result<(), String> {
        let wrong = |words: String| format!("event {}: {words}", self.sequence);
        let record = line::read(line, &self.before).map_err(wrong)?;
        if record.sequence != self.sequence {
            return Err(wrong(format!("event {} stands there", record.sequence)));
        }
        if !line::digest_fits(&record) {
            return Err(wrong("its digest does not fit".to_owned()));
        }
        (self.sequence, self.before) = (self.sequence + 1, record.chain);
        Ok(())
    }

    /// Whether it ends as the group says.
    fn end(&self, about: &Map<String, Value>) -> Result<(), String> {
        let count = about.get("event_count").and_then(Value::as_u64);
        let head = about.get("chain_head").and_then(Value::as_str);
        let ends = !self.begins || head == Some(&*line::hex(&self.before));
        match ends && count == Some(self.sequence - self.first) {
            true => Ok(()),
            false => Err("its events do not make the chain that it says".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn archives_of_ours_are_known_by_what_they_say() {
        let about = |value: Value| is_ours(value.as_object().unwrap());
        assert!(about(json!({"written_by": "caudal 0.1.0", "format_version": 1, "codec": "lzf"})));
        assert!(!about(json!({"written_by": "h5py", "format_version": 1, "codec": "lzf"})));
        assert!(!about(json!({"written_by": "caudal 0.1.0"})));
    }
}
