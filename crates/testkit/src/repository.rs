//! A model repository made for one test.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::model_file;

/// A folder of models that goes when it is dropped.
#[derive(Debug)]
pub struct Repo(tempfile::TempDir);

impl Default for Repo {
    fn default() -> Self {
        Self::new()
    }
}

impl Repo {
    /// An empty one.
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// One with the demo detector, with `yaml` as its settings.
    pub fn nanodet(yaml: &str) -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/nanodet/1/model.onnx");
        Self::new().file("nanodet/1/model.onnx", &fs::read(file).unwrap()).file("nanodet/model.yaml", yaml.as_bytes())
    }

    /// Adds the suite's small model `file` as `name`, with `yaml` as its settings.
    #[must_use]
    pub fn model(self, name: &str, file: &str, yaml: &str) -> Self {
        let bytes = fs::read(model_file(file)).unwrap();
        self.file(&format!("{name}/1/model.onnx"), &bytes).file(&format!("{name}/model.yaml"), yaml.as_bytes())
    }

    /// Adds the suite's small text encoder `file` with its tokenizer as `name`, with `yaml` as its settings.
    #[must_use]
    pub fn encoder(self, name: &str, file: &str, yaml: &str) -> Self {
        let tokenizer = fs::read(model_file("encoder").with_extension("tokenizer.json")).unwrap();
        self.model(name, file, yaml).file(&format!("{name}/tokenizer.json"), &tokenizer)
    }

    /// Adds any file.
    #[must_use]
    pub fn file(self, name: &str, content: &[u8]) -> Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    /// Where `name` lies in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}
