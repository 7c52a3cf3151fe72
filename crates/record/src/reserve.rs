//! Notes of who read what that cannot be recorded now, because the disk is full or cannot be written. They lie in a file
//! whose room was taken while there was some, so that reads go on; once records can be written again they go there.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::fs::{FallocateFlags, FlockOperation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Bytes of the file: some thousands of notes, and what is counted behind them.
const RESERVE_BYTES: u64 = 1 << 20;
/// Bytes at its end for the count of reads without a note.
const UNNOTED_BYTES: u64 = 512;
/// Bytes that notes may hold while they wait.
const NOTES_BYTES: u64 = RESERVE_BYTES - UNNOTED_BYTES;
/// Servers that share a folder, each with a reserve of its own.
const SERVERS: usize = 16;
/// Most notes that wait, though writing them fails and the room for them is not used up.
const MAX_WAITING_NOTES: usize = 8_192;

/// A note that waits to be recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WaitingNote {
    pub(crate) id: Uuid,
    pub(crate) kind: String,
    /// In canonical form, both.
    pub(crate) meta: String,
    pub(crate) body: String,
}

/// Reads of which no note could be kept, because the room for notes was full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unnoted {
    pub(crate) count: u64,
    /// When the first of them was.
    pub(crate) since: String,
    /// When the last of them was.
    pub(crate) until: String,
}

/// Room for notes that wait.
#[derive(Debug, Default)]
pub(crate) struct Reserve {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    notes: Vec<WaitingNote>,
    bytes: u64,
    unnoted: Option<Unnoted>,
    /// None where there is no folder for it: the notes are in memory alone.
    file: Option<File>,
}

impl Reserve {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the room on disk, and reads what a process before this one left there. Servers that share a database share
    /// the folder as well: each takes the first file that no other one has locked.
    pub(crate) fn prepare(&self, path: &Path) {
        let paths = (1..=SERVERS).map(|number| match number {
            1 => path.to_owned(),
            number => path.with_extension(format!("reserve-{number}")),
        });
        for path in paths {
            match open(&path) {
                Ok(Some(waiting)) => {
                    *self.lock() = waiting;
                    return;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!("no room is kept for the audit log in {}: {error}", path.display());
                    return;
                }
            }
        }
        tracing::warn!("no room is kept for the audit log: {SERVERS} other servers use {}", path.display());
    }

    /// Keeps a note until it can be recorded; `false` if there is no room for it.
    pub(crate) fn put(&self, note: WaitingNote) -> bool {
        let Ok(mut line) = serde_json::to_vec(&note) else { return false };
        line.push(b'\n');
        let mut waiting = self.lock();
        let end = waiting.bytes + line.len() as u64;
        if end > NOTES_BYTES || waiting.notes.len() >= MAX_WAITING_NOTES {
            return false;
        }
        let written =
            waiting.file.as_ref().map(|file| file.write_all_at(&line, waiting.bytes).and_then(|()| file.sync_data()));
        match written {
            // The next note is written over it: a hole would end the reading of the file before those behind it.
            Some(Err(error)) => tracing::error!("a note of the audit log is in memory alone: {error}"),
            _ => waiting.bytes = end,
        }
        waiting.notes.push(note);
        true
    }

    /// Counts a read at `time` of which no note can be kept.
    pub(crate) fn count_unnoted(&self, time: String) {
        let mut waiting = self.lock();
        let unnoted = match waiting.unnoted.take() {
            None => Unnoted { count: 1, since: time.clone(), until: time },
            Some(before) => Unnoted { count: before.count + 1, until: time, ..before },
        };
        waiting.write_count(Some(unnoted));
    }

    /// The reads of which no note was kept, and which no entry of the audit log counts yet.
    pub(crate) fn unnoted(&self) -> Option<Unnoted> {
        self.lock().unnoted.clone()
    }

    /// An entry of the audit log counts `counted`.
    pub(crate) fn unnoted_recorded(&self, counted: &Unnoted) {
        let mut waiting = self.lock();
        let left = waiting.unnoted.take().filter(|now| now.count > counted.count);
        waiting.write_count(left.map(|now| {
            let (count, since) = (now.count - counted.count, counted.until.clone());
            Unnoted { count, since, ..now }
        }));
    }

    /// How many notes wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().notes.len()
    }

    /// Whether nothing waits to be recorded.
    pub(crate) fn is_empty(&self) -> bool {
        let waiting = self.lock();
        waiting.notes.is_empty() && waiting.unnoted.is_none()
    }

    /// The first notes that wait.
    pub(crate) fn first(&self, most: usize) -> Vec<WaitingNote> {
        self.lock().notes.iter().take(most).cloned().collect()
    }

    /// The first `count` notes have been recorded.
    pub(crate) fn recorded(&self, count: usize) {
        let mut waiting = self.lock();
        let count = count.min(waiting.notes.len());
        waiting.notes.drain(..count);
        // The file keeps those that were recorded until all are: recorded again, they are known by their ids.
        if waiting.notes.is_empty() {
            waiting.clear();
        }
    }
}

impl Waiting {
    /// Counts reads without a note, in the file too. It is not worth a flush of the disk for each read.
    fn write_count(&mut self, unnoted: Option<Unnoted>) {
        let mut line = unnoted.as_ref().and_then(|unnoted| serde_json::to_vec(unnoted).ok()).unwrap_or_default();
        line.resize(UNNOTED_BYTES as usize, 0);
        if let Some(file) = &self.file
            && let Err(error) = file.write_all_at(&line, NOTES_BYTES)
        {
            tracing::debug!("the count of reads without a note is in memory alone: {error}");
        }
        self.unnoted = unnoted;
    }

    /// Overwrites the notes that were kept. The room stays taken.
    fn clear(&mut self) {
        self.bytes = 0;
        let Some(file) = &self.file else { return };
        let cleared = file.write_all_at(&vec![0; NOTES_BYTES as usize], 0).and_then(|()| file.sync_data());
        if let Err(error) = cleared {
            tracing::warn!("the room for the audit log cannot be cleared: {error}");
        }
    }
}

/// Opens a reserve; none if another process has it.
fn open(path: &Path) -> io::Result<Option<Waiting>> {
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    if rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES).is_err() {
        // A file system that cannot take room takes zeros.
        let size = file.metadata()?.len().min(RESERVE_BYTES);
        file.write_all_at(&vec![0; (RESERVE_BYTES - size) as usize], size)?;
    }
    let mut text = Vec::new();
    file.by_ref().take(RESERVE_BYTES).read_to_end(&mut text)?;
    let (mut notes, mut bytes) = (Vec::new(), 0);
    let (lines, counted) = text.split_at(text.len().min(NOTES_BYTES as usize));
    let until_zero = |text: &'_ [u8]| text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    let unnoted = serde_json::from_slice(&counted[..until_zero(counted)]).ok();
    let written = &lines[..until_zero(lines)];
    for line in written.split_inclusive(|byte| *byte == b'\n') {
        // One that was cut off was never told to be kept.
        let Ok(note) = serde_json::from_slice(line) else { break };
        notes.push(note);
        bytes += line.len() as u64;
    }
    Ok(Some(Waiting { notes, bytes, unnoted, file: Some(file) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(body: &str) -> WaitingNote {
        WaitingNote { id: Uuid::new_v4(), kind: "EVENTS_READ".to_owned(), meta: "{}".to_owned(), body: body.to_owned() }
    }

    fn reserve(path: &Path) -> Reserve {
        let reserve = Reserve::default();
        reserve.prepare(path);
        reserve
    }

    #[test]
    fn notes_that_wait_survive_the_process_and_are_gone_once_recorded() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("audit.reserve");
        let first = reserve(&path);
        assert_eq!(path.metadata().unwrap().len(), RESERVE_BYTES, "the room is taken before it is needed");
        let notes = [note("{\"a\": 1}"), note("{\"b\": 2}")];
        notes.iter().for_each(|note| assert!(first.put(note.clone())));

        let other = reserve(&path);
        assert!(other.is_empty(), "another server of the folder has a file of its own");
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 2);
        drop(first);

        let second = reserve(&path);
        assert_eq!(second.first(10), notes);
        second.recorded(2);
        assert!(second.is_empty());
        drop(second);
        assert!(reserve(&path).is_empty());
    }

    #[test]
    fn notes_beyond_the_room_are_refused() {
        let reserve = Reserve::default();
        let large = "x".repeat(300_000);
        let kept = (0..10).filter(|_| reserve.put(note(&large))).count();
        assert_eq!((kept, reserve.len()), (3, 3));
    }

    #[test]
    fn reads_without_a_note_are_counted_until_an_entry_counts_them() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("audit.reserve");
        let reserve = reserve(&path);
        let count = |time: &str| reserve.count_unnoted(time.to_owned());
        count("10:00");
        count("10:01");
        drop(reserve);

        let reserve = super::tests::reserve(&path);
        let found = reserve.unnoted().unwrap();
        assert_eq!((found.count, &*found.since, &*found.until), (2, "10:00", "10:01"), "another process finds it");
        reserve.count_unnoted("10:02".to_owned());
        reserve.unnoted_recorded(&found);
        let left = reserve.unnoted().unwrap();
        assert_eq!((left.count, &*left.until), (1, "10:02"), "what came meanwhile is still to be counted");
        reserve.unnoted_recorded(&left);
        assert!(reserve.is_empty());
        drop(reserve);
        assert!(super::tests::reserve(&path).is_empty());
    }
}
