//! Model repository in Triton's layout: `<name>/<version>/model.onnx`, with an optional `model.yaml` or `config.pbtxt`.

mod confinement;
mod doctor;
mod folder;
mod onnx;
mod output_operators;
mod settings;
mod triton;

pub use confinement::ForbiddenFile;
pub use doctor::{Finding, Severity, examine_repository};
pub use folder::{FolderError, ModelFolder, ModelVersion, Repository, RepositoryError, VersionWorkspace};
pub use onnx::{OnnxError, OnnxFile};
pub use settings::{
    Activation, Batching, ChannelOrder, Embedding, JpegDecoding, Labels, ModelSettings, Pooling, Preprocessing,
    QueuePolicies, QueuePolicy, ResizeMode, SettingsError, ShadowValidation, Thresholds, TimeoutAction,
};
