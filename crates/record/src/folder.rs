//! What lies beside the store: archives, exports, the key that signs heads.

use std::{
    collections::HashMap,
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use caudal_store::{Range, Record, Sealed, StreamId};
use ed25519_dalek::SigningKey;

use crate::{archive::Reader, error::RecordError, hash::Hex};

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

    /// Records of a stream that lie in `parts`.
    pub(crate) fn archived(&self, parts: &[Sealed], id: &StreamId, range: &Range) -> Result<Vec<Record>, RecordError> {
        let (mut found, mut bytes, mut after) = (Vec::new(), 0, range.after);
        for part in parts.iter().filter(|part| part.last > range.after) {
            let reader = self.reader(&part.file)?;
            while after < part.last {
                let some = reader.read(id, after, STEP.min(range.limit as usize))?;
                let Some(last) = some.last() else { break };
                after = last.sequence;
                for record in some {
                    if range.kind.as_ref().is_some_and(|kind| *kind != record.kind) {
                        continue;
                    }
                    bytes += record.body.len() + record.meta.len();
                    if !found.is_empty() && bytes > range.bytes {
                        return Ok(found);
                    }
                    found.push(record);
                    if found.len() >= range.limit as usize {
                        return Ok(found);
                    }
                }
            }
        }
        Ok(found)
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

fn make(path: &Path) -> Result<SigningKey, RecordError> {
    // Two UUIDs of version 4 hold 244 bits of the system's randomness; their hash is the key.
    let seed =
        [uuid::Uuid::new_v4().into_bytes(), uuid::Uuid::new_v4().into_bytes(), uuid::Uuid::new_v4().into_bytes()];
    let bytes = crate::canonical::sha256(seed.as_flattened());
    let wrong = || RecordError::file(path);
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match opened {
        Ok(mut file) => {
            writeln!(file, "{}", Hex(bytes)).and_then(|()| file.sync_all()).map_err(wrong())?;
            Ok(SigningKey::from_bytes(&bytes))
        }
        // Somebody else was quicker.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            parse(path, &fs::read_to_string(path).map_err(wrong())?)
        }
        Err(error) => Err(wrong()(error)),
    }
}
