//! The folder of models, in Triton's layout: `<name>/<version>/model.onnx`, with an optional `model.yaml`
//! or `config.pbtxt`.

mod doctor;
mod folder;
mod makers;
mod onnx;
mod sandbox;
mod settings;
mod triton;

pub use doctor::{Finding, Severity, examine};
pub use folder::{FolderError, ModelFolder, ModelVersion, Repository, RepositoryError, Workshop};
pub use onnx::{OnnxError, OnnxFile};
pub use sandbox::Forbidden;
pub use settings::{
    Activation, Batching, ChannelOrder, Decode, Embedding, Fit, Labels, ModelSettings, Pooling, Preprocessing, Prove,
    QueuePolicies, QueuePolicy, SettingsError, Thresholds, TimeoutAction,
};
