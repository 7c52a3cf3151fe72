//! One file per subcommand.

mod bench;
mod bench_codec;
mod bench_plot;
mod bench_table;
mod config;
mod detect;
mod embed;
mod explain;
mod flow;
mod fuse;
mod media;
mod models;
mod operators;
mod optimize;
mod pictures;
mod profile;
mod read_events;
mod record;
mod reload;
mod remote;
mod sealing;
mod seen;
mod serve;
mod token;
mod try_model;

use std::{env, path::PathBuf, process::ExitCode};

use clap::ArgMatches;

use crate::{
    assemble::AssembleError,
    cli, logging,
    settings::{Gathered, Notice, Raw, Settings, SettingsError, gather},
};

/// Why a command failed; what it says to people is its `Display`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The settings are wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The parts could not be joined.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// The command line asks for what cannot be.
    #[error("{0}")]
    Usage(String),
    /// Something else, said in words.
    #[error("{0}")]
    Other(String),
}

fn other(words: impl Into<String>) -> CommandError {
    CommandError::Other(words.into())
}

fn usage(words: impl Into<String>) -> CommandError {
    CommandError::Usage(words.into())
}

impl CommandError {
    /// 2 for what the caller said wrong, 1 for everything else.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Settings(_) | Self::Usage(_) => ExitCode::from(2),
            Self::Assemble(_) | Self::Other(_) => ExitCode::FAILURE,
        }
    }
}

/// Runs the command that `matches` names.
pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    match matches.subcommand() {
        Some(("serve", matches)) => serve::run(matches),
        Some(("detect", matches)) => detect::run(matches),
        Some(("embed", matches)) => embed::run(matches),
        Some(("models", matches)) => models::run(matches),
        Some(("explain", matches)) => explain::run(matches),
        Some(("token", matches)) => token::run(matches),
        Some(("profile", matches)) => profile::run(matches),
        Some(("bench", matches)) => bench::run(matches),
        Some(("media", matches)) => media::run(matches),
        Some(("record", matches)) => record::run(matches),
        Some(("flow", matches)) => flow::run(matches),
        Some(("config", matches)) => config::run(matches),
        Some((caudal_record::archive::IMPORT_COMMAND, matches)) => read_events::run(matches),
        Some((cli::TRY_COMMAND, matches)) => try_model::run(matches),
        _ => Err(CommandError::Other("see `caudal --help`".to_owned())),
    }
}

/// The settings as gathered and as resolved.
struct Loaded {
    raw: Vec<Raw>,
    notices: Vec<Notice>,
    settings: Settings,
}

/// The file of settings that is asked for, if one is.
fn settings_file(matches: &ArgMatches) -> Option<PathBuf> {
    let from_variable = env::var_os("CAUDAL_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    matches.get_one::<PathBuf>("config").cloned().or(from_variable)
}

fn gather_all(matches: &ArgMatches) -> Result<Gathered, SettingsError> {
    let environment =
        env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    gather(&cli::settings(matches), &environment.collect(), settings_file(matches).as_deref())
}

/// Gathers and resolves the settings, and starts logging as they say (`quiet`: warnings and worse, unless a level
/// was asked for).
fn load(matches: &ArgMatches, quiet: bool) -> Result<Loaded, CommandError> {
    let gathered = gather_all(matches)?;
    let settings = Settings::resolve(&gathered.values)?;
    let asked =
        gathered.values.iter().any(|raw| raw.key == "log_level" && raw.origin != crate::settings::Origin::Default);
    let level = if quiet && !asked { "warn" } else { &settings.log_level };
    logging::start(level, settings.log_json).map_err(|error| {
        let raw = gathered.values.iter().find(|raw| raw.key == "log_level").expect("it is in the table").clone();
        SettingsError::Invalid { key: raw.key, value: raw.value, origin: raw.origin, reason: error }
    })?;
    Ok(Loaded { raw: gathered.values, notices: gathered.notices, settings })
}
