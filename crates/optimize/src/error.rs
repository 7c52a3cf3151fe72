//! Why no new version was written.

use std::{borrow::Cow, io, path::PathBuf};

use caudal_engine::{LoadError, RunError, repository::FolderError};
use caudal_graph::GraphError;
use caudal_tasks::{ModelError, TaskError};
use caudal_types::{ErrorKind, Explain};

/// Why no new version was written.
#[derive(Debug, thiserror::Error)]
pub enum OptimizeError {
    /// The model cannot be loaded as it is.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A file of its cannot be used.
    #[error("the model {model} cannot be changed: {reason}")]
    Graph {
        /// Its name.
        model: String,
        /// Why.
        reason: GraphError,
    },
    /// It looks at no pictures.
    #[error("the model {0} does not look at pictures")]
    NoPictures(String),
    /// Nothing is left to be moved into its graph.
    #[error("the model {model} cannot be fused: {reason}")]
    NothingToFuse {
        /// Its name.
        model: String,
        /// Why.
        reason: String,
    },
    /// A new version answered something else.
    #[error("the new version of {model} answers something else: {difference}; nothing was written")]
    Different {
        /// The model.
        model: String,
        /// What.
        difference: String,
    },
    /// There are no pictures to go by.
    #[error("there are no pictures to calibrate on and to compare with")]
    NoImages,
    /// A picture cannot be used.
    #[error("{0}: {1}")]
    Image(PathBuf, TaskError),
    /// The model finds nothing, so nothing can be lost.
    #[error("the model {0} finds nothing in these pictures, so what a change costs cannot be told")]
    NothingFound(String),
    /// The labels cannot be used.
    #[error("the labels in {0} cannot be used: {1}")]
    Labels(PathBuf, String),
    /// There is no such candidate.
    #[error("there is no candidate {asked:?}; there are {known}")]
    Unknown {
        /// The name asked for.
        asked: String,
        /// Those there are.
        known: String,
    },
    /// The candidate that was asked for loses too much.
    #[error("{name} loses {loss:.4}, and {bound} is the most that it may; nothing was written")]
    LosesTooMuch {
        /// The candidate.
        name: String,
        /// What it loses.
        loss: f64,
        /// What it may lose.
        bound: f64,
    },
    /// The candidate that was asked for cannot be made.
    #[error("{name} cannot be made: {reason}")]
    NotMade {
        /// The candidate.
        name: String,
        /// Why.
        reason: String,
    },
    /// The backend failed on the way.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A run failed on the way.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The repository cannot be written, or a file not be read.
    #[error("{0} cannot be used: {1}")]
    Io(PathBuf, io::Error),
}

impl From<FolderError> for OptimizeError {
    fn from(error: FolderError) -> Self {
        Self::Model(error.into())
    }
}

impl Explain for OptimizeError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Model(error) => error.kind(),
            Self::Image(_, error) => error.kind(),
            Self::NoPictures(_) => ErrorKind::WrongTask,
            _ => ErrorKind::LoadFailed,
        }
    }

    fn hint(&self) -> Cow<'static, str> {
        match self {
            Self::Model(error) => error.hint(),
            Self::Graph { .. } => "export the model again, as one file and in opset 13 or later".into(),
            Self::NoPictures(_) => "say `kind` in model.yaml if it does; docs/models.md lists the kinds".into(),
            Self::NothingToFuse { .. } => "`caudal models show` tells what it takes and gives".into(),
            Self::Different { .. } => "serve it as it is, and report this with the model if you can".into(),
            Self::NoImages => "name a folder of pictures like those that it will see; some dozens are enough".into(),
            Self::Image(_, error) => error.hint(),
            Self::NothingFound(_) => "take pictures that show what the model looks for".into(),
            Self::Labels(..) => {
                "one text file for each picture, of its name; in each line `class cx cy w h`, parts of the picture"
                    .into()
            }
            Self::Unknown { .. } => "leave it out to have all tried".into(),
            Self::LosesTooMuch { .. } => "raise --max-loss if that is worth it, or calibrate on more pictures".into(),
            Self::NotMade { .. } => "leave --write out to take the best of the others".into(),
            Self::Load(error) => error.hint(),
            Self::Run(_) => "check the export".into(),
            Self::Io(..) => "check that the file is there and the rights to read it and to write the repository".into(),
        }
    }
}
