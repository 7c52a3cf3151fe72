//! The models that serve, by name and alias, and those that should and do not; how they come and go.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, Guard};
use caudal_engine::{
    Backend, OperatorProfile,
    repository::{ModelFolder, ModelSettings, Repository, RepositoryError, SettingsError},
};
use caudal_types::{ErrorKind, Explain};

use crate::{
    Defaults, Entry, Failed, ModelError, Models, ServedModel, Stay, Unavailable, demand::Resting, ledger::Ledger, load,
    operators, prove::prove, trial::Trial,
};

/// All models of a repository. Whoever asks sees them as they are at that moment; those that come and go do so at once,
/// between two requests.
pub struct Catalog {
    now: ArcSwap<Models>,
    repository: Repository,
    backend: Arc<dyn Backend>,
    defaults: ArcSwap<Defaults>,
    stay: ArcSwap<Stay>,
    /// Tries models before they are loaded.
    trial: Option<Trial>,
    changes: Changes,
    /// Held by whoever changes the models, one at a time.
    turn: Mutex<Turn>,
    /// Held by who brings a model back: those who were first to ask for theirs stand in line.
    pub(crate) waking: Arc<tokio::sync::Mutex<()>>,
}

/// What is remembered from change to change.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// How each folder looked.
    looks: BTreeMap<String, Looks>,
    pub(crate) ledger: Ledger,
}

#[derive(Debug, Default)]
struct Changes {
    loaded: AtomicU64,
    rested: AtomicU64,
    failed: AtomicU64,
}

/// How often models have come and gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeCounts {
    /// Loads that succeeded.
    pub loaded: u64,
    /// Models put to rest, for want of memory or of requests.
    pub rested: u64,
    /// Loads that failed.
    pub failed: u64,
}

/// Fingerprints of a model's folder.
#[derive(Debug, Clone, Copy, Default)]
struct Looks {
    /// When it was loaded, or tried to be.
    loaded: u64,
    /// At the last look.
    last: u64,
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalog").field("models", &self.now.load()).finish()
    }
}

/// Why a model did not come or go.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is none of that name.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The repository cannot be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// It could not be loaded; what served before still does.
    #[error("{reason}{}", if *.serving { "; the version that was loaded before still serves" } else { "" })]
    Load {
        /// Why.
        reason: String,
        /// Why, where callers may know it.
        for_callers: Option<String>,
        /// What to do.
        hint: Cow<'static, str>,
        /// Whether a version of it serves.
        serving: bool,
    },
    /// It does not fit into the memory that models may hold.
    #[error("the model {model:?} holds {} MiB, and there is room for {} MiB of models", .need >> 20, .limit >> 20)]
    TooLarge {
        /// The model.
        model: String,
        /// Bytes that it holds, or its weights alone do.
        need: u64,
        /// Bytes that all may hold, beside what is kept for their runs.
        limit: u64,
    },
    /// It did not prove itself.
    #[error("the version {version} does not go live: {reason}")]
    Unproven {
        /// The new version.
        version: u64,
        /// What it did not show.
        reason: String,
    },
    /// What it should change into makes no sense.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// What it should change into is not for this model, or not while it serves.
    #[error("the model {model:?} cannot change like that: {reason}")]
    Change {
        /// The model.
        model: String,
        /// Why.
        reason: String,
    },
}

impl Explain for ChangeError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unavailable(error) => error.kind(),
            Self::Repository(_) | Self::Load { .. } | Self::TooLarge { .. } | Self::Unproven { .. } => {
                ErrorKind::LoadFailed
            }
            Self::Settings(_) | Self::Change { .. } => ErrorKind::InvalidParameter,
        }
    }

    fn hint(&self) -> Cow<'static, str> {
        match self {
            Self::Unavailable(_) => "POST /v2/repository/index names the models of the repository".into(),
            Self::Repository(_) => "check the model repository and the rights to read it".into(),
            Self::TooLarge { .. } => "raise model_memory_mb, or serve a smaller model".into(),
            Self::Unproven { .. } => {
                "mend it, or loosen `prove` in model.yaml; without it a version goes live at once".into()
            }
            Self::Settings(_) => {
                "docs/models.md lists the keys of model.yaml; `caudal models schema` prints them".into()
            }
            Self::Change { .. } => "change its model.yaml and load it anew".into(),
            Self::Load { hint, .. } => hint.clone(),
        }
    }
}

/// How long a model that has gone is waited for until its last request is answered.
const RETIRE_WITHIN: Duration = Duration::from_secs(30);

impl Catalog {
    /// A catalog of `repository` in which nothing serves yet.
    pub fn new(repository: Repository, backend: Arc<dyn Backend>, defaults: Defaults, stay: Stay) -> Self {
        let (now, turn, waking) = (ArcSwap::default(), Mutex::default(), Arc::default());
        let (defaults, stay) = (ArcSwap::from_pointee(defaults), ArcSwap::from_pointee(stay));
        Self { now, repository, backend, defaults, stay, trial: None, changes: Changes::default(), turn, waking }
    }

    /// The same, in which each model passes `trial` before it is loaded.
    #[must_use]
    pub fn with_trial(self, trial: Option<Trial>) -> Self {
        Self { trial, ..self }
    }

    /// Loads all models of the repository, as far as there is room: the rest are brought when they are asked for. One
    /// that fails does not keep the others from serving.
    pub fn load_all(&self) -> Result<(), RepositoryError> {
        let mut turn = self.turn();
        for folder in self.repository.list_models()? {
            self.load_if_room(&mut turn, &folder);
        }
        Ok(())
    }

    /// Says whether models are being loaded that should serve from the start on: those who ask meanwhile are told so.
    pub fn set_loading(&self, loading: bool) {
        let _turn = self.turn();
        self.now.store(Arc::new(Models { loading, ..Models::clone(&self.now()) }));
    }

    /// Loads the models called `names`, and takes note of those that are left out.
    pub fn load_named(&self, names: &[String]) -> Result<(), ChangeError> {
        let left_out = self.repository.list_models()?.into_iter().map(|folder| folder.name);
        let mut next = Models::clone(&self.now());
        next.unloaded.extend(left_out);
        self.now.store(Arc::new(next));
        names.iter().try_for_each(|name| self.load(name).map(drop))
    }

    fn load_if_room(&self, turn: &mut Turn, folder: &ModelFolder) {
        if self.would_crowd(turn, folder) {
            turn.look(folder);
            drop(self.put(folder, Entry::Resting(Resting::new(&folder.name, None, None))));
        } else {
            // A failure is in the log, and is not tried again before something changes.
            let _ = self.load_folder(turn, folder);
        }
    }

    /// How much models may hold now, and how long they stay.
    pub fn stay(&self) -> Stay {
        **self.stay.load()
    }

    /// Lets other defaults hold for models that are loaded from now on.
    pub fn set(&self, defaults: Defaults, stay: Stay) {
        self.defaults.store(Arc::new(defaults));
        self.stay.store(Arc::new(stay));
    }

    /// How often models have come and gone.
    pub fn changes(&self) -> ChangeCounts {
        let Changes { loaded, rested, failed } = &self.changes;
        let [loaded, rested, failed] = [loaded, rested, failed].map(|count| count.load(Relaxed));
        ChangeCounts { loaded, rested, failed }
    }

    /// The models as they are now.
    pub fn now(&self) -> Guard<Arc<Models>> {
        self.now.load()
    }

    /// The model called `name`: see [`Models::get`].
    pub fn get(&self, name: &str, version: Option<&str>) -> Result<Arc<ServedModel>, Unavailable> {
        self.now().get(name, version).cloned()
    }

    /// The names of all models of the repository, each with the version that would serve, as far as its folder tells.
    pub fn folders(&self) -> Result<Vec<(String, Option<u64>)>, RepositoryError> {
        let with_version = |folder: ModelFolder| {
            let settings = folder.read_settings().unwrap_or_default();
            let newest = || folder.list_versions().ok()?.into_iter().map(|version| version.number).max();
            let version = folder.serving_version(&settings).ok().map(|version| version.number).or_else(newest);
            (folder.name, version)
        };
        Ok(self.repository.list_models()?.into_iter().map(with_version).collect())
    }

    /// Loads the model `name` as it lies in the repository now, in place of what served under its name, which goes on
    /// until the new one is ready and then finishes what it has begun. Takes as long as all that takes.
    pub fn load(&self, name: &str) -> Result<Arc<ServedModel>, ChangeError> {
        let mut turn = self.turn();
        let folder = self.folder(name)?;
        self.load_folder(&mut turn, &folder)
    }

    pub(crate) fn folder(&self, name: &str) -> Result<ModelFolder, ChangeError> {
        let found = self.repository.list_models()?.into_iter().find(|folder| folder.name == name);
        Ok(found.ok_or_else(|| self.now().no_such(name))?)
    }

    pub(crate) fn load_folder(&self, turn: &mut Turn, folder: &ModelFolder) -> Result<Arc<ServedModel>, ChangeError> {
        self.load_changed(turn, folder, None)
    }

    /// Loads the model in `folder` with what was changed of it before it went to rest.
    pub(crate) fn load_changed(
        &self,
        turn: &mut Turn,
        folder: &ModelFolder,
        changes: Option<&ModelSettings>,
    ) -> Result<Arc<ServedModel>, ChangeError> {
        turn.look(folder);
        let loaded = self.make_room(turn, folder).and_then(|()| {
            let defaults = self.defaults.load();
            let tried = self.trial.as_ref().map_or(Ok(()), |trial| trial.check(folder, &defaults, self.stay().memory));
            let load = tried.and_then(|()| load(folder, &*self.backend, &defaults));
            let failed = |error: ModelError| {
                let (reason, for_callers) = (error.to_string(), error.for_callers().map(str::to_owned));
                ChangeError::Load { reason, for_callers, hint: error.hint(), serving: false }
            };
            let model = load.map_err(failed)?;
            self.settle(turn, &model)?;
            self.prove(&model)?;
            if let Some(Err(reason)) = changes.map(|changes| model.change(changes)) {
                tracing::warn!(model = model.name, reason, "what was changed while the model served no longer holds");
            }
            Ok(model)
        });
        match loaded {
            Ok(model) => {
                self.changes.loaded.fetch_add(1, Relaxed);
                let model = told(model);
                retire(self.put(folder, Entry::Ready(Arc::clone(&model))));
                Ok(model)
            }
            Err(error) => {
                self.changes.failed.fetch_add(1, Relaxed);
                let (reason, for_callers, hint) = match error {
                    ChangeError::Load { reason, for_callers, hint, .. } => (reason, for_callers, hint),
                    error => (error.to_string(), None, error.hint()),
                };
                let told = format!("{reason}; {hint}");
                tracing::error!(model = folder.name, "model not loaded: {told}");
                let serving = matches!(self.now().entry(&folder.name), Some(Entry::Ready(_)));
                if !serving {
                    self.put(folder, Entry::Failed(Failed { reason: told, for_callers: for_callers.clone() }));
                }
                Err(ChangeError::Load { reason, for_callers, hint, serving })
            }
        }
    }

    /// Lets `model` show that it may take the place of the version that serves, if its settings ask for that.
    fn prove(&self, model: &ServedModel) -> Result<(), ChangeError> {
        let (Some(asked), Ok(old)) = (&model.prove, self.get(&model.name, None)) else { return Ok(()) };
        prove(&old, model, asked).map_err(|reason| ChangeError::Unproven { version: model.version, reason })
    }

    /// Lets the model `name` go: it gets no new requests, finishes those it has, and is gone. One of the repository that is
    /// not loaded stays so.
    pub fn unload(&self, name: &str) -> Result<(), ChangeError> {
        let mut turn = self.turn();
        let folder = self.folder(name);
        if self.now().entry(name).is_none() {
            folder?;
            return Ok(());
        }
        self.unload_entry(&mut turn, name)?;
        if folder.is_ok() {
            let mut next = Models::clone(&self.now());
            next.unloaded.insert(name.to_owned());
            self.now.store(Arc::new(next));
        }
        Ok(())
    }

    fn unload_entry(&self, turn: &mut Turn, name: &str) -> Result<(), ChangeError> {
        turn.looks.remove(name);
        let mut next = Models::clone(&self.now());
        let gone = next.models.remove(name).ok_or_else(|| next.no_such(name))?;
        next.aliases.retain(|_, model| model != name);
        self.now.store(Arc::new(next));
        tracing::info!(model = name, "model unloaded");
        retire(Some(gone));
        Ok(())
    }

    /// Looks at the repository: loads what is new in it or has changed, and lets go what is no longer there. What differs
    /// from the last look is left alone until it looks the same twice: it may still be being copied.
    pub fn poll(&self) {
        let mut turn = self.turn();
        let folders = match self.repository.list_models() {
            Ok(folders) => folders,
            Err(error) => return tracing::warn!(%error, "the models stay as they are"),
        };
        for folder in &folders {
            let (print, looks) = (folder.fingerprint(), turn.looks.entry(folder.name.clone()).or_default());
            if print == looks.loaded || print != looks.last {
                looks.last = print;
                continue;
            }
            // Not to be held while a model goes: it is waited for until nobody holds it.
            let entry = self.now().entry(&folder.name).cloned();
            match entry {
                // Whoever asks for it will get what lies there then.
                Some(Entry::Resting(_)) => looks.loaded = print,
                Some(Entry::Ready(model)) => {
                    drop(model);
                    // A failure is in the log, and is not tried again before something changes.
                    let _ = self.load_folder(&mut turn, folder);
                }
                Some(Entry::Failed(_)) | None => self.load_if_room(&mut turn, folder),
            }
        }
        let gone = |name: &&str| folders.iter().all(|folder| folder.name != **name);
        let gone: Vec<String> = self.now().models.keys().map(String::as_str).filter(gone).map(str::to_owned).collect();
        for name in gone {
            let _ = self.unload_entry(&mut turn, &name);
        }
    }

    /// What `model`, one of these, spends its time on, in `runs` runs beside those that it serves.
    pub fn operators(&self, model: &ServedModel, runs: usize) -> Result<OperatorProfile, ChangeError> {
        let folder = self.folder(&model.name)?;
        operators(model, &folder, &*self.backend, runs).map_err(|error| ChangeError::Load {
            reason: error.to_string(),
            for_callers: None,
            hint: error.hint(),
            serving: true,
        })
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    pub(crate) fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same if nobody else has it.
    pub(crate) fn try_turn(&self) -> Option<MutexGuard<'_, Turn>> {
        self.turn.try_lock().ok()
    }

    /// Puts `entry` in the place of what stood under the folder's name, which it gives, with the aliases that the folder's
    /// settings name.
    fn put(&self, folder: &ModelFolder, entry: Entry) -> Option<Entry> {
        let mut next = Models::clone(&self.now());
        next.aliases.retain(|_, model| *model != folder.name);
        for alias in folder.read_settings().map(|settings| settings.aliases).unwrap_or_default() {
            next.aliases.entry(alias).or_insert_with(|| folder.name.clone());
        }
        next.unloaded.remove(&folder.name);
        let before = next.models.insert(folder.name.clone(), entry);
        self.now.store(Arc::new(next));
        before
    }

    /// Lets the model `name` rest, and waits until it has finished what it has begun.
    pub(crate) fn replace(&self, name: &str, entry: Entry) {
        self.changes.rested.fetch_add(1, Relaxed);
        let mut next = Models::clone(&self.now());
        let before = next.models.insert(name.to_owned(), entry);
        self.now.store(Arc::new(next));
        retire(before);
    }
}

impl Turn {
    /// Remembers how `folder` looks before it is loaded.
    fn look(&mut self, folder: &ModelFolder) {
        let print = folder.fingerprint();
        self.looks.insert(folder.name.clone(), Looks { loaded: print, last: print });
    }

    /// How the folder of the model `name` looked when it was loaded.
    pub(crate) fn loaded_print(&self, name: &str) -> Option<u64> {
        self.looks.get(name).map(|looks| looks.loaded)
    }
}

fn told(model: ServedModel) -> Arc<ServedModel> {
    let plan = model.plan();
    tracing::info!(
        model = model.name,
        version = model.version,
        task = model.task.name(),
        provider = %model.runs_on,
        instances = plan.instances,
        threads = plan.threads,
        wide_threads = plan.wide_threads,
        max_batch_size = plan.max_batch_size,
        rows_joined = model.joining().joins(),
        memory_mb = model.memory.bytes() >> 20,
        run_ms = (model.measured.one_row.as_secs_f64() * 1e6).round() / 1e3,
        "model ready"
    );
    Arc::new(model)
}

/// Waits until nobody else holds what has gone, and drops it here: giving back a model's memory takes longer than a
/// thread that talks to sockets may take.
fn retire(gone: Option<Entry>) {
    let Some(Entry::Ready(model)) = gone else { return };
    let since = Instant::now();
    while Arc::strong_count(&model) > 1 && since.elapsed() < RETIRE_WITHIN {
        thread::sleep(Duration::from_millis(1));
    }
}
