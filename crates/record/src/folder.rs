//! What lies beside the store: archives, exports, the key that signs heads.

use std::{
    collections::HashMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use caudal_store::{Range, Record, Sealed, StreamId};
use ed25519_dalek::SigningKey;
use tempfile::NamedTempFile;

use crate::{
    archive::{ArchiveError, Reader},
    error::RecordError,
    hash::Hex,
};

/// Archives that are kept open.
const OPEN: usize = 256;
/// Records that are read of an archive in one go.
const STEP: usize = 500;

/// The data folder.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    readers: Mutex<HashMap<Box<str>, Arc<Reader>>>,
    key: OnceLock<SigningKey>,
}

impl Folder {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, readers: Mutex::default(), key: OnceLock::new() }
    }

    /// Where archives lie.
    pub(crate) fn archives(&self) -> PathBuf {
        self.path.join("archives")
    }

    /// Where room is kept for notes of who reads what.
    pub(crate) fn audit_reserve(&self) -> PathBuf {
        self.path.join("audit.reserve")
    }

    /// Where exports lie.
    pub(crate) fn exports(&self) -> PathBuf {
        self.path.join("exports")
    }

    /// The archive of that name, open.
    pub(crate) fn reader(&self, file: &str) -> Result<Arc<Reader>, RecordError> {
        let readers = || self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reader) = readers().get(file) {
            return Ok(Arc::clone(reader));
        }
        let reader = Arc::new(Reader::open(&self.archives().join(file))?);
        let mut readers = readers();
        if readers.len() >= OPEN {
            readers.clear();
        }
        readers.insert(file.into(), Arc::clone(&reader));
        Ok(reader)
    }

    /// Records of a stream that lie in `parts`, and whether these are all that lie there and in `range`: not if its limits
    /// ended the reading.
    pub(crate) fn archived(
        &self,
        parts: &[Sealed],
        id: &StreamId,
        range: &Range,
    ) -> Result<(Vec<Record>, bool), RecordError> {
        let (mut found, mut bytes, mut after) = (Vec::new(), 0, range.after);
        for part in parts.iter().filter(|part| part.last > range.after) {
            let reader = self.reader(&part.file)?;
            while after < part.last {
                let some = reader.read(id, after, STEP.min(range.limit as usize))?;
                let Some(last) = some.last() else {
                    let what = format!("event {} of {} is not in it", after + 1, id.name);
                    return Err(ArchiveError::Damaged { path: reader.path().to_owned(), what }.into());
                };
                after = last.sequence;
                for record in some {
                    if range.kind.as_ref().is_some_and(|kind| *kind != record.kind) {
                        continue;
                    }
                    bytes += record.body.len() + record.meta.len();
                    if !found.is_empty() && bytes > range.bytes {
                        return Ok((found, false));
                    }
                    found.push(record);
                    if found.len() >= range.limit as usize {
                        return Ok((found, false));
                    }
                }
            }
        }
        Ok((found, true))
    }

    /// The key that signs heads; none where there is none and none can be made, because nobody can write there.
    pub(crate) fn key_if_any(&self) -> Result<Option<&SigningKey>, RecordError> {
        use rustix::{fs::Access, io::Errno};
        let path = self.path.join("head.key");
        let read_only = || {
            matches!(rustix::fs::access(&self.path, Access::WRITE_OK), Err(Errno::ROFS | Errno::ACCESS | Errno::PERM))
        };
        match self.key.get().is_none() && !path.exists() && read_only() {
            true => Ok(None),
            false => self.key().map(Some),
        }
    }

    /// The key that signs heads; made when it is first needed. Only its owner may read its file.
    pub(crate) fn key(&self) -> Result<&SigningKey, RecordError> {
        if let Some(key) = self.key.get() {
            return Ok(key);
        }
        let path = self.path.join("head.key");
        let key = match fs::read_to_string(&path) {
            Ok(text) => parse(&path, &text)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => make(&path)?,
            Err(error) => return Err(RecordError::file(&path)(error)),
        };
        Ok(self.key.get_or_init(|| key))
    }
}

fn parse(path: &Path, text: &str) -> Result<SigningKey, RecordError> {
    let bytes = text.trim().parse::<Hex<32>>().map_err(|error| RecordError::File {
        path: path.display().to_string().into(),
        words: format!("the key is {error}").into(),
    })?;
    Ok(SigningKey::from_bytes(&bytes.0))
}

/// Makes it whole or not at all: others who share the folder must never read half of one. The folder is made too, for a
/// database that lies elsewhere needs none.
fn make(path: &Path) -> Result<SigningKey, RecordError> {
    // Three UUIDs of version 4 hold 366 bits of the system's randomness; their hash is the key.
    let seed =
        [uuid::Uuid::new_v4().into_bytes(), uuid::Uuid::new_v4().into_bytes(), uuid::Uuid::new_v4().into_bytes()];
    let bytes = crate::canonical::sha256(seed.as_flattened());
    let wrong = || RecordError::file(path);
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(wrong())?;
    let mut file = NamedTempFile::new_in(folder).map_err(wrong())?;
    writeln!(file, "{}", Hex(bytes)).and_then(|()| file.as_file().sync_all()).map_err(wrong())?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(SigningKey::from_bytes(&bytes)),
        // Somebody else was quicker.
        Err(taken) if taken.error.kind() == std::io::ErrorKind::AlreadyExists => {
            parse(path, &fs::read_to_string(path).map_err(wrong())?)
        }
        Err(taken) => Err(wrong()(taken.error)),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn many_who_need_a_key_at_once_have_the_same() {
        for _ in 0..20 {
            let place = tempfile::tempdir().expect("a folder");
            let path = place.path().join("data");
            let key = || Folder::new(path.clone()).key().map(SigningKey::to_bytes).map_err(|error| error.to_string());
            let keys: Vec<_> = thread::scope(|scope| {
                let asked: Vec<_> = (0..8).map(|_| scope.spawn(key)).collect();
                asked.into_iter().map(|asked| asked.join().expect("no panic")).collect()
            });
            let first = key().expect("a key");
            assert!(keys.iter().all(|key| *key == Ok(first)), "{keys:?}");
            assert_eq!(fs::read_dir(&path).expect("the folder").count(), 1, "nothing but the key is left");
        }
    }
}
