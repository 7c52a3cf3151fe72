//! What serves no models: for a server that keeps records, on a machine without ONNX Runtime.

use std::{path::Path, sync::Arc};

use caudal_engine::{Backend, LoadError, LoadOptions, Model, Provider};

pub(super) struct NoBackend;

impl Backend for NoBackend {
    fn describe_version(&self) -> String {
        "none".to_owned()
    }

    fn providers(&self) -> Vec<Provider> {
        Vec::new()
    }

    fn load_model(&self, file: &Path, _: &LoadOptions) -> Result<Arc<dyn Model>, LoadError> {
        let reason = "the server was started without ONNX Runtime".to_owned();
        Err(LoadError::Unsupported { file: file.display().to_string(), reason })
    }
}
