//! The folder of models, in Triton's layout: `<name>/<version>/model.onnx`, with an optional `model.yaml`.

mod doctor;
mod folder;
mod onnx;
mod sandbox;
mod settings;

pub use doctor::{Finding, Severity, examine};
pub use folder::{FolderError, ModelFolder, ModelVersion, Repository, RepositoryError, Workshop};
pub use onnx::{OnnxError, OnnxFile};
pub use sandbox::Forbidden;
pub use settings::{
    Batching, ChannelOrder, Decode, Fit, Labels, ModelSettings, Preprocessing, SettingsError, Thresholds,
};
