//! Model folders: models, versions and settings on disk.

use std::{
    collections::BTreeSet,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{
    ForbiddenFile, Labels, ModelSettings, OnnxError, OnnxFile, SettingsError,
    confinement::{self, OpenError},
};

/// Name of the model file within a version's folder.
const MODEL_FILE: &str = "model.onnx";
/// Name of the tokenizer file, beside the model file or beside `model.yaml`.
const TOKENIZER_FILE: &str = "tokenizer.json";
/// Name of the file of class names, beside the model file or beside `model.yaml`, if `model.yaml` names no other.
const LABELS_FILE: &str = "labels.txt";
/// Maximum size of a tokenizer: those of many languages have some 20 MiB.
const MAX_TOKENIZER_BYTES: u64 = 64 << 20;

/// A folder of models.
#[derive(Debug, Clone)]
pub struct Repository {
    root: PathBuf,
}

/// The reason why the repository cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The folder does not exist.
    #[error("the model repository {0} does not exist")]
    Missing(PathBuf),
    /// The path is not a folder.
    #[error("the model repository {0} is not a folder")]
    NotAFolder(PathBuf),
    /// It cannot be listed.
    #[error("the model repository {0} cannot be read: {1}")]
    Io(PathBuf, io::Error),
}

/// One model of the repository: a folder with versions in it.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    /// Its name, which is the folder's.
    pub name: String,
    /// The folder.
    pub path: PathBuf,
}

/// One version of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelVersion {
    /// The version number, which is its folder's name.
    pub number: u64,
    /// The model file.
    pub file: PathBuf,
}

/// The reason why a model folder cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It cannot be listed.
    #[error("{0} cannot be read: {1}")]
    Io(PathBuf, io::Error),
    /// There is no numbered folder with a model in it.
    #[error("{folder} has no version: no numbered folder in it holds a {MODEL_FILE}{}", misnamed_suffix(.other.as_deref()))]
    NoVersion {
        /// The model's folder.
        folder: PathBuf,
        /// A folder in it that contains a model but is not a version number.
        other: Option<String>,
    },
    /// The version in `model.yaml` does not exist.
    #[error("{0} has no version {1}, which its model.yaml asks for")]
    VersionMissing(PathBuf, u64),
    /// The settings are invalid.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// It names files outside of its folder.
    #[error("{0} is refused: {1}")]
    Forbidden(PathBuf, ForbiddenFile),
    /// The model file is not an ONNX model.
    #[error("{0} {1}")]
    Model(PathBuf, OnnxError),
    /// The file with the class names cannot be used.
    #[error("the labels in {0} cannot be used: {1}")]
    Labels(PathBuf, String),
    /// The tokenizer cannot be read.
    #[error("the tokenizer {0} cannot be used: {1}")]
    Tokenizer(PathBuf, String),
}

fn misnamed_suffix(folder: Option<&str>) -> String {
    folder.map_or_else(String::new, |name| format!("; {name:?} is not a version number"))
}

impl Repository {
    /// Opens the repository at `root`.
    pub fn open(root: &Path) -> Result<Self, RepositoryError> {
        match fs::metadata(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(RepositoryError::Missing(root.to_owned())),
            Err(error) => Err(RepositoryError::Io(root.to_owned(), error)),
            Ok(meta) if !meta.is_dir() => Err(RepositoryError::NotAFolder(root.to_owned())),
            Ok(_) => Ok(Self { root: root.to_owned() }),
        }
    }

    /// The repository's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All model folders by name, without hidden folders and loose files.
    pub fn list_models(&self) -> Result<Vec<ModelFolder>, RepositoryError> {
        let failed = |error| RepositoryError::Io(self.root.clone(), error);
        let mut models = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if path.is_dir() && !name.is_empty() && !name.starts_with('.') {
                models.push(ModelFolder { name, path });
            }
        }
        models.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(models)
    }
}

impl ModelFolder {
    /// The path of the settings file, which may not exist.
    pub fn settings_file(&self) -> PathBuf {
        self.path.join("model.yaml")
    }

    /// The settings.
    pub fn read_settings(&self) -> Result<ModelSettings, SettingsError> {
        Ok(ModelSettings::read_folder(&self.path, &self.name)?.settings)
    }

    /// All versions, newest last.
    pub fn list_versions(&self) -> Result<Vec<ModelVersion>, FolderError> {
        let failed = |error| FolderError::Io(self.path.clone(), error);
        let mut versions = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let number = entry.file_name().to_str().and_then(version_number);
            let file = entry.path().join(MODEL_FILE);
            if let Some(number) = number
                && fs::symlink_metadata(&file).is_ok()
            {
                versions.push(ModelVersion { number, file });
            }
        }
        versions.sort_by_key(|version| version.number);
        Ok(versions)
    }

    /// The served version: the one in `settings`, or the newest.
    pub fn serving_version(&self, settings: &ModelSettings) -> Result<ModelVersion, FolderError> {
        let mut versions = self.list_versions()?;
        match settings.version {
            Some(number) => versions
                .into_iter()
                .find(|version| version.number == number)
                .ok_or_else(|| FolderError::VersionMissing(self.path.clone(), number)),
            None => versions
                .pop()
                .ok_or_else(|| FolderError::NoVersion { folder: self.path.clone(), other: self.misnamed_folder() }),
        }
    }

    /// A folder that contains a model but is not a version number, such as `latest`.
    fn misnamed_folder(&self) -> Option<String> {
        let folder = entries(&self.path).into_iter().find(|folder| folder.join(MODEL_FILE).is_file())?;
        Some(folder.file_name()?.to_string_lossy().into_owned())
    }

    /// Checks that the version's file is a model and that all files it names lie within this folder.
    pub fn inspect_file(&self, version: &ModelVersion) -> Result<OnnxFile, FolderError> {
        let forbidden = |error| FolderError::Forbidden(version.file.clone(), error);
        let damaged = |error| FolderError::Model(version.file.clone(), error);
        let file = confinement::open_within(&self.path, &version.file).map_err(|error| match error {
            OpenError::Forbidden(error) => forbidden(error),
            OpenError::Io(error) => damaged(error.into()),
        })?;
        let onnx = OnnxFile::inspect_file(file).map_err(damaged)?;
        confinement::check_external_files(&self.path, &version.file, &onnx.external_files).map_err(forbidden)?;
        Ok(onnx)
    }

    /// Size of the version's files in bytes.
    pub fn weights(&self, version: &ModelVersion) -> Result<u64, FolderError> {
        let file = self.inspect_file(version)?;
        let beside = |name: &String| version.file.with_file_name(name).metadata().map_or(0, |meta| meta.len());
        Ok(file.bytes + file.external_files.iter().map(beside).sum::<u64>())
    }

    /// All files that decide how `version` loads: those beside `model.yaml`, those beside its file, and those that it names.
    pub fn files(&self, version: &ModelVersion) -> Result<Vec<PathBuf>, FolderError> {
        let named = self.inspect_file(version)?.external_files;
        let named = named.iter().map(|name| version.file.with_file_name(name));
        let beside = entries(&self.path).into_iter().chain(version.file.parent().map(entries).into_iter().flatten());
        let all = beside.filter(|path| !is_hidden(path)).chain(named).filter(|path| path.is_file());
        Ok(all.collect::<BTreeSet<_>>().into_iter().collect())
    }

    /// A fingerprint that changes with the folder's content: names, sizes and times of its files and of those in its
    /// versions. Hidden files are ignored, because versions are prepared there before they are published.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let within = entries(&self.path);
        for folder in [&self.path].into_iter().chain(within.iter().filter(|path| !is_hidden(path))) {
            for path in entries(folder).into_iter().filter(|path| !is_hidden(path)) {
                let meta = fs::symlink_metadata(&path).ok();
                let told = meta.map(|meta| (meta.is_dir(), meta.len(), meta.modified().ok(), meta.ino()));
                // For a folder only its existence counts, because its time changes with its content.
                (path, told.filter(|(is_dir, ..)| !is_dir)).hash(&mut hasher);
            }
        }
        hasher.finish()
    }

    /// The number of the next version.
    pub fn next_version(&self) -> u64 {
        let numbers = entries(&self.path).into_iter().filter_map(|path| version_number(path.file_name()?.to_str()?));
        numbers.max().unwrap_or(0) + 1
    }

    /// A hidden folder within this one in which new versions are prepared.
    pub fn create_workspace(&self) -> io::Result<VersionWorkspace> {
        let folder = tempfile::Builder::new().prefix(".making-").tempdir_in(&self.path)?;
        Ok(VersionWorkspace { model: self.clone(), folder })
    }

    /// The class names of `version` from `settings`, or from a `labels.txt` beside its file or beside `model.yaml`, if
    /// there are any; a file of names must lie within this folder.
    pub fn read_labels(
        &self,
        settings: &ModelSettings,
        version: &ModelVersion,
    ) -> Result<Option<Vec<String>>, FolderError> {
        let file = match &settings.labels {
            Some(Labels::List(labels)) => return Ok(Some(labels.clone())),
            Some(Labels::File(name)) => Some(self.path.join(name)),
            None => self.file_near_version(version, LABELS_FILE),
        };
        let Some(file) = file else { return Ok(None) };
        let text = confinement::read_text(&self.path, &file)
            .map_err(|error| FolderError::Labels(file.clone(), error.to_string()))?;
        Ok(Some(names(&text)))
    }

    /// The file called `name` beside that of `version`, or beside `model.yaml`.
    fn file_near_version(&self, version: &ModelVersion, name: &str) -> Option<PathBuf> {
        let files = [version.file.with_file_name(name), self.path.join(name)];
        files.into_iter().find(|file| fs::symlink_metadata(file).is_ok())
    }

    /// The `tokenizer.json` of `version`, beside its file or beside `model.yaml`, if there is one.
    pub fn read_tokenizer(&self, version: &ModelVersion) -> Result<Option<Vec<u8>>, FolderError> {
        let Some(file) = self.file_near_version(version, TOKENIZER_FILE) else { return Ok(None) };
        let json = confinement::read_within(&self.path, &file, MAX_TOKENIZER_BYTES);
        json.map(Some).map_err(|error| FolderError::Tokenizer(file, error.to_string()))
    }
}

/// A hidden folder for preparing versions of a model. Dropping it deletes all versions that were not published.
#[derive(Debug)]
pub struct VersionWorkspace {
    model: ModelFolder,
    folder: tempfile::TempDir,
}

impl VersionWorkspace {
    /// The path of the file of the version `name`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name).join(MODEL_FILE)
    }

    /// Creates the folder of a version that is called `name` until it is published.
    pub fn version(&self, name: &str) -> io::Result<ModelVersion> {
        fs::create_dir_all(self.folder.path().join(name))?;
        Ok(ModelVersion { number: self.model.next_version(), file: self.file(name) })
    }

    /// Writes `bytes` as a version that is called `name` until it is published.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<ModelVersion> {
        let version = self.version(name)?;
        fs::write(&version.file, bytes)?;
        Ok(version)
    }

    /// Publishes the version `name` atomically as the newest.
    pub fn publish(&self, name: &str) -> io::Result<ModelVersion> {
        let made = self.file(name);
        fs::File::open(&made)?.sync_all()?;
        let number = self.model.next_version();
        let place = self.model.path.join(number.to_string());
        fs::rename(self.folder.path().join(name), &place)?;
        Ok(ModelVersion { number, file: place.join(MODEL_FILE) })
    }
}

/// Parses one name per line. Some editors add a byte-order mark at the start and carriage returns.
fn names(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Sorted entries of `folder`; empty if it is not a folder.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut paths: Vec<_> = found.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Parses a version number: an integer without leading zeros, as in Triton.
pub(super) fn version_number(name: &str) -> Option<u64> {
    let number: u64 = name.parse().ok()?;
    (number > 0 && name == number.to_string()).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::onnx::tests::model_with_external;

    fn repository(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Repository) {
        let home = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = home.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let repository = Repository::open(home.path()).unwrap();
        (home, repository)
    }

    fn only(repository: &Repository) -> ModelFolder {
        repository.list_models().unwrap().remove(0)
    }

    #[test]
    fn newest_version_is_served_by_default() {
        let (_home, repository) =
            repository(&[("m/2/model.onnx", b""), ("m/10/model.onnx", b""), ("m/x/model.onnx", b""), ("m/03/y", b"")]);
        let model = only(&repository);
        let serving = |settings: ModelSettings| model.serving_version(&settings).map(|version| version.number);
        assert_eq!(serving(ModelSettings::default()).unwrap(), 10);
        assert_eq!(serving(ModelSettings { version: Some(2), ..Default::default() }).unwrap(), 2);
        assert!(matches!(
            serving(ModelSettings { version: Some(5), ..Default::default() }),
            Err(FolderError::VersionMissing(_, 5))
        ));
    }

    #[test]
    fn folder_without_versions_is_reported() {
        let (_home, repository) = repository(&[("m/model.onnx", b"")]);
        let error = only(&repository).serving_version(&ModelSettings::default()).unwrap_err();
        assert!(error.to_string().contains("no numbered folder"), "{error}");
    }

    #[test]
    fn hidden_folders_and_files_are_no_models() {
        let (_home, repository) = repository(&[(".git/x", b""), ("README.md", b""), ("b/x", b""), ("a/x", b"")]);
        let names: Vec<_> = repository.list_models().unwrap().into_iter().map(|model| model.name).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn model_with_outside_files_is_refused() {
        let (_home, repository) =
            repository(&[("m/1/model.onnx", &model_with_external("../../secret")), ("secret", b"")]);
        let model = only(&repository);
        let version = model.serving_version(&ModelSettings::default()).unwrap();
        assert!(matches!(model.inspect_file(&version), Err(FolderError::Forbidden(..))));
        fs::remove_file(&version.file).unwrap();
        std::os::unix::fs::symlink(repository.root().join("secret"), &version.file).unwrap();
        assert!(matches!(model.inspect_file(&version), Err(FolderError::Forbidden(_, ForbiddenFile::Outside))));
    }

    #[test]
    fn versions_are_prepared_hidden_and_published_atomically() {
        let (_home, repository) = repository(&[("m/9/model.onnx", b"old"), ("m/12/notes.txt", b"")]);
        let model = only(&repository);
        let before = model.fingerprint();
        let workshop = model.create_workspace().unwrap();
        workshop.write("a", b"new").unwrap();
        workshop.write("b", b"not wanted").unwrap();
        assert_eq!(model.fingerprint(), before, "a server that polls sees nothing");
        let published = workshop.publish("a").unwrap();
        assert_eq!((published.number, fs::read(&published.file).unwrap()), (13, b"new".to_vec()));
        assert_eq!(model.list_versions().unwrap().last(), Some(&published));
        assert_ne!(model.fingerprint(), before);
        drop(workshop);
        assert!(entries(&model.path).iter().all(|path| !is_hidden(path)), "nothing is left behind");
    }

    #[test]
    fn labels_come_from_a_list_or_from_a_file_beside() {
        let (_home, repository) = repository(&[
            ("m/1/model.onnx", b""),
            ("m/model.yaml", b""),
            ("m/l.txt", b"cat\n\n dog \n"),
            ("m/windows.txt", b"\xef\xbb\xbfcat\r\ndog\r\n\r\n"),
            ("x.txt", b"no"),
        ]);
        let model = only(&repository);
        let version = &model.list_versions().unwrap()[0];
        let labels = |labels: &str| {
            model.read_labels(&ModelSettings::parse(&format!("labels: {labels}"), "f").unwrap(), version)
        };
        assert_eq!(labels("[a, b]").unwrap().unwrap(), ["a", "b"]);
        assert_eq!(labels("l.txt").unwrap().unwrap(), ["cat", "dog"]);
        assert_eq!(labels("windows.txt").unwrap().unwrap(), ["cat", "dog"]);
        for wrong in ["../x.txt", "/etc/passwd", "none.txt", "."] {
            assert!(matches!(labels(wrong), Err(FolderError::Labels(..))), "{wrong}");
        }
    }

    #[test]
    fn labels_file_is_found_without_settings() {
        let (_home, repository) = repository(&[("m/1/model.onnx", b""), ("m/2/model.onnx", b""), ("x.txt", b"no")]);
        let model = only(&repository);
        let labels =
            |version: usize| model.read_labels(&ModelSettings::default(), &model.list_versions().unwrap()[version - 1]);
        assert_eq!(labels(1).unwrap(), None);
        fs::write(model.path.join("labels.txt"), "all").unwrap();
        fs::write(model.path.join("2/labels.txt"), "own").unwrap();
        assert_eq!(
            (labels(1).unwrap().unwrap(), labels(2).unwrap().unwrap()),
            (vec!["all".into()], vec!["own".into()])
        );
        fs::remove_file(model.path.join("labels.txt")).unwrap();
        std::os::unix::fs::symlink(repository.root().join("x.txt"), model.path.join("labels.txt")).unwrap();
        assert!(matches!(labels(1), Err(FolderError::Labels(..))), "it leads out of the folder");
    }

    #[test]
    fn tokenizer_is_read_beside_model_or_settings_only() {
        let (_home, repository) =
            repository(&[("m/1/model.onnx", b""), ("m/2/model.onnx", b""), ("m/2/tokenizer.json", b"2"), ("x", b"no")]);
        let model = only(&repository);
        let read = |version: usize| model.read_tokenizer(&model.list_versions().unwrap()[version - 1]);
        assert_eq!((read(1).unwrap(), read(2).unwrap()), (None, Some(b"2".to_vec())));
        fs::write(model.path.join("tokenizer.json"), b"all").unwrap();
        assert_eq!((read(1).unwrap(), read(2).unwrap()), (Some(b"all".to_vec()), Some(b"2".to_vec())));
        fs::remove_file(model.path.join("tokenizer.json")).unwrap();
        std::os::unix::fs::symlink(repository.root().join("x"), model.path.join("tokenizer.json")).unwrap();
        let error = read(1).unwrap_err().to_string();
        assert!(error.contains("it leads out of the model's folder"), "{error}");
    }

    #[test]
    fn missing_repository_is_named() {
        let error = Repository::open(Path::new("/nowhere/at/all")).unwrap_err();
        assert_eq!(error.to_string(), "the model repository /nowhere/at/all does not exist");
    }
}
