//! Notes of who read what that cannot be recorded now, because the disk is full or cannot be written. They lie in a file
//! whose room was taken while there was some, so that reads go on; once records can be written again they go there.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::fs::FallocateFlags;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Bytes that notes may hold while they wait: some thousands of notes.
const RESERVE_BYTES: u64 = 1 << 20;
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

/// Room for notes that wait.
#[derive(Debug, Default)]
pub(crate) struct Reserve {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    notes: Vec<WaitingNote>,
    bytes: u64,
    /// None where there is no folder for it: the notes are in memory alone.
    file: Option<File>,
}

impl Reserve {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the room on disk, and reads what a process before this one left there.
    pub(crate) fn prepare(&self, path: &Path) {
        match open(path) {
            Ok((file, notes, bytes)) => *self.lock() = Waiting { notes, bytes, file: Some(file) },
            Err(error) => {
                let path = PathBuf::from(path);
                tracing::warn!("no room is kept for the audit log in {}: {error}", path.display());
            }
        }
    }

    /// Keeps a note until it can be recorded; `false` if there is no room for it.
    pub(crate) fn put(&self, note: WaitingNote) -> bool {
        let Ok(mut line) = serde_json::to_vec(&note) else { return false };
        line.push(b'\n');
        let mut waiting = self.lock();
        let end = waiting.bytes + line.len() as u64;
        if end > RESERVE_BYTES || waiting.notes.len() >= MAX_WAITING_NOTES {
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

    /// How many notes wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().notes.len()
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
        if !waiting.notes.is_empty() {
            // The file still has those that were recorded: recorded again, they are known by their ids.
            return;
        }
        waiting.bytes = 0;
        if let Some(file) = &waiting.file
            && let Err(error) = clear(file)
        {
            tracing::warn!("the room for the audit log cannot be cleared: {error}");
        }
    }
}

fn open(path: &Path) -> io::Result<(File, Vec<WaitingNote>, u64)> {
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES).is_err() {
        // A file system that cannot take room takes zeros.
        let size = file.metadata()?.len().min(RESERVE_BYTES);
        file.write_all_at(&vec![0; (RESERVE_BYTES - size) as usize], size)?;
    }
    let mut text = Vec::new();
    file.by_ref().take(RESERVE_BYTES).read_to_end(&mut text)?;
    let (mut notes, mut bytes) = (Vec::new(), 0);
    let written = text.split(|byte| *byte == 0).next().unwrap_or_default();
    for line in written.split_inclusive(|byte| *byte == b'\n') {
        // One that was cut off was never told to be kept.
        let Ok(note) = serde_json::from_slice(line) else { break };
        notes.push(note);
        bytes += line.len() as u64;
    }
    Ok((file, notes, bytes))
}

/// Overwrites what was kept. The room stays taken.
fn clear(file: &File) -> io::Result<()> {
    file.write_all_at(&vec![0; RESERVE_BYTES as usize], 0)?;
    file.sync_data()
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

        let second = reserve(&path);
        assert_eq!(second.first(10), notes);
        second.recorded(2);
        assert_eq!((second.len(), reserve(&path).len()), (0, 0));
    }

    #[test]
    fn notes_beyond_the_room_are_refused() {
        let reserve = Reserve::default();
        let large = "x".repeat(300_000);
        let kept = (0..10).filter(|_| reserve.put(note(&large))).count();
        assert_eq!((kept, reserve.len()), (3, 3));
    }
}
