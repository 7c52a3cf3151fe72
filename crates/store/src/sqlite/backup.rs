//! Copies of the database, made while it is written to.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{
    Connection, OpenFlags,
    backup::{Backup, StepResult},
};

use super::{Access, connect, fault, reader};
use crate::error::StoreError;

/// Pages copied in one go: others write in between.
const PAGES: i32 = 2_048;
/// Between two of these.
const PAUSE: Duration = Duration::from_millis(1);

/// Copies `from` to `to`, which must not be there. The copy is whole, or there is none.
pub(super) fn backup(from: &Path, to: &Path, progress: &dyn Fn(u64, u64)) -> Result<(), StoreError> {
    if to.exists() {
        return Err(StoreError::ReadOnly(format!("{} is there already", to.display())));
    }
    let part = beside(to);
    let outcome = copy(from, &part, progress).and_then(|()| put(&part, to));
    if outcome.is_err() {
        let _ = fs::remove_file(&part);
    }
    outcome
}

fn copy(from: &Path, part: &Path, progress: &dyn Fn(u64, u64)) -> Result<(), StoreError> {
    let _ = fs::remove_file(part);
    let source = connect(from, Access::Read)?;
    // One state of the database, however many write meanwhile and however long it takes.
    let look = source.unchecked_transaction().map_err(fault)?;
    look.query_row("select count(*) from archives", [], |_| Ok(())).map_err(fault)?;
    let mut target = Connection::open(part).map_err(fault)?;
    {
        let copying = Backup::new(&look, &mut target).map_err(fault)?;
        loop {
            let step = copying.step(PAGES).map_err(fault)?;
            let pages = copying.progress();
            progress((pages.pagecount - pages.remaining) as u64, pages.pagecount as u64);
            match step {
                StepResult::Done => break,
                _ => std::thread::sleep(PAUSE),
            }
        }
    }
    target.pragma_update(None, "journal_mode", "delete").map_err(fault)?;
    let wrong = reader::check(&target)?;
    target.close().map_err(|(_, error)| fault(error))?;
    match wrong.first() {
        None => Ok(()),
        Some(wrong) => Err(StoreError::Damaged(wrong.clone())),
    }
}

/// Copies a file's bytes and not its mode: a backup that others may read does not make a database that they may.
fn copy_bytes(from: &Path, to: &Path) -> std::io::Result<u64> {
    let _ = fs::remove_file(to);
    std::io::copy(&mut File::open(from)?, &mut File::create(to)?)
}

/// Puts what is whole in place, for good.
fn put(part: &Path, to: &Path) -> Result<(), StoreError> {
    let place = || -> std::io::Result<()> {
        File::open(part)?.sync_all()?;
        fs::rename(part, to)?;
        File::open(folder(to))?.sync_all()
    };
    place().map_err(|error| match error.kind() {
        std::io::ErrorKind::StorageFull => StoreError::DiskFull,
        _ => StoreError::Io(format!("{}: {error}", to.display())),
    })
}

fn folder(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

/// Puts the backup `from` in the place `to`, where nothing is.
pub(super) fn restore(from: &Path, to: &Path) -> Result<(), StoreError> {
    if to.exists() {
        return Err(StoreError::ReadOnly(format!("{} is there already", to.display())));
    }
    let source = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(fault)?;
    let wrong = reader::check(&source)?;
    if let Some(wrong) = wrong.first() {
        return Err(StoreError::Damaged(wrong.clone()));
    }
    drop(source);
    fs::create_dir_all(folder(to))
        .and_then(|()| copy_bytes(from, &beside(to)))
        .map_err(|error| StoreError::Io(error.to_string()))?;
    put(&beside(to), to)
}
