//! `caudal flow`: pipelines without a server, or beside one.

mod again;
mod draw;
mod init;
mod list;
mod live;
mod resume;
mod run;
mod say;
mod show;
mod validate;

use std::{
    collections::BTreeMap,
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use caudal_flow::{
    Definition, Engine, Finding, Flows, Registry, RunError, Value,
    journal::{StoredRuns, Story},
};
use caudal_store::Store;
use caudal_types::Explain as _;
use clap::ArgMatches;
use tokio::runtime::Runtime;

use super::{CommandError, Loaded, load, other, usage};
use crate::{
    assemble::{self, flows},
    settings::{Raw, Settings},
};

/// What a pipeline uses cannot be found.
const IMPORT: u8 = 3;
/// A pipeline is none.
const INVALID: u8 = 4;
/// Ctrl-C.
const INTERRUPTED: u8 = 130;

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    match matches.subcommand() {
        Some(("run", matches)) => run::run(matches),
        Some(("validate", matches)) => validate::run(matches),
        Some(("list", matches)) => list::run(matches),
        Some(("show", matches)) => show::show(matches),
        Some(("trace", matches)) => show::trace(matches),
        Some(("replay", matches)) => show::replay(matches),
        Some(("resume", matches)) => resume::resume(matches),
        Some(("cancel", matches)) => resume::cancel(matches),
        Some(("explain", matches)) => draw::explain(matches),
        Some(("visualize", matches)) => draw::visualize(matches),
        Some(("leaves", matches)) => draw::leaves(matches),
        Some(("schema", _)) => draw::schema(),
        Some(("init", matches)) => init::run(matches),
        _ => Err(usage("see `caudal flow --help`")),
    }
}

fn told(error: &RunError) -> CommandError {
    other(format!("{error}; {}", error.hint()))
}

/// Whether runs are looked at or made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Runs {
    /// Their store is opened.
    Kept,
    /// Nothing is opened or made.
    None,
}

/// What pipelines are read with.
struct Opened {
    settings: Settings,
    raw: Vec<Raw>,
    may: flows::May,
    registry: Registry,
    store: Option<Arc<dyn Store>>,
}

impl Opened {
    fn new(matches: &ArgMatches, runs: Runs) -> Result<Self, CommandError> {
        let Loaded { raw, notices, mut settings } = load(matches, true)?;
        let concerns = |name: &str| name == "DATABASE_URL" || name.starts_with("FLUJO_");
        for notice in notices.iter().filter(|notice| notice.warns && concerns(&notice.name)) {
            tracing::warn!("{}", notice.text);
        }
        // Runs in PostgreSQL have their archives and keys in a folder as well.
        if settings.data_dir.is_none() {
            settings.data_dir = own_folder();
        }
        if runs == Runs::None {
            settings.flow.shelf_bytes = None;
        }
        let may = flows::May::read(&settings.flow.folder)?;
        let store = if runs == Runs::Kept { assemble::record_store(&settings)? } else { None };
        let registry = may.registry(assemble::parts_of_flows(&settings, store.as_ref()))?;
        Ok(Self { settings, raw, may, registry, store })
    }

    /// Where a pipeline's file is: as it is written, or by its name in the folder of pipelines.
    fn file(&self, said: &str) -> Result<PathBuf, CommandError> {
        let folder = &self.settings.flow.folder;
        let tries = [
            PathBuf::from(said),
            folder.join(said),
            folder.join(format!("{said}.yaml")),
            folder.join(format!("{said}.yml")),
        ];
        if let Some(file) = tries.into_iter().find(|file| file.is_file()) {
            return Ok(file);
        }
        let files = flows::files(folder);
        let names: Vec<&str> = files.iter().filter_map(|file| file.file_stem()?.to_str()).collect();
        let near =
            caudal_types::nearest(said, names.iter().copied()).map_or(String::new(), |near| format!("; is it {near}?"));
        Err(usage(format!("there is no pipeline {said}, neither a file nor in {}{near}", folder.display())))
    }

    /// The file that a stored run was begun from, if it is still there.
    async fn file_of(&self, id: &str) -> Option<PathBuf> {
        let runs = StoredRuns::new(Arc::clone(self.store.as_ref()?));
        let source = Story::read(&runs, id).await.ok()?.begun.source?;
        Some(PathBuf::from(&*source)).filter(|file| file.is_file())
    }

    fn read(&self, file: &Path) -> Result<(Definition, Vec<Finding>), Vec<Finding>> {
        self.may.pipeline(file, &self.registry)
    }

    /// The pipeline that is said, or the code for which it is none, told.
    fn pipeline(&self, said: &str) -> Result<Result<Definition, ExitCode>, CommandError> {
        Ok(self.pipeline_in(&self.file(said)?))
    }

    /// The pipeline of a file, or the code of the command that cannot read it; findings are printed.
    fn pipeline_in(&self, file: &Path) -> Result<Definition, ExitCode> {
        match self.read(file) {
            Ok((definition, findings)) => {
                say::findings(file, &findings);
                Ok(definition)
            }
            Err(findings) => {
                say::findings(file, &findings);
                Err(ExitCode::from(code_of(&findings)))
            }
        }
    }

    /// What runs all pipelines of the folder, and `more`.
    fn flows(&self, more: Option<&Definition>) -> Arc<Flows> {
        let engine: Engine = flows::engine(&self.settings, self.store.clone());
        let files = flows::files(&self.settings.flow.folder);
        let mut definitions: BTreeMap<Arc<str>, Definition> = files
            .iter()
            .filter_map(|file| self.read(file).ok())
            .map(|(definition, _)| (Arc::clone(&definition.name), definition))
            .collect();
        if let Some(more) = more {
            definitions.insert(Arc::clone(&more.name), more.clone());
        }
        Flows::new(engine, definitions.into_values())
    }
}

/// Where runs are kept where nobody says.
fn own_folder() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/share"));
    let data =
        std::env::var_os("XDG_DATA_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from).or_else(home)?;
    Some(data.join("caudal"))
}

/// 3 where all that is wrong is that something cannot be found, else 4.
fn code_of(findings: &[Finding]) -> u8 {
    let errors = || findings.iter().filter(|finding| finding.severity == caudal_flow::Severity::Error);
    if errors().all(|finding| finding.code.starts_with("V-I") || finding.code == "V-A6") { IMPORT } else { INVALID }
}

fn runtime() -> Result<Runtime, CommandError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| other(format!("the async runtime could not be started: {error}")))
}

/// What somebody says on the command line: JSON, or else a text; `-` is standard input.
fn value(said: &str) -> Result<Value, CommandError> {
    /// As much as standard input may hold.
    const MOST: u64 = 64 << 20;
    if said != "-" {
        return Ok(Value::from_json(said.as_bytes()).unwrap_or_else(|_| said.into()));
    }
    let mut text = String::new();
    let read = std::io::stdin().lock().take(MOST + 1).read_to_string(&mut text);
    read.map_err(|error| usage(format!("standard input cannot be read: {error}")))?;
    if text.len() as u64 > MOST {
        return Err(usage("standard input holds more than 64 MiB"));
    }
    let text = caudal_types::without_mark(text.strip_suffix('\n').unwrap_or(&text));
    Ok(Value::from_json(text.as_bytes()).unwrap_or_else(|_| text.into()))
}
