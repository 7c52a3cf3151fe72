//! The one place that joins the parts: which backend, which models, which limits.

use std::{net::SocketAddr, path::Path, sync::Arc};

use caudal_engine::{
    Backend, LoadError, join_names,
    repository::{Repository, RepositoryError},
};
use caudal_engine_ort::{LibraryError, OnnxRuntime, locate_library};
use caudal_flow_leaves::{Models, Record, Serving};
use caudal_record::Consultations;
use caudal_server::{
    AdminAccess, Facts, Flags, ListenError, Listener, Listeners, ModelControl, Rooms, Secret, Server, ServerSettings,
};
use caudal_store::{
    Lock, Store, StoreError,
    postgres::Postgres,
    sqlite::{Options, Sqlite},
};
use caudal_tasks::{ByteBudget, Catalog, ChangeError, Decoders, Pictures};
use caudal_telemetry::Telemetry;
use caudal_types::Explain;
use caudal_vision::Limits;

use crate::{
    admin_token::AdminToken,
    private_files,
    settings::{Load, Settings},
};

pub(crate) mod flows;
mod no_backend;
mod shelf;
mod trial;

use no_backend::NoBackend;

/// Why the parts could not be joined.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AssembleError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("{0}; {hint}", hint = .0.hint())]
    Store(#[from] StoreError),
    #[error(transparent)]
    Library(#[from] LibraryError),
    #[error("providers = {asked}: {error}; {}", .error.hint())]
    Providers { asked: String, error: LoadError },
    #[error("{0}; create it, or point --model-repository at the folder of your models")]
    Repository(#[from] RepositoryError),
    #[error("the repository {0} holds no model; put each into its own folder: <name>/1/model.onnx")]
    NoModels(String),
    #[error("{0}")]
    Load(#[from] ChangeError),
    #[error("{0}")]
    Telemetry(#[from] caudal_telemetry::StartError),
    #[error("{0}")]
    Flows(String),
    #[error("threads could not be started: {0}")]
    Threads(#[from] std::io::Error),
}

/// The inference backend.
pub(crate) fn backend(settings: &Settings) -> Result<OnnxRuntime, AssembleError> {
    let (library, source) = locate_library(settings.onnxruntime_library.as_deref())?;
    tracing::debug!(library = %library.display(), "ONNX Runtime");
    let backend =
        OnnxRuntime::load_library_within(&library, source, settings.bounds.run_memory.or_else(most_run_memory))?;
    let (asked, has) = (&settings.models.providers, backend.providers());
    match asked.first() {
        // Models that say nothing themselves could not be loaded.
        Some(wanted) if asked.iter().all(|provider| !has.contains(provider)) => Err(AssembleError::Providers {
            asked: join_names(asked),
            error: LoadError::NoProvider { wanted: *wanted, has },
        }),
        _ => Ok(backend),
    }
}

/// Three quarters of the memory that the kernel allows: a run that needs more fails, and the server keeps running.
fn most_run_memory() -> Option<u64> {
    let caudal_memory::Reading { system, cgroup, .. } =
        caudal_memory::Sources::with_root(Path::new("/")).take_reading();
    let limits = [system, cgroup.map(|group| group.usage)];
    limits.into_iter().flatten().map(|usage| usage.limit / 4 * 3).min()
}

/// The store of what is recorded, where there is a folder for it. Several processes may have it open; who serves takes the
/// folder's lock before.
pub(crate) fn record_store(settings: &Settings) -> Result<Option<Arc<dyn Store>>, AssembleError> {
    let Some(folder) = &settings.data_dir else { return Ok(None) };
    private_files::create_private(settings);
    private_files::tighten_open(settings, folder);
    Ok(Some(match &settings.database {
        Some(database) => Arc::new(Postgres::open(database.clone())?),
        None => Arc::new(Sqlite::open(Options { flush: settings.record_flush, ..Options::within(folder) })?),
    }))
}

/// What is recorded, where there is a folder for it.
pub(crate) fn consultations(settings: &Settings) -> Result<Option<Consultations>, AssembleError> {
    Ok(record_store(settings)?.map(|store| consultations_in(settings, store)))
}

/// The same, on a disk that nobody can write to.
pub(crate) fn consultations_to_read(settings: &Settings) -> Result<Option<Consultations>, AssembleError> {
    let Some(folder) = &settings.data_dir else { return Ok(None) };
    // What is exported from it is written elsewhere.
    private_files::create_private(settings);
    let store = Arc::new(Sqlite::open_to_read(Options::within(folder))?);
    Ok(Some(consultations_in(settings, store)))
}

fn consultations_in(settings: &Settings, store: Arc<dyn Store>) -> Consultations {
    Consultations::new(store, settings.data_dir.clone(), settings.record_snapshot_every)
        .with_exports_of(settings.record_exports)
}

/// What is kept: consultations and runs of pipelines, in one store.
pub(crate) struct Kept {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) record: Consultations,
    /// The folder is this process's as long as this lives.
    _lock: Option<Lock>,
}

/// What is kept, where there is a folder for it.
pub(crate) fn kept(settings: &Settings) -> Result<Option<Kept>, AssembleError> {
    // Servers that share a database share the folder of its archives.
    let alone = settings.data_dir.as_deref().filter(|_| settings.database.is_none());
    let _lock = alone.map(caudal_store::lock).transpose()?;
    private_files::tighten_data(settings);
    let Some(store) = record_store(settings)? else { return Ok(None) };
    Ok(Some(Kept { record: consultations_in(settings, Arc::clone(&store)).with_audit_reserve(), store, _lock }))
}

/// The backend; none where there is no library for it and nothing that would need one.
fn any_backend(settings: &Settings) -> Result<Arc<dyn Backend>, AssembleError> {
    match backend(settings) {
        Err(AssembleError::Library(error)) if settings.data_dir.is_some() && !has_models(settings) => {
            tracing::info!("no models are served: {error}");
            Ok(Arc::new(NoBackend))
        }
        backend => Ok(Arc::new(backend?)),
    }
}

fn has_models(settings: &Settings) -> bool {
    std::fs::read_dir(&settings.model_repository).is_ok_and(|mut folder| folder.next().is_some())
}

/// The models, those that are loaded at start loaded and warm.
pub(crate) fn catalog(settings: &Settings, backend: Arc<dyn Backend>) -> Result<Catalog, AssembleError> {
    let catalog = empty_catalog(settings, backend)?;
    load_models(&catalog, settings)?;
    Ok(catalog)
}

/// The models, none of which is loaded yet.
fn empty_catalog(settings: &Settings, backend: Arc<dyn Backend>) -> Result<Catalog, AssembleError> {
    let repository = match (&settings.data_dir, settings.model_repository.is_dir()) {
        // A server of records needs no models, and takes those that come.
        (Some(data), false) => {
            let folder = data.join("models");
            std::fs::create_dir_all(&folder)?;
            Repository::open(&folder)?
        }
        _ => Repository::open(&settings.model_repository)?,
    };
    Ok(Catalog::new(repository, backend, settings.models.clone(), settings.stay))
}

/// Loads the models that serve from the start on.
pub(crate) fn load_models(catalog: &Catalog, settings: &Settings) -> Result<(), AssembleError> {
    match &settings.load {
        Load::All => {
            catalog.load_all()?;
            let for_ever = settings.server.model_control == ModelControl::None;
            if for_ever && settings.data_dir.is_none() && catalog.now().entries().next().is_none() {
                return Err(AssembleError::NoModels(settings.model_repository.display().to_string()));
            }
        }
        Load::Named(names) => catalog.load_named(names)?,
    }
    Ok(())
}

/// The way of pictures.
pub(crate) fn pictures(settings: &Settings) -> Result<Pictures, AssembleError> {
    let decoders = Decoders::start(settings.models.cpus.decode_threads)?;
    let limits = Limits { max_pixels: settings.max_pixels };
    Ok(Pictures::new(decoders, ByteBudget::new(settings.max_pixel_memory), limits))
}

/// Who tells collectors of requests and metrics, where one is named.
pub(crate) fn telemetry(settings: &Settings) -> Result<Telemetry, AssembleError> {
    Ok(Telemetry::start_exporters(settings.telemetry.clone())?)
}

fn recorded(settings: &Settings, consultations: Consultations) -> Record {
    Record { consultations, timezone: settings.server.record.timezone.clone() }
}

/// What leaves need where no server runs: models are loaded when a step asks one.
pub(crate) fn parts_of_flows(settings: &Settings, store: Option<&Arc<dyn Store>>) -> flows::Parts {
    let record = store.map(|store| recorded(settings, consultations_in(settings, Arc::clone(store))));
    let own = settings.clone();
    let open = move || {
        let models = backend(&own).and_then(|backend| {
            Ok(Models { catalog: Arc::new(catalog(&own, Arc::new(backend))?), pictures: pictures(&own)? })
        });
        models.map_err(|error| error.to_string())
    };
    flows::Parts { models: Some(Serving::later(open)), record }
}

fn listeners(settings: &Settings) -> Result<Listeners, ListenError> {
    const PUBLIC: Flags = Flags { host: "--host", port: "--http-port" };
    const ADMIN: Flags = Flags { host: "--admin-host", port: "--admin-port" };
    let server = &settings.server;
    let bind = |address, flags| Listener::bind(address, server.backlog, flags);
    Ok(Listeners {
        public: bind(SocketAddr::new(server.host, server.port), PUBLIC)?,
        admin: server.admin.map(|address| bind(address, ADMIN)).transpose()?,
    })
}

/// A server and what it is started with.
pub(crate) struct Assembled {
    pub(crate) server: Server,
    /// Its models, none of which is loaded yet.
    pub(crate) catalog: Arc<Catalog>,
    /// The credential of who administers it, where none is set.
    pub(crate) token: Option<AdminToken>,
}

/// The server, with its models, none of which is loaded yet. The port is taken first, so that one in use is said before
/// anything else is done.
pub(crate) fn server(
    settings: &Settings,
    config: Vec<(String, String)>,
    telemetry: Telemetry,
    kept: Option<&Kept>,
) -> Result<Assembled, AssembleError> {
    if settings.data_dir.is_none() {
        Repository::open(&settings.model_repository)?;
    }
    let listeners = listeners(settings)?;
    let (server_settings, token) = with_credential(settings, &listeners)?;
    let backend = any_backend(settings)?;
    let facts = Facts {
        backend: backend.describe_version(),
        cpus: settings.models.cpus.cpus,
        simd: caudal_vision::instructions().to_owned(),
        simd_jpeg: caudal_vision::JPEG_SIMD,
        config,
    };
    let catalog = Arc::new(empty_catalog(settings, backend)?.with_trial(trial::trial(settings)));
    let pictures = pictures(settings)?;
    let record = kept.map(|kept| kept.record.clone());
    let models = Models { catalog: Arc::clone(&catalog), pictures: pictures.clone() };
    let parts =
        flows::Parts { models: Some(models.into()), record: record.clone().map(|record| recorded(settings, record)) };
    let flows = flows::flows(settings, kept.map(|kept| Arc::clone(&kept.store)), parts)?;
    let rooms = Rooms { catalog: Arc::clone(&catalog), pictures, record, flows };
    let server = Server::new(listeners, rooms, server_settings, facts, telemetry)?;
    server.memory().register_hook("allocator", |_| crate::allocator::purge());
    Ok(Assembled { server, catalog, token })
}

/// The server's settings with the admin credential: the key that they name, or else a token.
fn with_credential(
    settings: &Settings,
    listeners: &Listeners,
) -> Result<(ServerSettings, Option<AdminToken>), AssembleError> {
    let mut server = settings.server.clone();
    if !matches!(server.access.admin, AdminAccess::Closed) {
        return Ok((server, None));
    }
    let port = listeners.admin.as_ref().unwrap_or(&listeners.public).address().port();
    let token = AdminToken::make(settings.data_dir.as_deref(), port)?;
    server.access.admin = AdminAccess::Credential(Secret::new(&token.text));
    Ok((server, Some(token)))
}
