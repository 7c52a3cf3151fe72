//! Models, versions and settings as they lie in the folder.

use std::{
    collections::BTreeSet,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{
    Forbidden, Labels, ModelSettings, OnnxError, OnnxFile, SettingsError,
    sandbox::{self, OpenError},
};

/// The name of the file within a version's folder.
const MODEL_FILE: &str = "model.onnx";
/// What turns text into tokens, beside the model file or beside `model.yaml`.
const TOKENIZER_FILE: &str = "tokenizer.json";
/// Class names where `model.yaml` names no other file, beside the model file or beside `model.yaml`.
const LABELS_FILE: &str = "labels.txt";
/// Largest tokenizer that is read: those of many languages have some 20 MiB.
const MAX_TOKENIZER: u64 = 64 << 20;

/// A folder of models.
#[derive(Debug, Clone)]
pub struct Repository {
    root: PathBuf,
}

/// The repository cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// No such folder.
    #[error("the model repository {0} does not exist")]
    Missing(PathBuf),
    /// Something else than a folder.
    #[error("the model repository {0} is not a folder")]
    NotAFolder(PathBuf),
    /// It cannot be listed.
    #[error("the model repository {0} cannot be read: {1}")]
    Io(PathBuf, io::Error),
}

/// One model of the repository: a folder with versions in it.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    /// Its name: the folder's.
    pub name: String,
    /// The folder.
    pub path: PathBuf,
}

/// One version of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelVersion {
    /// The number that names its folder.
    pub number: u64,
    /// The model file.
    pub file: PathBuf,
}

/// Why a model folder cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It cannot be listed.
    #[error("{0} cannot be read: {1}")]
    Io(PathBuf, io::Error),
    /// There is no numbered version with a model in it.
    #[error("{folder} has no version: no numbered folder in it holds a {MODEL_FILE}{}", misnamed(.other.as_deref()))]
    NoVersion {
        /// The model's folder.
        folder: PathBuf,
        /// A folder in it that holds a model and has another name.
        other: Option<String>,
    },
    /// The version that `model.yaml` asks for is not there.
    #[error("{0} has no version {1}, which its model.yaml asks for")]
    VersionMissing(PathBuf, u64),
    /// The settings are wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// It names files outside of its folder.
    #[error("{0} is refused: {1}")]
    Forbidden(PathBuf, Forbidden),
    /// The model file is none.
    #[error("{0} {1}")]
    Model(PathBuf, OnnxError),
    /// The file with the class names cannot be used.
    #[error("the labels in {0} cannot be used: {1}")]
    Labels(PathBuf, String),
    /// The tokenizer cannot be read.
    #[error("the tokenizer {0} cannot be used: {1}")]
    Tokenizer(PathBuf, String),
}

fn misnamed(folder: Option<&str>) -> String {
    folder.map_or_else(String::new, |name| format!("; {name:?} is no number"))
}

impl Repository {
    /// The repository at `root`.
    pub fn open(root: &Path) -> Result<Self, RepositoryError> {
        match fs::metadata(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(RepositoryError::Missing(root.to_owned())),
            Err(error) => Err(RepositoryError::Io(root.to_owned(), error)),
            Ok(meta) if !meta.is_dir() => Err(RepositoryError::NotAFolder(root.to_owned())),
            Ok(_) => Ok(Self { root: root.to_owned() }),
        }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All model folders by name. Hidden folders and loose files are none.
    pub fn models(&self) -> Result<Vec<ModelFolder>, RepositoryError> {
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
    /// Where the settings stand, if there are any.
    pub fn settings_file(&self) -> PathBuf {
        self.path.join("model.yaml")
    }

    /// The settings.
    pub fn settings(&self) -> Result<ModelSettings, SettingsError> {
        Ok(ModelSettings::open(&self.path, &self.name)?.settings)
    }

    /// All versions, newest last.
    pub fn versions(&self) -> Result<Vec<ModelVersion>, FolderError> {
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

    /// The version that serves: the one `settings` names, or the newest.
    pub fn serving_version(&self, settings: &ModelSettings) -> Result<ModelVersion, FolderError> {
        let mut versions = self.versions()?;
        match settings.version {
            Some(number) => versions
                .into_iter()
                .find(|version| version.number == number)
                .ok_or_else(|| FolderError::VersionMissing(self.path.clone(), number)),
            None => versions
                .pop()
                .ok_or_else(|| FolderError::NoVersion { folder: self.path.clone(), other: self.misnamed() }),
        }
    }

    /// A folder that holds a model and whose name is no version's: `latest`, say.
    fn misnamed(&self) -> Option<String> {
        let folder = entries(&self.path).into_iter().find(|folder| folder.join(MODEL_FILE).is_file())?;
        Some(folder.file_name()?.to_string_lossy().into_owned())
    }

    /// Checks that the version's file is a model and that nothing it names lies outside this folder.
    pub fn inspect(&self, version: &ModelVersion) -> Result<OnnxFile, FolderError> {
        let forbidden = |error| FolderError::Forbidden(version.file.clone(), error);
        let damaged = |error| FolderError::Model(version.file.clone(), error);
        let file = sandbox::open(&self.path, &version.file).map_err(|error| match error {
            OpenError::Forbidden(error) => forbidden(error),
            OpenError::Io(error) => damaged(error.into()),
        })?;
        let onnx = OnnxFile::look(file).map_err(damaged)?;
        sandbox::check(&self.path, &version.file, &onnx.external_files).map_err(forbidden)?;
        Ok(onnx)
    }

    /// Bytes of the version's files.
    pub fn weights(&self, version: &ModelVersion) -> Result<u64, FolderError> {
        let file = self.inspect(version)?;
        let beside = |name: &String| version.file.with_file_name(name).metadata().map_or(0, |meta| meta.len());
        Ok(file.bytes + file.external_files.iter().map(beside).sum::<u64>())
    }

    /// All files that decide how `version` loads: those beside `model.yaml`, those beside its file, and those that it names.
    pub fn files(&self, version: &ModelVersion) -> Result<Vec<PathBuf>, FolderError> {
        let named = self.inspect(version)?.external_files;
        let named = named.iter().map(|name| version.file.with_file_name(name));
        let beside = entries(&self.path).into_iter().chain(version.file.parent().map(entries).into_iter().flatten());
        let all = beside.filter(|path| !is_hidden(path)).chain(named).filter(|path| path.is_file());
        Ok(all.collect::<BTreeSet<_>>().into_iter().collect())
    }

    /// Tells whether anything in the folder has changed: names, lengths and times of its files and of those in its
    /// versions, without reading them. What is hidden does not count: there versions are made before they are put in place.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let within = entries(&self.path);
        for folder in [&self.path].into_iter().chain(within.iter().filter(|path| !is_hidden(path))) {
            for path in entries(folder).into_iter().filter(|path| !is_hidden(path)) {
                let meta = fs::symlink_metadata(&path).ok();
                let told = meta.map(|meta| (meta.is_dir(), meta.len(), meta.modified().ok(), meta.ino()));
                // Of a folder only that it is there: its time changes with what is in it.
                (path, told.filter(|(is_dir, ..)| !is_dir)).hash(&mut hasher);
            }
        }
        hasher.finish()
    }

    /// The number that a new version would have.
    pub fn next_version(&self) -> u64 {
        let numbers = entries(&self.path).into_iter().filter_map(|path| version_number(path.file_name()?.to_str()?));
        numbers.max().unwrap_or(0) + 1
    }

    /// A hidden folder in this one, in which new versions are made.
    pub fn workshop(&self) -> io::Result<Workshop> {
        let folder = tempfile::Builder::new().prefix(".making-").tempdir_in(&self.path)?;
        Ok(Workshop { model: self.clone(), folder })
    }

    /// The class names of `version` that `settings` give, or a `labels.txt` beside its file or beside `model.yaml`, if any; a
    /// file of names must lie within this folder.
    pub fn labels(&self, settings: &ModelSettings, version: &ModelVersion) -> Result<Option<Vec<String>>, FolderError> {
        let file = match &settings.labels {
            Some(Labels::List(labels)) => return Ok(Some(labels.clone())),
            Some(Labels::File(name)) => Some(self.path.join(name)),
            None => self.beside(version, LABELS_FILE),
        };
        let Some(file) = file else { return Ok(None) };
        let text = sandbox::read_text(&self.path, &file)
            .map_err(|error| FolderError::Labels(file.clone(), error.to_string()))?;
        Ok(Some(names(&text)))
    }

    /// The file called `name` beside that of `version`, or beside `model.yaml`.
    fn beside(&self, version: &ModelVersion, name: &str) -> Option<PathBuf> {
        let files = [version.file.with_file_name(name), self.path.join(name)];
        files.into_iter().find(|file| fs::symlink_metadata(file).is_ok())
    }

    /// The `tokenizer.json` of `version`, if there is one: beside its file, or beside `model.yaml`.
    pub fn tokenizer(&self, version: &ModelVersion) -> Result<Option<Vec<u8>>, FolderError> {
        let Some(file) = self.beside(version, TOKENIZER_FILE) else { return Ok(None) };
        let json = sandbox::read(&self.path, &file, MAX_TOKENIZER);
        json.map(Some).map_err(|error| FolderError::Tokenizer(file, error.to_string()))
    }
}

/// Where new versions of a model are made, out of sight. It goes when it is dropped, with all that was not published.
#[derive(Debug)]
pub struct Workshop {
    model: ModelFolder,
    folder: tempfile::TempDir,
}

impl Workshop {
    /// Where the file of the version `name` is, or will be.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name).join(MODEL_FILE)
    }

    /// Makes room for a version, called `name` until it is published.
    pub fn version(&self, name: &str) -> io::Result<ModelVersion> {
        fs::create_dir_all(self.folder.path().join(name))?;
        Ok(ModelVersion { number: self.model.next_version(), file: self.file(name) })
    }

    /// Makes a version of `bytes`, called `name` until it is published.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<ModelVersion> {
        let version = self.version(name)?;
        fs::write(&version.file, bytes)?;
        Ok(version)
    }

    /// Puts the version `name` in its place, whole and at once, as the newest.
    pub fn publish(&self, name: &str) -> io::Result<ModelVersion> {
        let made = self.file(name);
        fs::File::open(&made)?.sync_all()?;
        let number = self.model.next_version();
        let place = self.model.path.join(number.to_string());
        fs::rename(self.folder.path().join(name), &place)?;
        Ok(ModelVersion { number, file: place.join(MODEL_FILE) })
    }
}

/// One name a line, whatever the editor: some put a byte-order mark before the first and a carriage return behind each.
fn names(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// What lies in `folder`, in order; nothing if that is no folder.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut paths: Vec<_> = found.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Versions are whole numbers without leading zeros, as in Triton.
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
        repository.models().unwrap().remove(0)
    }

    #[test]
    fn the_newest_version_serves_unless_settings_say_otherwise() {
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
    fn a_folder_without_versions_says_so() {
        let (_home, repository) = repository(&[("m/model.onnx", b"")]);
        let error = only(&repository).serving_version(&ModelSettings::default()).unwrap_err();
        assert!(error.to_string().contains("no numbered folder"), "{error}");
    }

    #[test]
    fn hidden_folders_and_files_are_no_models() {
        let (_home, repository) = repository(&[(".git/x", b""), ("README.md", b""), ("b/x", b""), ("a/x", b"")]);
        let names: Vec<_> = repository.models().unwrap().into_iter().map(|model| model.name).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn a_model_that_reaches_outside_is_refused() {
        let (_home, repository) =
            repository(&[("m/1/model.onnx", &model_with_external("../../secret")), ("secret", b"")]);
        let model = only(&repository);
        let version = model.serving_version(&ModelSettings::default()).unwrap();
        assert!(matches!(model.inspect(&version), Err(FolderError::Forbidden(..))));
        fs::remove_file(&version.file).unwrap();
        std::os::unix::fs::symlink(repository.root().join("secret"), &version.file).unwrap();
        assert!(matches!(model.inspect(&version), Err(FolderError::Forbidden(_, Forbidden::Outside))));
    }

    #[test]
    fn versions_are_made_out_of_sight_and_put_in_place_at_once() {
        let (_home, repository) = repository(&[("m/9/model.onnx", b"old"), ("m/12/notes.txt", b"")]);
        let model = only(&repository);
        let before = model.fingerprint();
        let workshop = model.workshop().unwrap();
        workshop.write("a", b"new").unwrap();
        workshop.write("b", b"not wanted").unwrap();
        assert_eq!(model.fingerprint(), before, "a server that polls sees nothing");
        let published = workshop.publish("a").unwrap();
        assert_eq!((published.number, fs::read(&published.file).unwrap()), (13, b"new".to_vec()));
        assert_eq!(model.versions().unwrap().last(), Some(&published));
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
        let version = &model.versions().unwrap()[0];
        let labels =
            |labels: &str| model.labels(&ModelSettings::parse(&format!("labels: {labels}"), "f").unwrap(), version);
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
        let labels = |version: usize| model.labels(&ModelSettings::default(), &model.versions().unwrap()[version - 1]);
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
    fn a_tokenizer_lies_beside_the_model_or_above_and_nowhere_else() {
        let (_home, repository) =
            repository(&[("m/1/model.onnx", b""), ("m/2/model.onnx", b""), ("m/2/tokenizer.json", b"2"), ("x", b"no")]);
        let model = only(&repository);
        let read = |version: usize| model.tokenizer(&model.versions().unwrap()[version - 1]);
        assert_eq!((read(1).unwrap(), read(2).unwrap()), (None, Some(b"2".to_vec())));
        fs::write(model.path.join("tokenizer.json"), b"all").unwrap();
        assert_eq!((read(1).unwrap(), read(2).unwrap()), (Some(b"all".to_vec()), Some(b"2".to_vec())));
        fs::remove_file(model.path.join("tokenizer.json")).unwrap();
        std::os::unix::fs::symlink(repository.root().join("x"), model.path.join("tokenizer.json")).unwrap();
        let error = read(1).unwrap_err().to_string();
        assert!(error.contains("it leads out of the model's folder"), "{error}");
    }

    #[test]
    fn a_missing_repository_is_named() {
        let error = Repository::open(Path::new("/nowhere/at/all")).unwrap_err();
        assert_eq!(error.to_string(), "the model repository /nowhere/at/all does not exist");
    }
}
