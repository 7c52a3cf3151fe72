//! Whether the database's files are still those that were opened. What is written to a file that was removed, or replaced
//! by a backup that was restored over it, is written to nothing that anybody finds again.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, StatxFlags, makedev, statx},
    io::Errno,
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

/// Asks for the inode number alone: once a program has read a file's times, Linux 6.13 and later give the next write a
/// new time stamp (multigrain timestamps), and the following fsync has to commit the inode as well.
fn identity(path: &Path) -> io::Result<Identity> {
    match statx(CWD, path, AtFlags::empty(), StatxFlags::INO) {
        Ok(about) => Ok((makedev(about.stx_dev_major, about.stx_dev_minor), about.stx_ino)),
        // Older kernels and sandboxes may not allow the call.
        Err(Errno::NOSYS | Errno::PERM) => fs::metadata(path).map(|about| (about.dev(), about.ino())),
        Err(error) => Err(error.into()),
    }
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
