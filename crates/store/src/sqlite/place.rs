//! Whether the database's files are still those that were opened. What is written to a file that was removed, or replaced
//! by a backup that was restored over it, is written to nothing that anybody finds again.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::settle::beside;
use crate::error::StoreError;

/// Which file: its device and number there.
type Identity = (u64, u64);

/// The files of a database as they were when it was opened.
#[derive(Debug)]
pub(super) struct Place {
    database: (PathBuf, Identity),
    /// None where there was no log yet.
    log: Option<(PathBuf, Identity)>,
}

fn identity(path: &Path) -> io::Result<Identity> {
    fs::metadata(path).map(|about| (about.dev(), about.ino()))
}

impl Place {
    pub(super) fn of(file: &Path) -> Result<Self, StoreError> {
        let found = identity(file).map_err(|error| StoreError::Io(format!("{}: {error}", file.display())))?;
        let log = beside(file);
        let log = identity(&log).ok().map(|found| (log, found));
        Ok(Self { database: (file.to_owned(), found), log })
    }

    /// Refuses to go on where a file has gone or is another one.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        for (path, opened) in [Some(&self.database), self.log.as_ref()].into_iter().flatten() {
            match identity(path) {
                Ok(found) if found == *opened => {}
                Ok(_) => return Err(StoreError::Vanished(format!("{} is another file", path.display()))),
                Err(error) => return Err(StoreError::Vanished(format!("{}: {error}", path.display()))),
            }
        }
        Ok(())
    }
}
