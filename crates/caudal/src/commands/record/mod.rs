//! `caudal record`: what is recorded of consultations, looked at and looked after without a server, or beside one.

mod append;
mod backup;
mod export;
mod import;
mod list;
mod proofs;
mod reindex;
mod seal;
mod show;
mod stats;
mod tail;
mod verify;

use std::{
    fmt::Display,
    fs,
    io::{self, IsTerminal as _, Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use caudal_record::{Access, Consultations, RecordError, hash::Hex, proof::VerifyingKey};
use caudal_types::{ErrorKind, Explain as _};
use clap::ArgMatches;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::Value;
use tokio::runtime::Runtime;

use super::{CommandError, load, other, usage};
use crate::{assemble, settings::Settings};

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    match matches.subcommand() {
        Some(("list", matches)) => list::run(matches),
        Some(("show", matches)) => show::run(matches),
        Some(("append", matches)) => append::run(matches),
        Some(("tail", matches)) => tail::run(matches),
        Some(("verify", matches)) => verify::run(matches),
        Some(("head", matches)) => proofs::head(matches),
        Some(("key", matches)) => proofs::key(matches),
        Some(("receipt", matches)) => proofs::receipt(matches),
        Some(("verify-receipt", matches)) => proofs::verify_receipt(matches),
        Some(("seal", matches)) => seal::run(matches),
        Some(("reindex", matches)) => reindex::run(matches),
        Some(("export", matches)) => export::run(matches),
        Some(("verify-export", matches)) => export::verify(matches),
        Some(("import", matches)) => import::run(matches),
        Some(("stats", matches)) => stats::run(matches),
        Some(("backup", matches)) => backup::backup(matches),
        Some(("restore", matches)) => backup::restore(matches),
        _ => Err(usage("see `caudal record --help`")),
    }
}

/// The database's file.
const DATABASE: &str = "caudal.db";

/// The record, open, and what it takes to ask it.
struct Opened {
    settings: Settings,
    folder: PathBuf,
    record: Consultations,
    runtime: Runtime,
    /// Whether nobody can write to it.
    read_only: bool,
}

/// What is to be done where there is no record yet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Absent {
    /// It is a mistake.
    Refuse,
    /// One is made.
    Make,
}

impl Opened {
    fn new(matches: &ArgMatches, absent: Absent) -> Result<Self, CommandError> {
        Self::of(load(matches, true)?.settings, absent)
    }

    fn of(settings: Settings, absent: Absent) -> Result<Self, CommandError> {
        let folder = folder(&settings)?;
        if absent == Absent::Refuse && settings.database.is_none() && !folder.join(DATABASE).is_file() {
            let place = folder.display();
            return Err(other(format!("there is no record in {place}; name the folder of a server by --data-dir")));
        }
        let read_only = absent == Absent::Refuse && settings.database.is_none() && is_read_only(&folder);
        let record = match read_only {
            true => assemble::consultations_to_read(&settings)?,
            false => assemble::consultations(&settings)?,
        };
        let record = record.ok_or_else(no_folder)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| other(format!("the async runtime could not be started: {error}")))?;
        Ok(Self { settings, folder, record, runtime, read_only })
    }

    /// Waits for an answer of the record.
    fn wait<T, E: Into<RecordError>>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, CommandError> {
        self.runtime.block_on(work).map_err(|error| explained(&error.into()))
    }

    /// Takes note of who reads what, as a server does.
    fn note(&self, operation: &'static str, consultation: &str) -> Result<(), CommandError> {
        if self.read_only {
            eprintln!("the record cannot be written: that it was read is noted nowhere");
            return Ok(());
        }
        let user = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
        self.wait(self.record.note(Access {
            operation,
            consultation_id: Some(consultation.to_owned()),
            user,
            from: Some("command line".to_owned()),
            request_id: format!("process {}", std::process::id()),
            details: Value::Null,
        }))?;
        if self.record.audit_backlog().notes > 0 {
            eprintln!("the record cannot be written now: it may be that no note is kept that it was read");
        }
        Ok(())
    }
}

/// Whether nobody can write to a folder: it is on a disk that was mounted so, or is not ours to write to.
fn is_read_only(folder: &Path) -> bool {
    use rustix::{fs::Access, io::Errno};
    matches!(rustix::fs::access(folder, Access::WRITE_OK), Err(Errno::ROFS | Errno::ACCESS | Errno::PERM))
}

fn folder(settings: &Settings) -> Result<PathBuf, CommandError> {
    settings.data_dir.clone().ok_or_else(no_folder)
}

fn no_folder() -> CommandError {
    usage("no data directory given: use --data-dir DIR, CAUDAL_DATA_DIR or data_dir in caudal.yaml")
}

/// What went wrong, and what to do about it on a command line.
fn explained(error: &RecordError) -> CommandError {
    let hint = match error {
        RecordError::NoConsultation(_) => "`caudal record list` shows those there are".into(),
        RecordError::NoEvent(_) => "`caudal record tail ID` shows them".into(),
        error => error.hint(),
    };
    let words = format!("{error}; {hint}");
    match error.kind() {
        ErrorKind::InvalidParameter | ErrorKind::InvalidEvent | ErrorKind::InvalidJson | ErrorKind::EmptyBody => {
            usage(words)
        }
        _ => other(words),
    }
}

/// Says a line on standard output; `false` once nobody reads it.
fn tell(words: impl Display) -> Result<bool, CommandError> {
    // What was recorded may hold what moves a cursor.
    let words = words.to_string();
    match writeln!(io::stdout().lock(), "{}", caudal_types::printable_lines(&words)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(other(format!("standard output cannot be written: {error}"))),
    }
}

/// Says `value` as JSON over several lines, or writes it to a file.
fn deliver(value: &impl Serialize, file: Option<&PathBuf>) -> Result<(), CommandError> {
    let text = serde_json::to_string_pretty(value).expect("it is plain data");
    match file {
        None => tell(text).map(drop),
        Some(file) => fs::write(file, text + "\n")
            .map_err(|error| other(format!("{} cannot be written: {error}", file.display()))),
    }
}

/// What a file holds; `-` is standard input.
fn contents(file: &Path) -> Result<Vec<u8>, CommandError> {
    let read = match file == Path::new("-") {
        false => fs::read(file),
        true => {
            let mut bytes = Vec::new();
            io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
        }
    };
    read.map_err(|error| other(format!("{} cannot be read: {error}", file.display())))
}

fn text<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a str> {
    matches.get_one::<String>(name).map(String::as_str)
}

/// The consultation that is asked for.
fn id(matches: &ArgMatches) -> &str {
    text(matches, "id").expect("it is required")
}

fn path<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a PathBuf> {
    matches.get_one::<PathBuf>(name)
}

/// The key that must have signed, if one is named.
fn public_key(matches: &ArgMatches) -> Result<Option<VerifyingKey>, CommandError> {
    let Some(key) = text(matches, "key") else { return Ok(None) };
    let wrong = |why: String| usage(format!("--key is no public key: {why}; `caudal record key` prints one"));
    let bytes: Hex<32> = key.trim().parse().map_err(|error| wrong(format!("it is {error}")))?;
    VerifyingKey::from_bytes(&bytes.0).map(Some).map_err(|error| wrong(error.to_string()))
}

/// A bar on standard error, where that is a terminal; without a length it only counts.
fn bar(length: Option<u64>, what: &'static str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, form) = match length {
        Some(length) => {
            (ProgressBar::new(length), "{prefix} {bar:30} {human_pos} of {human_len} {elapsed}, {eta} left")
        }
        None => (ProgressBar::new_spinner(), "{prefix} {spinner} {human_pos} {elapsed}"),
    };
    bar.with_style(ProgressStyle::with_template(form).expect("the template is a constant")).with_prefix(what)
}
