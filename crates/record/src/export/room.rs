//! How much exports may hold on the server's disk. A request of a few bytes makes files of many: without a limit the disk
//! fills up, and then nothing can be recorded.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use uuid::Uuid;

/// An export is not removed for another one before it is so old.
const KEEP: Duration = Duration::from_secs(600);
/// What an export that was cut off has left is removed once it is so old.
const LEFT_OVER: Duration = Duration::from_secs(3_600);

/// There is no room for an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the exports on the server's disk would hold more than {} MiB", .0 >> 20)]
pub struct ExportsFull(pub u64);

/// Room for exports in a folder.
#[derive(Debug)]
pub(crate) struct ExportRoom {
    folder: PathBuf,
    limit: u64,
    keep: Duration,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    bytes: u64,
    writers: usize,
}

impl ExportRoom {
    pub(crate) fn new(folder: PathBuf, limit: u64) -> Arc<Self> {
        Arc::new(Self { folder, limit, keep: KEEP, used: Mutex::default() })
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an export. What lies in the folder is measured again while no other is written.
    pub(crate) fn begin(self: &Arc<Self>) -> Arc<Writing> {
        let mut used = self.used();
        if used.writers == 0 {
            remove_left_overs(&self.folder);
            used.bytes = size(&self.folder);
        }
        used.writers += 1;
        Arc::new(Writing(Arc::clone(self)))
    }

    /// Takes room for so many bytes. Old exports go for it, the oldest first.
    fn take(&self, bytes: u64) -> Result<(), ExportsFull> {
        let mut used = self.used();
        while used.bytes.saturating_add(bytes) > self.limit {
            let Some((oldest, freed)) = self.oldest() else { return Err(ExportsFull(self.limit)) };
            if let Err(error) = fs::remove_dir_all(&oldest) {
                tracing::warn!("the old export {} cannot be removed: {error}", oldest.display());
                return Err(ExportsFull(self.limit));
            }
            tracing::info!("the old export {} was removed for a new one", oldest.display());
            used.bytes = used.bytes.saturating_sub(freed);
        }
        used.bytes += bytes;
        Ok(())
    }

    /// The oldest export that may go, and its bytes.
    fn oldest(&self) -> Option<(PathBuf, u64)> {
        let exports = fs::read_dir(&self.folder).ok()?.flatten();
        let exports = exports.filter(|entry| Uuid::try_parse(&entry.file_name().to_string_lossy()).is_ok());
        let aged = exports.filter_map(|entry| Some((age(&entry)?, entry.path())));
        let (age, oldest) = aged.max()?;
        (age >= self.keep).then(|| (oldest.clone(), size(&oldest)))
    }
}

/// An export that is being written.
#[derive(Debug)]
pub(crate) struct Writing(Arc<ExportRoom>);

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.used().writers -= 1;
    }
}

/// Writes as long as there is room.
#[derive(Debug)]
pub(crate) struct Bounded<W> {
    pub(crate) out: W,
    pub(crate) room: Option<Arc<Writing>>,
}

impl<W: io::Write> io::Write for Bounded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(room) = &self.room {
            room.0.take(bytes.len() as u64).map_err(io::Error::other)?;
        }
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn age(entry: &fs::DirEntry) -> Option<Duration> {
    let changed = entry.metadata().ok()?.modified().ok()?;
    SystemTime::now().duration_since(changed).ok()
}

fn remove_left_overs(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let part = entry.path().extension().is_some_and(|extension| extension == "part");
        if part && age(&entry).is_some_and(|age| age >= LEFT_OVER) {
            // What cannot be removed now stays counted.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Bytes of all files in a folder. Links are not followed.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(about) if about.is_dir() => size(&entry.path()),
        Ok(about) => about.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn export(folder: &Path, bytes: usize) -> PathBuf {
        let path = folder.join(Uuid::new_v4().to_string());
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("consultation.md"), vec![b'x'; bytes]).unwrap();
        path
    }

    fn write(room: &Arc<ExportRoom>, bytes: usize) -> io::Result<()> {
        let mut out = Bounded { out: Vec::new(), room: Some(room.begin()) };
        out.write_all(&vec![b'x'; bytes])
    }

    #[test]
    fn exports_beyond_the_limit_are_refused_while_those_there_are_young() {
        let place = tempfile::tempdir().unwrap();
        let young = export(place.path(), 80);
        let room = ExportRoom::new(place.path().to_owned(), 100);
        assert!(write(&room, 20).is_ok());
        let full = write(&room, 21).unwrap_err();
        assert!(full.get_ref().and_then(|full| full.downcast_ref::<ExportsFull>()).is_some(), "{full}");
        assert!(young.exists());
    }

    #[test]
    fn exports_that_are_old_go_for_new_ones() {
        let place = tempfile::tempdir().unwrap();
        let old = export(place.path(), 80);
        let room = Arc::new(ExportRoom {
            folder: place.path().to_owned(),
            limit: 100,
            keep: Duration::ZERO,
            used: Mutex::default(),
        });
        assert!(write(&room, 90).is_ok());
        assert!(!old.exists());
        assert!(write(&room, 101).is_err(), "one that is larger than all");
    }

    #[test]
    fn exports_written_at_the_same_time_share_the_room() {
        let place = tempfile::tempdir().unwrap();
        let room = ExportRoom::new(place.path().to_owned(), 100);
        let mut first = Bounded { out: Vec::new(), room: Some(room.begin()) };
        let mut second = Bounded { out: Vec::new(), room: Some(room.begin()) };
        assert!(first.write_all(&[0; 60]).is_ok());
        assert!(second.write_all(&[0; 60]).is_err());
    }
}
