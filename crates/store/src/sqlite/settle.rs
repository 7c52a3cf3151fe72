//! What the process before us has left in the log, put on the disk for certain.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig};
use rustix::fs::FallocateFlags;

use super::fault;
use crate::error::StoreError;

/// Bytes that are written back in one go.
const STEP: usize = 1 << 20;
/// A page of the log, with what stands before each.
const PAGE: u64 = 8192 + 24;

/// Writes the log that is found back in its place, and flushes it.
///
/// A flush that has failed leaves records in the log that can be read and are not on the disk, and the kernel does not
/// write them any more. The process that saw it fail writes over them; the one after it would take them for committed, and
/// after a power cut all that it appended behind them would be gone with them.
pub(super) fn settle(file: &Path) -> Result<(), StoreError> {
    let log = beside(file);
    if std::fs::metadata(&log).map_or(0, |log| log.len()) == 0 {
        return Ok(());
    }
    if !file.exists() {
        let (file, log) = (file.display(), log.display());
        return Err(StoreError::Damaged(format!("{file} is missing, and its log {log} is there")));
    }
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(fault)?;
    connection.busy_timeout(Duration::ZERO).map_err(fault)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(fault)?;
    connection.pragma_update(None, "locking_mode", "exclusive").map_err(fault)?;
    match connection.query_row("select count(*) from sqlite_schema", [], |_| Ok(())) {
        Ok(()) => {}
        // Another process has it open: it has done this when it came.
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => return Ok(()),
        Err(error) => return Err(fault(error)),
    }
    write_back(&log).map_err(|error| StoreError::Io(format!("{}: {error}", log.display())))
}

fn write_back(log: &Path) -> io::Result<()> {
    let log = File::options().read(true).write(true).open(log)?;
    let mut bytes = vec![0; STEP];
    let mut place = 0;
    loop {
        let count = log.read_at(&mut bytes, place)?;
        if count == 0 {
            return log.sync_all();
        }
        // Room that nobody has written to yet need not be written to.
        if bytes[..count].iter().any(|byte| *byte != 0) {
            log.write_all_at(&bytes[..count], place)?;
        }
        place += count as u64;
    }
}

/// Gives the log the room that it will take: a flush that need not note a new length as well takes two thirds of the time.
/// Where there is no room, the log grows as it goes.
pub(super) fn make_room(file: &Path, pages: u32) {
    let room = u64::from(pages) * PAGE;
    let made = File::options().write(true).open(beside(file)).and_then(|log| {
        if log.metadata()?.len() < room {
            rustix::fs::fallocate(&log, FallocateFlags::empty(), 0, room)?;
        }
        Ok(())
    });
    if let Err(error) = made {
        tracing::debug!("the log grows as it goes: {error}");
    }
}

/// Whether a log with something in it stands beside the file.
pub(super) fn has_log(file: &Path) -> bool {
    std::fs::metadata(beside(file)).is_ok_and(|log| log.len() > 0)
}

pub(super) fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}
