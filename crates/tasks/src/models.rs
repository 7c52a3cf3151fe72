//! The models at one moment: who serves, who rests, who failed.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use caudal_types::{ErrorKind, Explain, nearest, shorten};

use crate::{ServedModel, demand::Resting};

/// What became of one model of the repository.
#[derive(Debug, Clone)]
pub enum Entry {
    /// It serves.
    Ready(Arc<ServedModel>),
    /// It is not in memory, and will be when somebody asks for it.
    Resting(Arc<Resting>),
    /// It does not serve.
    Failed(Failed),
}

/// A model that could not be loaded.
#[derive(Debug, Clone)]
pub struct Failed {
    /// Why, and what to do; may name files.
    pub reason: String,
    /// Why, where callers may know it.
    pub for_callers: Option<String>,
}

/// The models at one moment.
#[derive(Debug, Default, Clone)]
pub struct Models {
    pub(crate) models: BTreeMap<String, Entry>,
    pub(crate) aliases: BTreeMap<String, String>,
    /// Models of the repository that were told to go, or not told to come.
    pub(crate) unloaded: BTreeSet<String>,
    /// Whether those that are loaded at the start are still being loaded.
    pub(crate) loading: bool,
}

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
    /// Models are still being loaded, and this one may be among them.
    #[error("the model {0:?} is not loaded yet: the server is starting")]
    Loading(String),
    /// The repository has it, and nobody has told it to load.
    #[error("the model {0:?} is not loaded")]
    Unloaded(String),
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
    #[error("the model {name:?} is not ready: {}", .reason.as_deref().unwrap_or("it could not be loaded"))]
    NotReady {
        /// The model.
        name: String,
        /// Why, where callers may know it.
        reason: Option<String>,
    },
    /// It is not in memory.
    #[error("the model {0:?} is not in memory")]
    Resting(String),
}

impl Explain for Unavailable {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown { .. } | Self::Unloaded(_) | Self::Version { .. } => ErrorKind::ModelNotFound,
            Self::NotReady { .. } | Self::Resting(_) | Self::Loading(_) => ErrorKind::ModelNotReady,
        }
    }

    fn hint(&self) -> Cow<'static, str> {
        match self {
            Self::Unknown { .. } => "`caudal models list` and GET /health name the models that serve",
            Self::Loading(_) => "try again; GET /readyz says when all models are loaded",
            Self::Unloaded(_) => "POST /v2/repository/models/{model}/load loads it",
            Self::Version { .. } => "leave the version out to get the newest",
            Self::NotReady { .. } => {
                "the server's log and `caudal models doctor` tell what is wrong and how to mend it"
            }
            Self::Resting(_) => "send it a request: that brings it back",
        }
        .into()
    }
}

impl Models {
    /// Why nothing of that name, which is not there, can be asked.
    fn absent(&self, name: &str) -> Unavailable {
        match self.unloaded.get(name) {
            _ if self.loading => Unavailable::Loading(shorten(name).into_owned()),
            Some(name) => Unavailable::Unloaded(name.clone()),
            None => self.no_such(name),
        }
    }

    pub(crate) fn no_such(&self, name: &str) -> Unavailable {
        Unavailable::Unknown {
            name: shorten(name).into_owned(),
            nearest: nearest(name, self.names()).map(str::to_owned),
        }
    }

    fn find(&self, name: &str) -> Option<&Entry> {
        self.models.get(name).or_else(|| self.models.get(self.aliases.get(name)?))
    }

    /// Whether `a` and `b`, names or aliases, stand for the same model.
    pub fn are_same(&self, a: &str, b: &str) -> bool {
        let own = |name| self.aliases.get(name).map_or(name, String::as_str);
        a == b || own(a) == own(b)
    }

    /// The model called `name`, by its own name or an alias, in version `version` if one is asked for.
    pub fn get(&self, name: &str, version: Option<&str>) -> Result<&Arc<ServedModel>, Unavailable> {
        match self.find(name) {
            None => Err(self.absent(name)),
            Some(Entry::Failed(failed)) => {
                Err(Unavailable::NotReady { name: name.to_owned(), reason: failed.for_callers.clone() })
            }
            Some(Entry::Resting(_)) => Err(Unavailable::Resting(name.to_owned())),
            Some(Entry::Ready(model)) => match version {
                Some(asked) if !asked.is_empty() && asked != model.version.to_string() => {
                    Err(Unavailable::Version { name: name.to_owned(), serving: model.version, asked: asked.to_owned() })
                }
                _ => Ok(model),
            },
        }
    }

    /// The model called `name`, if it rests.
    pub fn resting(&self, name: &str) -> Option<&Arc<Resting>> {
        match self.find(name) {
            Some(Entry::Resting(resting)) => Some(resting),
            _ => None,
        }
    }

    /// The name of the only model that is for `task`, as its name in settings and answers says: to ask when none is named.
    pub fn only(&self, task: &str) -> Option<&str> {
        let is_such = |entry: &Entry| match entry {
            Entry::Ready(model) => model.task.name() == task,
            Entry::Resting(resting) => resting.task == Some(task),
            Entry::Failed(_) => false,
        };
        let mut such = self.entries().filter(|(_, entry)| is_such(entry));
        such.next().filter(|_| such.next().is_none()).map(|(name, _)| name)
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
            Entry::Resting(_) | Entry::Failed(_) => None,
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

    /// The names of the models that failed to load.
    pub fn failed(&self) -> impl Iterator<Item = &str> {
        self.entries().filter(|(_, entry)| matches!(entry, Entry::Failed(_))).map(|(name, _)| name)
    }

    /// Whether those that are loaded at the start are still being loaded.
    pub fn is_loading(&self) -> bool {
        self.loading
    }

    /// Whether requests for models would be served: by all of them where that is asked for (`strict`), else by at least
    /// one. Where there are no models nothing is missing. Not while they are still being loaded.
    pub fn serve(&self, strict: bool) -> bool {
        match self.failed().count() {
            _ if self.loading => false,
            0 => true,
            failed => !strict && failed < self.models.len(),
        }
    }

    /// Whether no model is running.
    pub fn idle(&self) -> bool {
        self.ready().all(|model| model.queue.depth().busy_instances == 0)
    }
}
