//! The models that serve, by name and alias, and those that should and do not; how they come and go.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, Guard};
use caudal_engine::{
    Backend,
    repository::{ModelFolder, Repository, RepositoryError},
};
use caudal_types::{ErrorKind, Explain, nearest, shorten};

use crate::{Defaults, ServedModel, load, model::in_words};

/// What became of one model of the repository.
#[derive(Debug, Clone)]
pub enum Entry {
    /// It serves.
    Ready(Arc<ServedModel>),
    /// It does not; this says why and what to do.
    Failed(String),
}

/// The models at one moment.
#[derive(Debug, Default, Clone)]
pub struct Models {
    models: BTreeMap<String, Entry>,
    aliases: BTreeMap<String, String>,
}

/// All models of a repository. Whoever asks sees them as they are at that moment; those that come and go do so at once,
/// between two requests.
pub struct Catalog {
    now: ArcSwap<Models>,
    repository: Repository,
    backend: Arc<dyn Backend>,
    defaults: Defaults,
    /// Held by whoever changes the models, one at a time: how each folder looked.
    turn: Mutex<BTreeMap<String, Looks>>,
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
        /// Why, and what to do.
        reason: String,
        /// Whether a version of it serves.
        serving: bool,
    },
}

impl Explain for ChangeError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unavailable(error) => error.kind(),
            Self::Repository(_) | Self::Load { .. } => ErrorKind::LoadFailed,
        }
    }

    fn hint(&self) -> Cow<'static, str> {
        match self {
            Self::Unavailable(_) => "POST /v2/repository/index names the models of the repository".into(),
            Self::Repository(_) => "check the model repository and the rights to read it".into(),
            Self::Load { .. } => "`caudal models doctor` tells what is wrong and how to mend it".into(),
        }
    }
}

/// How long a model that has gone is waited for until its last request is answered.
const RETIRE_WITHIN: Duration = Duration::from_secs(30);

/// There is no such model to ask.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// Nobody knows the name.
    #[error("there is no model {name:?}{}", .nearest.as_ref().map_or_else(String::new, |name| format!("; did you mean {name:?}?")))]
    Unknown {
        /// The name asked for.
        name: String,
        /// A name that may have been meant.
        nearest: Option<String>,
    },
    /// The model has no such version.
    #[error("the model {name:?} serves version {serving}, not {asked:?}")]
    Version {
        /// The model.
        name: String,
        /// The version that serves.
        serving: u64,
        /// The version asked for.
        asked: String,
    },
    /// It failed to load.
    #[error("the model {0:?} is not ready: it could not be loaded")]
    NotReady(String),
}

impl Explain for Unavailable {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown { .. } | Self::Version { .. } => ErrorKind::ModelNotFound,
            Self::NotReady { .. } => ErrorKind::ModelNotReady,
        }
    }

    fn hint(&self) -> Cow<'static, str> {
        match self {
            Self::Unknown { .. } => "`caudal models list` and GET /health name the models that serve",
            Self::Version { .. } => "leave the version out to get the newest",
            Self::NotReady(_) => "the server's log and `caudal models doctor` tell what is wrong and how to mend it",
        }
        .into()
    }
}

impl Catalog {
    /// A catalog of `repository` in which nothing serves yet.
    pub fn new(repository: Repository, backend: Arc<dyn Backend>, defaults: Defaults) -> Self {
        Self { now: ArcSwap::default(), repository, backend, defaults, turn: Mutex::default() }
    }

    /// Loads all models of the repository. One that fails does not keep the others from serving.
    pub fn load_all(&self) -> Result<(), RepositoryError> {
        let mut turn = self.turn();
        for folder in self.repository.models()? {
            look(&mut turn, &folder);
            let loaded = load(&folder, &*self.backend, &self.defaults);
            let entry = match loaded {
                Ok(model) => Entry::Ready(told(model)),
                Err(error) => {
                    tracing::error!(model = folder.name, "model not ready: {}", in_words(&error));
                    Entry::Failed(in_words(&error))
                }
            };
            self.put(&folder, entry);
        }
        Ok(())
    }

    /// The models as they are now.
    pub fn now(&self) -> Guard<Arc<Models>> {
        self.now.load()
    }

    /// The model called `name`: see [`Models::get`].
    pub fn get(&self, name: &str, version: Option<&str>) -> Result<Arc<ServedModel>, Unavailable> {
        self.now().get(name, version).cloned()
    }

    /// The names of all models of the repository.
    pub fn folders(&self) -> Result<Vec<String>, RepositoryError> {
        Ok(self.repository.models()?.into_iter().map(|folder| folder.name).collect())
    }

    /// Loads the model `name` as it lies in the repository now, in place of what served under its name, which goes on
    /// until the new one is ready and then finishes what it has begun. Takes as long as all that takes.
    pub fn load(&self, name: &str) -> Result<Arc<ServedModel>, ChangeError> {
        let mut turn = self.turn();
        let unknown = || self.now().unknown(name);
        let folder = self.repository.models()?.into_iter().find(|folder| folder.name == name).ok_or_else(unknown)?;
        self.load_folder(&mut turn, &folder)
    }

    fn load_folder(
        &self,
        turn: &mut BTreeMap<String, Looks>,
        folder: &ModelFolder,
    ) -> Result<Arc<ServedModel>, ChangeError> {
        look(turn, folder);
        match load(folder, &*self.backend, &self.defaults) {
            Ok(model) => {
                let model = told(model);
                retire(self.put(folder, Entry::Ready(Arc::clone(&model))));
                Ok(model)
            }
            Err(error) => {
                let reason = in_words(&error);
                tracing::error!(model = folder.name, "model not loaded: {reason}");
                let serving = matches!(self.now().entry(&folder.name), Some(Entry::Ready(_)));
                if !serving {
                    self.put(folder, Entry::Failed(reason.clone()));
                }
                Err(ChangeError::Load { reason, serving })
            }
        }
    }

    /// Lets the model `name` go: it gets no new requests, finishes those it has, and is gone.
    pub fn unload(&self, name: &str) -> Result<(), ChangeError> {
        let mut turn = self.turn();
        self.unload_entry(&mut turn, name)
    }

    fn unload_entry(&self, turn: &mut BTreeMap<String, Looks>, name: &str) -> Result<(), ChangeError> {
        turn.remove(name);
        let mut next = Models::clone(&self.now());
        let gone = next.models.remove(name).ok_or_else(|| next.unknown(name))?;
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
        let folders = match self.repository.models() {
            Ok(folders) => folders,
            Err(error) => return tracing::warn!(%error, "the models stay as they are"),
        };
        for folder in &folders {
            let (print, looks) = (folder.fingerprint(), turn.entry(folder.name.clone()).or_default());
            if print != looks.loaded && print == looks.last {
                // A failure is in the log, and is not tried again before something changes.
                let _ = self.load_folder(&mut turn, folder);
            } else {
                looks.last = print;
            }
        }
        let gone = |name: &&str| folders.iter().all(|folder| folder.name != **name);
        let gone: Vec<String> = self.now().models.keys().map(String::as_str).filter(gone).map(str::to_owned).collect();
        for name in gone {
            let _ = self.unload_entry(&mut turn, &name);
        }
    }

    fn turn(&self) -> MutexGuard<'_, BTreeMap<String, Looks>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `entry` in the place of what stood under the folder's name, which it gives, with the aliases that the folder's
    /// settings name.
    fn put(&self, folder: &ModelFolder, entry: Entry) -> Option<Entry> {
        let mut next = Models::clone(&self.now());
        next.aliases.retain(|_, model| *model != folder.name);
        for alias in folder.settings().map(|settings| settings.aliases).unwrap_or_default() {
            next.aliases.entry(alias).or_insert_with(|| folder.name.clone());
        }
        let before = next.models.insert(folder.name.clone(), entry);
        self.now.store(Arc::new(next));
        before
    }
}

/// Remembers how `folder` looks before it is loaded.
fn look(turn: &mut BTreeMap<String, Looks>, folder: &ModelFolder) {
    let print = folder.fingerprint();
    turn.insert(folder.name.clone(), Looks { loaded: print, last: print });
}

fn told(model: ServedModel) -> Arc<ServedModel> {
    tracing::info!(
        model = model.name,
        version = model.version,
        task = model.task.name(),
        instances = model.plan.instances,
        threads = model.plan.threads,
        wide_threads = model.plan.wide_threads,
        max_batch_size = model.plan.max_batch_size,
        run_ms = model.measured.one_row.as_secs_f64() * 1e3,
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

impl Models {
    fn unknown(&self, name: &str) -> Unavailable {
        Unavailable::Unknown {
            name: shorten(name).into_owned(),
            nearest: nearest(name, self.names()).map(str::to_owned),
        }
    }

    /// The model called `name`, by its own name or an alias, in version `version` if one is asked for.
    pub fn get(&self, name: &str, version: Option<&str>) -> Result<&Arc<ServedModel>, Unavailable> {
        let entry = self.models.get(name).or_else(|| self.models.get(self.aliases.get(name)?));
        match entry {
            None => Err(self.unknown(name)),
            // Why is told where callers cannot read it: it names files.
            Some(Entry::Failed(_)) => Err(Unavailable::NotReady(name.to_owned())),
            Some(Entry::Ready(model)) => match version {
                Some(asked) if !asked.is_empty() && asked != model.version.to_string() => {
                    Err(Unavailable::Version { name: name.to_owned(), serving: model.version, asked: asked.to_owned() })
                }
                _ => Ok(model),
            },
        }
    }

    /// The model to ask when none is named: the only one, or the only detector.
    pub fn only_detector(&self) -> Option<&Arc<ServedModel>> {
        self.only(ServedModel::is_detector)
    }

    /// The only model that makes vectors of texts.
    pub fn only_embedder(&self) -> Option<&Arc<ServedModel>> {
        self.only(ServedModel::is_embedder)
    }

    fn only(&self, is: fn(&ServedModel) -> bool) -> Option<&Arc<ServedModel>> {
        let mut such = self.ready().filter(|model| is(model));
        such.next().filter(|_| such.next().is_none())
    }

    /// Every model of the repository and what became of it.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.models.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// What became of the model called `name`.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.models.get(name)
    }

    /// The models that serve.
    pub fn ready(&self) -> impl Iterator<Item = &Arc<ServedModel>> {
        self.models.values().filter_map(|entry| match entry {
            Entry::Ready(model) => Some(model),
            Entry::Failed(_) => None,
        })
    }

    /// Names and aliases.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.models.keys().chain(self.aliases.keys()).map(String::as_str)
    }

    /// Aliases of the model `name`.
    pub fn aliases(&self, name: &str) -> Vec<&str> {
        self.aliases.iter().filter(|(_, model)| *model == name).map(|(alias, _)| alias.as_str()).collect()
    }

    /// Whether no model failed.
    pub fn all_ready(&self) -> bool {
        self.models.values().all(|entry| matches!(entry, Entry::Ready(_)))
    }

    /// Whether no model is running.
    pub fn idle(&self) -> bool {
        self.ready().all(|model| model.queue.depth().busy_instances == 0)
    }
}
