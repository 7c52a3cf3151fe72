//! Errors of optimizing and fusing models.

use std::{borrow::Cow, io, path::PathBuf};

use caudal_engine::{LoadError, RunError, repository::FolderError};
use caudal_graph::GraphError;
use caudal_tasks::{ModelError, TaskError};
use caudal_types::{ErrorKind, Explain};

/// The reason why no new version was written.
#[derive(Debug, thiserror::Error)]
pub enum OptimizeError {
    /// The model cannot be loaded as it is.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A file of the model cannot be rewritten.
    #[error("the model {model} cannot be changed: {reason}")]
    Graph {
        /// Its name.
        model: String,
        /// The reason.
        reason: GraphError,
    },
    /// It is not an image model.
    #[error("the model {0} is not an image model")]
    NoPictures(String),
    /// Nothing can be moved into its graph.
    #[error("the model {model} cannot be fused: {reason}")]
    NothingToFuse {
        /// Its name.
        model: String,
        /// The reason.
        reason: String,
    },
    /// The predictions of the new version differ.
    #[error("the predictions of the new version of {model} differ: {difference}; nothing was written")]
    Different {
        /// The model.
        model: String,
        /// The difference.
        difference: String,
    },
    /// There are no images for calibration and comparison.
    #[error("there are no images for calibration and comparison")]
    NoImages,
    /// An image cannot be used.
    #[error("{0}: {1}")]
    Image(PathBuf, TaskError),
    /// The model finds nothing, so a loss cannot be measured.
    #[error("the model {0} finds nothing in these images, so the loss of accuracy cannot be measured")]
    NothingFound(String),
    /// The labels cannot be used.
    #[error("the labels in {0} cannot be used: {1}")]
    Labels(PathBuf, String),
    /// There is no such candidate.
    #[error("there is no candidate {asked:?}; expected one of {known}")]
    Unknown {
        /// The requested name.
        asked: String,
        /// The known names.
        known: String,
    },
    /// The requested candidate loses too much.
    #[error("{name} loses {loss:.4}, more than the bound of {bound}; nothing was written")]
    LosesTooMuch {
        /// The candidate.
        name: String,
        /// Its loss.
        loss: f64,
        /// The bound on the loss.
        bound: f64,
    },
    /// The requested candidate cannot be made.
    #[error("{name} cannot be made: {reason}")]
    NotMade {
        /// The candidate.
        name: String,
        /// The reason.
        reason: String,
    },
    /// The backend failed.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A run failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The repository cannot be written, or a file cannot be read.
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
            Self::NoPictures(_) => "set `kind` in model.yaml if it is one; docs/models.md lists the kinds".into(),
            Self::NothingToFuse { .. } => "`caudal models show` lists its inputs and outputs".into(),
            Self::Different { .. } => "serve it as it is, and report this with the model if you can".into(),
            Self::NoImages => "name a folder of images like those in production; some dozens are enough".into(),
            Self::Image(_, error) => error.hint(),
            Self::NothingFound(_) => "use images that contain objects of the model's classes".into(),
            Self::Labels(..) => {
                "write one text file per image, with the same name; in each line `class cx cy w h`, relative to the image"
                    .into()
            }
            Self::Unknown { .. } => "leave it out to try all".into(),
            Self::LosesTooMuch { .. } => "raise --max-loss if that is worth it, or calibrate on more images".into(),
            Self::NotMade { .. } => "leave --write out to use the best of the others".into(),
            Self::Load(error) => error.hint(),
            Self::Run(_) => "check the export".into(),
            Self::Io(..) => "check that the file exists, and the permissions to read it and to write the repository".into(),
        }
    }
}
