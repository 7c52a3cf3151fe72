//! Names that processes hold: locked files beside the database, which the kernel gives back however a process ends.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use uuid::Uuid;

use crate::error::StoreError;

/// How often a name is tried that others take away as often.
const TRIES: u32 = 100;

/// The names that this process holds.
#[derive(Debug)]
pub(super) struct Holds {
    folder: PathBuf,
    held: Mutex<Vec<(PathBuf, File)>>,
}

impl Holds {
    /// None yet, beside the database `file`.
    pub(super) fn beside(file: &Path) -> Self {
        let mut folder: OsString = file.into();
        folder.push("-held");
        Self { folder: folder.into(), held: Mutex::default() }
    }

    fn wrong(&self, error: &io::Error) -> StoreError {
        StoreError::ReadOnly(format!("{}: {error}", self.folder.display()))
    }

    /// Holds `name`. Those that nobody holds any more are removed.
    pub(super) fn hold(&self, name: Uuid) -> Result<(), StoreError> {
        fs::create_dir_all(&self.folder).map_err(|error| self.wrong(&error))?;
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let _ = still_held(&entry.path());
        }
        let path = self.folder.join(name.to_string());
        let file = taken(&path).map_err(|error| self.wrong(&error))?;
        self.held.lock().unwrap_or_else(PoisonError::into_inner).push((path, file));
        Ok(())
    }

    /// Whether any process holds `name`.
    pub(super) fn held(&self, name: Uuid) -> Result<bool, StoreError> {
        still_held(&self.folder.join(name.to_string())).map_err(|error| self.wrong(&error))
    }
}

impl Drop for Holds {
    fn drop(&mut self) {
        for (path, _) in self.held.get_mut().unwrap_or_else(PoisonError::into_inner) {
            let _ = fs::remove_file(path);
        }
    }
}

/// The file, made and locked.
fn taken(path: &Path) -> io::Result<File> {
    for _ in 0..TRIES {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            // Between the two, another process may have looked whether anybody holds it, and removed it.
            Ok(())
                if fs::metadata(path).is_ok_and(|there| file.metadata().is_ok_and(|own| own.ino() == there.ino())) =>
            {
                return Ok(file);
            }
            Ok(()) | Err(Errno::WOULDBLOCK) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::other("another process holds the same name"))
}

/// Whether a process holds the file. One that none holds is removed.
fn still_held(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            let _ = fs::remove_file(path);
            Ok(false)
        }
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}
