//! The contents of an archive of ours, for an import: read by its index. The bytes and the links of each consultation are
//! checked before any of its events are given out; one that is damaged is named.

use std::{collections::VecDeque, path::Path, sync::Arc};

use super::{
    codec::Codec,
    error::ArchiveError,
    import::{Imported, Original},
    line,
    reader::{Part, Reader},
};
use crate::{consultations::SPACE, time::iso};

/// Records that are read in one go.
const STEP: usize = 1_000;

/// The contents of an archive, stream by stream.
pub struct Own {
    reader: Reader,
    /// Streams that are still to come.
    parts: VecDeque<Part>,
    /// The stream that is read, and the sequence of the last record that was read of it.
    current: Option<(Part, u64)>,
    /// What is given out next.
    ready: VecDeque<Imported>,
    failed: bool,
}

impl Own {
    /// Opens `file` where it is an archive of ours, and checks its consultations; `None` where it is another file.
    ///
    /// # Errors
    /// Where it is an archive whose index is damaged, or of a later format.
    pub(super) fn open(file: &Path) -> Result<Option<Self>, ArchiveError> {
        let reader = match Reader::open(file) {
            Ok(reader) => reader,
            // The HDF5 library knows better what is wrong with a file that is not ours.
            Err(ArchiveError::NotHdf5 { .. } | ArchiveError::NotOurs { .. } | ArchiveError::Truncated { .. }) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let (mut parts, damaged) = reader.sift(threads)?;
        parts.sort_by(|one, other| one.stream.id.name.cmp(&other.stream.id.name));
        let damaged = damaged
            .into_iter()
            .map(|(id, error)| Imported::Damaged { consultation: Arc::from(&*id.name), words: error.to_string() });
        Ok(Some(Self { reader, parts: parts.into(), current: None, ready: damaged.collect(), failed: false }))
    }

    /// Its codec.
    pub fn codec(&self) -> Codec {
        self.reader.summary().codec
    }

    fn advance(&mut self) -> Result<Option<Imported>, ArchiveError> {
        loop {
            if let Some(found) = self.ready.pop_front() {
                return Ok(Some(found));
            }
            match self.current.take() {
                Some((part, after)) if after < part.last => self.read(part, after)?,
                _ => match self.parts.pop_front() {
                    Some(part) => self.begin(part),
                    None => return Ok(None),
                },
            }
        }
    }

    fn begin(&mut self, part: Part) {
        let id = &part.stream.id;
        let count = (part.last + 1).saturating_sub(part.first);
        if *id.space != *SPACE {
            self.ready.push_back(Imported::Skipped(format!("{}s/{} ({count} records)", id.space, id.name)));
            return;
        }
        let head = &part.stream.head;
        let mut attributes = serde_json::Map::new();
        for (name, value) in [
            ("created_at", iso(part.stream.created).into()),
            ("updated_at", iso(head.time).into()),
            ("event_count", head.sequence.into()),
            ("first_sequence", part.first.into()),
            ("chain_head", line::hex(&part.link).into()),
        ] {
            attributes.insert(name.to_owned(), value);
        }
        let original = Original { meta: Some(part.stream.meta.as_ref().into()), attributes };
        self.ready.push_back(Imported::Consultation { name: Arc::from(&*id.name), original });
        let after = part.first.saturating_sub(1);
        self.current = Some((part, after));
    }

    fn read(&mut self, part: Part, after: u64) -> Result<(), ArchiveError> {
        let records = self.reader.read(&part.stream.id, after, STEP)?;
        let Some(last) = records.last().map(|record| record.sequence) else { return Ok(()) };
        let consultation: Arc<str> = Arc::from(&*part.stream.id.name);
        for record in &records {
            let mut bytes = Vec::new();
            line::write(&mut bytes, &part.stream.id, record);
            bytes.pop();
            let json = String::from_utf8(bytes)
                .map_err(|_| self.reader.damaged(format!("record {} is no text", record.sequence)))?;
            self.ready.push_back(Imported::Event { consultation: Arc::clone(&consultation), json });
        }
        self.current = Some((part, last));
        Ok(())
    }
}

impl Iterator for Own {
    type Item = Result<Imported, ArchiveError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let found = self.advance().transpose();
        self.failed = matches!(found, Some(Err(_)));
        found
    }
}
