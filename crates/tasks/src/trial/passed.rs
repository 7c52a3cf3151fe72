//! Notes of what has passed its trial: a file each, named by a digest of all that decides how the model loads.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use sha2::{Digest as _, Sha256};

/// Largest file that is read.
const MOST_READ: u64 = 16 << 20;

/// Most notes; the oldest go.
const MOST_NOTES: usize = 1000;

/// What has passed in this process, by how its files look, and the memory that its load took.
#[derive(Debug, Default)]
pub struct Known(Mutex<HashMap<String, u64>>);

impl Known {
    pub(super) fn peak(&self, looks: &str) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(looks).copied()
    }

    pub(super) fn note(&self, looks: String, peak: u64) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_NOTES {
            known.clear();
        }
        known.insert(looks, peak);
    }
}

/// The memory that the load took for which `digest` stands, if it has passed.
pub(super) fn peak(notes: &Path, digest: &str) -> Option<u64> {
    fs::read_to_string(notes.join(digest)).ok()?.trim().parse().ok()
}

/// Notes that the load passed for which `digest` stands. Where that cannot be written it is tried again next time.
pub(super) fn note(notes: &Path, digest: &str, peak: u64) {
    let write = || -> io::Result<()> {
        fs::create_dir_all(notes)?;
        remove_oldest(notes)?;
        fs::write(notes.join(digest), format!("{peak}\n"))
    };
    if let Err(error) = write() {
        tracing::debug!(%error, notes = %notes.display(), "it cannot be noted that a model has passed its trial");
    }
}

fn remove_oldest(notes: &Path) -> io::Result<()> {
    let changed =
        |entry: &fs::DirEntry| entry.metadata().and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut known: Vec<_> =
        fs::read_dir(notes)?.filter_map(Result::ok).map(|entry| (changed(&entry), entry.path())).collect();
    known.sort();
    let surplus = known.len().saturating_sub(MOST_NOTES - 1);
    known.into_iter().take(surplus).try_for_each(|(_, path)| fs::remove_file(path))
}

/// The digest of `about` and of `files`, by their paths from `folder` and what `tells` them from others.
pub(super) fn digest(
    about: &[u8],
    folder: &Path,
    files: &[PathBuf],
    tells: impl Fn(&Path) -> io::Result<Vec<u8>>,
) -> String {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    add(about);
    for file in files {
        add(file.strip_prefix(folder).unwrap_or(file).as_os_str().as_encoded_bytes());
        // One that cannot be read will be the load's business.
        add(&tells(file).unwrap_or_default());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The file at `path` by its content, or by how it looks where it is large.
pub(super) fn content(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    if length > MOST_READ {
        return looks(path);
    }
    let mut bytes = Vec::with_capacity(length as usize);
    file.by_ref().take(MOST_READ).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The file at `path` by its place, its length and when it last changed, a time that only the system's owner can
/// set.
pub(super) fn looks(path: &Path) -> io::Result<Vec<u8>> {
    let meta = fs::metadata(path)?;
    let parts = [meta.dev(), meta.ino(), meta.len(), meta.ctime().cast_unsigned(), meta.ctime_nsec().cast_unsigned()];
    Ok(parts.iter().flat_map(|part| part.to_le_bytes()).collect())
}
