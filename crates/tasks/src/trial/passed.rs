//! Notes of what has passed its trial: a file each, named by a digest of all that decides how the model loads.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use sha2::{Digest as _, Sha256};

/// A larger file is known by its place and the time of its last change, which nobody but the system's owner sets.
const MOST_READ: u64 = 16 << 20;

/// Most notes; the oldest go.
const MOST_NOTES: usize = 1000;

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

/// The digest of `about` and `files`, by their paths from `folder`.
pub(super) fn digest(about: &[&[u8]], folder: &Path, files: &[PathBuf]) -> String {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    about.iter().for_each(|part| add(part));
    for file in files {
        add(file.strip_prefix(folder).unwrap_or(file).as_os_str().as_encoded_bytes());
        // One that cannot be read will be the load's business.
        add(&content(file).unwrap_or_default());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What tells the file at `path` from others.
fn content(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let meta = file.metadata()?;
    if meta.len() <= MOST_READ {
        let mut bytes = Vec::with_capacity(meta.len() as usize);
        file.by_ref().take(MOST_READ).read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    let parts = [meta.dev(), meta.ino(), meta.len(), meta.ctime() as u64, meta.ctime_nsec() as u64];
    Ok(parts.iter().flat_map(|part| part.to_le_bytes()).collect())
}
