//! The models that serve, by name and alias, and those that should and do not.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

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

/// All models of a repository.
#[derive(Debug, Default)]
pub struct Catalog {
    models: BTreeMap<String, Entry>,
    aliases: BTreeMap<String, String>,
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
    /// Loads all models of `repository`. One that fails does not keep the others from serving.
    pub fn load(repository: &Repository, backend: &dyn Backend, defaults: &Defaults) -> Result<Self, RepositoryError> {
        let mut catalog = Self::default();
        for folder in repository.models()? {
            catalog.add(&folder, backend, defaults);
        }
        Ok(catalog)
    }

    fn add(&mut self, folder: &ModelFolder, backend: &dyn Backend, defaults: &Defaults) {
        let entry = match load(folder, backend, defaults) {
            Ok(model) => {
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
                Entry::Ready(Arc::new(model))
            }
            Err(error) => {
                tracing::error!(model = folder.name, "model not ready: {}", in_words(&error));
                Entry::Failed(in_words(&error))
            }
        };
        for alias in folder.settings().map(|settings| settings.aliases).unwrap_or_default() {
            self.aliases.entry(alias).or_insert_with(|| folder.name.clone());
        }
        self.models.insert(folder.name.clone(), entry);
    }

    /// The model called `name`, by its own name or an alias, in version `version` if one is asked for.
    pub fn get(&self, name: &str, version: Option<&str>) -> Result<&Arc<ServedModel>, Unavailable> {
        let entry = self.models.get(name).or_else(|| self.models.get(self.aliases.get(name)?));
        match entry {
            None => Err(Unavailable::Unknown {
                name: shorten(name).into_owned(),
                nearest: nearest(name, self.names()).map(str::to_owned),
            }),
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
        let mut detectors = self.ready().filter(|model| model.is_detector());
        detectors.next().filter(|_| detectors.next().is_none())
    }

    /// Every model of the repository and what became of it.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.models.iter().map(|(name, entry)| (name.as_str(), entry))
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

    /// Whether every model of the repository serves, and there is at least one.
    pub fn all_ready(&self) -> bool {
        !self.models.is_empty() && self.models.values().all(|entry| matches!(entry, Entry::Ready(_)))
    }

    /// Whether no model is running.
    pub fn idle(&self) -> bool {
        self.ready().all(|model| model.queue.depth().busy_instances == 0)
    }
}
