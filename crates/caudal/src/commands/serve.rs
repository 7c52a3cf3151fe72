//! `caudal serve`.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use caudal_server::{AdminAccess, Ending, ServerSettings};
use clap::ArgMatches;
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};
use tokio::signal::unix::{SignalKind, signal};

use super::{CommandError, Loaded, load, reload::Reload, sealing::keep_sealing};
use crate::{
    admin_token::AdminToken,
    assemble, logging, private_files,
    settings::{Raw, SettingsError, TABLE},
};

/// How long the end waits for collectors to take the last spans and metrics.
const LAST_WORDS: Duration = Duration::from_secs(2);

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let began = Instant::now();
    let loaded = load(matches, false)?;
    for notice in &loaded.notices {
        match notice.warns {
            true => tracing::warn!("{}", notice.text),
            false => tracing::info!("{}", notice.text),
        }
    }
    refuse_unused_database(&loaded)?;
    raise_open_files();
    let Loaded { raw, settings, .. } = loaded;
    let mut reload = Reload::new(matches, raw.clone());
    if settings.pin_to_quota {
        keep_to_quota(settings.models.cpus.cpus);
    }
    let telemetry = assemble::telemetry(&settings)?;
    private_files::create_private(&settings);
    // The folder is this server's until the process ends.
    let kept = assemble::kept(&settings)?;
    // This one accepts connections and waits for signals; the server's own threads talk to them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CommandError::Other(format!("the async runtime could not be started: {error}")))?;
    let ending = runtime.block_on(async {
        // What names files and other machines is nobody's business who only asks for the server's health, nor where it is
        // administered.
        let told = |raw: &Raw| {
            let secret = |value: &str| matches!(value, "DIR" | "FILE" | "SECRET" | "URL");
            let known = TABLE.iter().find(|key| key.name == raw.key);
            known.is_some_and(|key| !secret(key.value) && !key.name.starts_with("admin_"))
        };
        let config = raw.into_iter().filter(told).map(|raw| (raw.key.to_owned(), raw.value)).collect();
        let assemble::Assembled { server, catalog, token } =
            assemble::server(&settings, config, telemetry.clone(), kept.as_ref())?;
        if let Some(kept) = &kept {
            tokio::spawn(keep_sealing(kept.record.clone(), settings.seal.clone()));
        }
        warn_if_open(&settings.server);
        if let Some(token) = &token {
            say_where(token);
        }
        if !settings.record_flush {
            tracing::warn!("record_flush is off: what is acknowledged is lost if the machine fails");
        }
        let (address, admin_address, control) = (server.address(), server.admin_address(), server.control());
        tracing::info!("loading models; http://{address}/livez answers meanwhile");
        let (own, ready) = (settings.clone(), control.clone());
        let loaded = || {
            tracing::info!(
                ready = ready.is_ready(),
                startup_ms = began.elapsed().as_millis() as u64,
                "listening on http://{address} (API at /docs, metrics at /metrics)"
            );
            if let Some(address) = admin_address {
                tracing::info!("administered on http://{address} alone (/admin, /debug, /v2/repository, /api/audit)");
            }
        };
        let run = server.run(move || assemble::load_models(&catalog, &own), loaded, stopped());
        tokio::select! {
            ending = run => Ok::<_, CommandError>(ending?),
            never = reload.keep(&control, settings.watch) => match never {},
        }
    })?;
    // Threads of the runtime have nothing left to do but what was cut short.
    runtime.shutdown_background();
    telemetry.shut_down(LAST_WORDS);
    match ending {
        Ending::Clean => {
            tracing::info!("stopped");
            Ok(ExitCode::SUCCESS)
        }
        Ending::BeforeLoaded => {
            tracing::info!("stopped before all models were loaded");
            exit_now(0);
        }
        Ending::CutShort(connections) => {
            tracing::warn!(connections, "stopped before everything was finished: exit_timeout_secs is over");
            exit_now(1);
        }
    }
}

/// Refuses a database that was set for this server and would not be used.
fn refuse_unused_database(loaded: &Loaded) -> Result<(), CommandError> {
    if loaded.settings.data_dir.is_some() || loaded.settings.database.is_none() {
        return Ok(());
    }
    let raw = loaded.raw.iter().find(|raw| raw.key == "database_url").expect("it is in the table").clone();
    let reason = "it needs data_dir too, the folder for archives, exports and the signing key: set --data-dir DIR, \
                  CAUDAL_DATA_DIR or data_dir in caudal.yaml"
        .to_owned();
    Err(SettingsError::Invalid { key: raw.key, value: raw.value, origin: raw.origin, reason }.into())
}

/// Completes on SIGTERM or SIGINT. A second signal ends the process at once.
async fn stopped() {
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be waited for");
    let mut interrupt = signal(SignalKind::interrupt()).expect("signals can be waited for");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("stopped at once: a second signal came");
        exit_now(130);
    });
}

/// Ends the process without tearing down what a model may be running on.
fn exit_now(code: i32) -> ! {
    logging::finish();
    signal_hook::low_level::exit(code)
}

/// Where a quota allows fewer cores than there are, keeps this process to `cpus` of them. Threads that run on more for a
/// moment use the quota up before its period ends, and then the kernel stops all of them until the next.
fn keep_to_quota(cpus: usize) {
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
    if cpus >= all.len() {
        return;
    }
    // Several servers on one machine should not all take the same cores.
    let first = std::process::id() as usize % all.len();
    let mut kept = CpuSet::new();
    all.iter().cycle().skip(first).take(cpus).for_each(|core| kept.set(*core));
    if let Err(error) = sched_setaffinity(None, &kept) {
        return tracing::debug!(%error, "the process runs on whichever cores it likes");
    }
    tracing::info!(cpus, of = all.len(), "the CPU quota is less than the machine: keeping to as many cores");
}

/// Each connection is an open file: the limit is raised as far as it may be.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

fn warn_if_open(settings: &ServerSettings) {
    let host = settings.host;
    if !host.is_loopback() {
        tracing::warn!("listening on {host} without authentication: anyone who can reach this port can use the models");
    }
    if let AdminAccess::Insecure = settings.access.admin {
        tracing::warn!("admin_insecure is on: admin routes need no credential, every caller may use them");
    }
}

/// Logs where the admin token lies, for people and for commands that other users of the machine run.
fn say_where(token: &AdminToken) {
    match &token.file {
        Some(file) => tracing::info!("admin routes need the token in {}", file.display()),
        None => {
            tracing::warn!("admin routes are closed: no folder for the admin token could be written to; set admin_key");
        }
    }
}
