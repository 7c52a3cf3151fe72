//! One server at a time.

use std::{
    fs::{File, create_dir_all},
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

use crate::error::StoreError;

/// Holds a data folder for as long as it lives. The kernel gives it back when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "holds the lock by being open")] File);

/// Takes `folder`, which is made if it is not there.
pub fn lock(folder: &Path) -> Result<Lock, StoreError> {
    let wrong = |error: std::io::Error| StoreError::ReadOnly(format!("{}: {error}", folder.display()));
    create_dir_all(folder).map_err(wrong)?;
    let file = File::options().create(true).truncate(false).write(true).open(folder.join("lock")).map_err(wrong)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse(folder.to_owned())),
        Err(error) => Err(wrong(error.into())),
    }
}
