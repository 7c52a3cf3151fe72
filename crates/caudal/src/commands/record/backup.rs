//! `caudal record backup` and `restore`.

use std::{process::ExitCode, sync::Arc};

use caudal_record::RecordError;
use caudal_store::{Order, sqlite::Sqlite};
use clap::ArgMatches;

use super::{Absent, CommandError, DATABASE, Opened, bar, explained, folder, load, other, path, tell, usage};

pub(super) fn backup(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let opened = Opened::new(matches, Absent::Refuse)?;
    let file = path(matches, "file").expect("it is required");
    let bar = bar(Some(0), "pages copied");
    let moved = bar.clone();
    let progress = Arc::new(move |done, all| {
        moved.set_length(all);
        moved.set_position(done);
    });
    let archives = opened.wait(async {
        opened.record.store().backup(file.clone(), progress).await?;
        Ok::<_, RecordError>(opened.record.store().archives().await?)
    })?;
    bar.finish_and_clear();
    tell(format!("{} is a whole copy of the database", file.display()))?;
    tell(format!(
        "beside it keep {} and the {} files of {}",
        opened.folder.join("head.key").display(),
        archives.len(),
        opened.folder.join("archives").display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn restore(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let settings = load(matches, true)?.settings;
    if settings.database.is_some() {
        return Err(usage("a backup is SQLite's, and database_url names PostgreSQL, which is restored by pg_restore"));
    }
    crate::private_files::create_private(&settings);
    let place = folder(&settings)?;
    let lock = caudal_store::lock(&place).map_err(|error| explained(&error.into()))?;
    // What is left of a log would be taken for that of the backup.
    for name in [DATABASE, "caudal.db-wal", "caudal.db-shm"] {
        let file = place.join(name);
        if file.exists() {
            return Err(other(format!(
                "{} is there already; move it away, or name another --data-dir",
                file.display()
            )));
        }
    }
    let from = path(matches, "file").expect("it is required");
    Sqlite::restore(from, &place.join(DATABASE)).map_err(|error| explained(&error.into()))?;
    let opened = Opened::of(settings, Absent::Refuse)?;
    let page = opened.wait(opened.record.list(Order::Newest, 1, 0))?;
    tell(format!("{} has {} consultations again", place.display(), page.total))?;
    let archives = opened.wait(opened.record.store().archives())?;
    let missing = archives.iter().filter(|note| !place.join("archives").join(&*note.file).is_file());
    let missing: Vec<_> = missing.map(|note| note.file.as_ref()).collect();
    if !missing.is_empty() {
        tell(format!("archives are missing: put {} into {}/archives", missing.join(", "), place.display()))?;
    }
    drop(lock);
    Ok(if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
