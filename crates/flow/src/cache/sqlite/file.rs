//! The file: made, emptied if it is of another form, and set aside if it is none of ours.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, config::DbConfig};

/// `caca`: what kind of SQLite file this is.
const APPLICATION: i32 = 0x6361_6361;
/// The form of its tables and of answers in them: one of another form is emptied.
const FORM: i32 = 1;
/// How long a connection waits for another process's write to end.
const PATIENCE: Duration = Duration::from_secs(2);
/// The write-ahead log is cut to so many bytes once it is written back.
const LOG_BYTES: i64 = 16 << 20;

/// What a file turned out to be.
enum Wrong {
    /// None of ours, or damaged.
    Foreign(String),
    /// It cannot be opened.
    Failed(String),
}

impl From<rusqlite::Error> for Wrong {
    fn from(error: rusqlite::Error) -> Self {
        if is_damage(&error) { Self::Foreign(error.to_string()) } else { Self::Failed(error.to_string()) }
    }
}

/// Opens the file to write, whatever stands in its place.
pub(super) fn open(file: &Path) -> Result<Connection, String> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    }
    match made(file) {
        Ok(connection) => Ok(connection),
        Err(Wrong::Failed(why)) => Err(why),
        Err(Wrong::Foreign(why)) => {
            let aside = set_aside(file);
            tracing::warn!("{} is no cache of steps ({why}); it is now {}", file.display(), aside.display());
            made(file).map_err(|(Wrong::Failed(why) | Wrong::Foreign(why))| why)
        }
    }
}

/// Whether the file is damaged, or none of SQLite's.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Gives the file another name, with what SQLite keeps beside it; one that had the name before is gone.
pub(super) fn set_aside(file: &Path) -> PathBuf {
    let named = |behind: &str| {
        let mut name = file.as_os_str().to_owned();
        name.push(behind);
        PathBuf::from(name)
    };
    for beside in ["-wal", "-shm"] {
        let _ = fs::remove_file(named(beside));
    }
    let aside = named(".damaged");
    let _ = fs::rename(file, &aside);
    aside
}

/// A connection that only reads.
pub(super) fn reading(file: &Path) -> rusqlite::Result<Connection> {
    let connection = connect(file, OpenFlags::empty())?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn connect(file: &Path, more: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | more;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(PATIENCE)?;
    // Who closes last would remove the log by its name, which may be another file's once this one was set aside.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

fn made(file: &Path) -> Result<Connection, Wrong> {
    let mut connection = connect(file, OpenFlags::SQLITE_OPEN_CREATE)?;
    // Looked at before anything is changed: it may be somebody's.
    if form(&connection)? == Form::New {
        connection.pragma_update(None, "auto_vacuum", "incremental")?;
    }
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        return Err(Wrong::Failed(format!("it has no write-ahead log but {mode}")));
    }
    // What a failing machine takes with it is made again.
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Whoever waited for another process that did it finds it done.
    match form(&change)? {
        Form::Ours => {}
        Form::New => make(&change)?,
        Form::Other => {
            empty(&change)?;
            make(&change)?;
        }
    }
    change.commit()?;
    Ok(connection)
}

#[derive(PartialEq)]
enum Form {
    New,
    Ours,
    Other,
}

fn form(connection: &Connection) -> Result<Form, Wrong> {
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let tables: u32 = connection.query_row("select count(*) from sqlite_schema", [], |row| row.get(0))?;
    match (number("application_id")?, number("user_version")?, tables) {
        (APPLICATION, FORM, _) => Ok(Form::Ours),
        (APPLICATION, ..) => Ok(Form::Other),
        (0, 0, 0) => Ok(Form::New),
        _ => Err(Wrong::Foreign("it is another program's".to_owned())),
    }
}

fn make(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(include_str!("schema.sql"))?;
    connection.pragma_update(None, "application_id", APPLICATION)?;
    connection.pragma_update(None, "user_version", FORM)
}

fn empty(connection: &Connection) -> rusqlite::Result<()> {
    let mut tables =
        connection.prepare("select name from sqlite_schema where type = 'table' and name not like 'sqlite_%'")?;
    let names: Vec<String> = tables.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    names.iter().try_for_each(|name| connection.execute_batch(&format!("drop table \"{}\"", name.replace('"', "\"\""))))
}
