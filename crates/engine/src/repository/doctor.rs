//! Model doctor: finds problems of a repository and suggests fixes.

use std::{collections::BTreeMap, fs, path::PathBuf};

use super::{
    FolderError, ModelFolder, ModelSettings, OnnxError, Repository, RepositoryError, SettingsError,
    folder::version_number, settings::FolderSettings,
};

/// Severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The model is served; this is worth knowing.
    Note,
    /// The model is not served.
    Error,
}

/// A problem in the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its severity.
    pub severity: Severity,
    /// The file or folder.
    pub place: PathBuf,
    /// Description of the problem.
    pub problem: String,
    /// The suggested fix.
    pub fix: String,
}

impl Finding {
    fn new(severity: Severity, place: impl Into<PathBuf>, problem: impl ToString, fix: impl ToString) -> Self {
        Self { severity, place: place.into(), problem: problem.to_string(), fix: fix.to_string() }
    }

    fn error(place: impl Into<PathBuf>, problem: impl ToString, fix: impl ToString) -> Self {
        Self::new(Severity::Error, place, problem, fix)
    }

    fn note(place: impl Into<PathBuf>, problem: impl ToString, fix: impl ToString) -> Self {
        Self::new(Severity::Note, place, problem, fix)
    }
}

/// Examines the repository without loading a model.
pub fn examine_repository(repository: &Repository) -> Result<Vec<Finding>, RepositoryError> {
    let models = repository.list_models()?;
    let mut findings = loose_files(repository)?;
    if models.is_empty() {
        findings.push(Finding::error(
            repository.root(),
            "the repository holds no model",
            "put each model into its own folder: <name>/1/model.onnx",
        ));
    }
    findings.extend(models.iter().flat_map(examine_model));
    findings.extend(shared_names(&models));
    Ok(findings)
}

fn loose_files(repository: &Repository) -> Result<Vec<Finding>, RepositoryError> {
    let failed = |error| RepositoryError::Io(repository.root().to_owned(), error);
    let entries = fs::read_dir(repository.root()).map_err(failed)?;
    let files = entries.flatten().map(|entry| entry.path()).filter(|path| {
        path.is_file() && path.extension().is_some_and(|extension| extension == "onnx" || extension == "yaml")
    });
    Ok(files
        .map(|path| {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            Finding::note(path, "a loose file is not a model", format!("move it to {stem}/1/model.onnx"))
        })
        .collect())
}

fn examine_model(model: &ModelFolder) -> Vec<Finding> {
    let FolderSettings { settings, idle } = match ModelSettings::read_folder(&model.path, &model.name) {
        Ok(said) => said,
        Err(error) => return vec![folder_finding(model, error.into())],
    };
    let mut findings = odd_version_folders(model);
    findings.extend(idle.into_iter().map(|field| {
        let problem = format!("{field} changes nothing here");
        Finding::note(model.path.join("config.pbtxt"), problem, "leave it, or see docs/models.md for what is read")
    }));
    match model.serving_version(&settings) {
        Ok(version) => {
            let labels = model.read_labels(&settings, &version).err();
            let errors = [labels, model.inspect_file(&version).err(), model.read_tokenizer(&version).err()];
            findings.extend(errors.into_iter().flatten().map(|error| folder_finding(model, error)));
        }
        Err(error) => findings.push(folder_finding(model, error)),
    }
    findings
}

fn odd_version_folders(model: &ModelFolder) -> Vec<Finding> {
    let entries = fs::read_dir(&model.path).into_iter().flatten().flatten();
    let folders = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
    folders
        .filter_map(|path| {
            let name = path.file_name()?.to_string_lossy().into_owned();
            match version_number(&name) {
                None => Some(Finding::note(
                    path,
                    "this folder's name is not a version number, so it is ignored",
                    "name versions 1, 2, 3 and so on, without leading zeros",
                )),
                Some(_) if !path.join("model.onnx").exists() => Some(Finding::note(
                    path,
                    "this version holds no model.onnx, so it is ignored",
                    "put the model there under the name model.onnx",
                )),
                Some(_) => None,
            }
        })
        .collect()
}

fn shared_names(models: &[ModelFolder]) -> Vec<Finding> {
    let mut owners: BTreeMap<String, &ModelFolder> = models.iter().map(|model| (model.name.clone(), model)).collect();
    let mut findings = Vec::new();
    for model in models {
        for alias in model.read_settings().map(|settings| settings.aliases).unwrap_or_default() {
            if let Some(owner) = owners.insert(alias.clone(), model) {
                findings.push(Finding::error(
                    model.settings_file(),
                    format!("the alias {alias:?} already belongs to the model {:?}", owner.name),
                    "give each alias to one model",
                ));
            }
        }
    }
    findings
}

fn folder_finding(model: &ModelFolder, error: FolderError) -> Finding {
    let (place, fix) = match &error {
        FolderError::Io(path, _) => (path, "make the folder readable for the user that runs caudal"),
        FolderError::NoVersion { folder: path, .. } => (path, "put the model into a numbered folder: 1/model.onnx"),
        FolderError::VersionMissing(path, _) => (path, "correct `version` in model.yaml, or leave it out"),
        FolderError::Settings(SettingsError::Io { .. }) => {
            (&model.settings_file(), "put a plain file there that the user who runs caudal may read")
        }
        FolderError::Settings(_) => {
            (&model.settings_file(), "correct the key or value; docs/models.md lists all of them")
        }
        FolderError::Forbidden(path, _) => (path, "copy the file into the model's folder and export the model again"),
        FolderError::Model(path, OnnxError::Io(_)) => (path, "make the file readable for the user that runs caudal"),
        FolderError::Model(path, _) => (path, "export the model to ONNX again, or copy it whole"),
        FolderError::Tokenizer(path, _) => (path, "copy the tokenizer.json of the model itself there"),
        FolderError::Labels(path, _) => (path, "put a text file with one class name a line there"),
    };
    Finding::error(place.clone(), &error, fix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::onnx::tests::model_with_external;

    fn examine_files(files: &[(&str, &[u8])]) -> Vec<String> {
        let home = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = home.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let findings = examine_repository(&Repository::open(home.path()).unwrap()).unwrap();
        findings.into_iter().map(|finding| format!("{} -> {}", finding.problem, finding.fix)).collect()
    }

    fn check(files: &[(&str, &[u8])], words: &str) {
        let findings = examine_files(files);
        assert!(findings.iter().any(|finding| finding.contains(words)), "{words}: {findings:?}");
    }

    #[test]
    fn healthy_folder_has_no_findings() {
        let model = model_with_external("w.bin");
        let files: &[(&str, &[u8])] =
            &[("m/1/model.onnx", &model), ("m/1/w.bin", b"w"), ("m/model.yaml", b"instances: 1")];
        assert_eq!(examine_files(files), Vec::<String>::new());
    }

    #[test]
    fn each_fault_has_a_fix() {
        check(&[], "holds no model -> put each model into its own folder");
        check(&[("net.onnx", b"")], "move it to net/1/model.onnx");
        check(&[("m/v1/model.onnx", b"")], "not a version number");
        check(&[("m/1/net.onnx", b"")], "holds no model.onnx");
        check(&[("m/1/model.onnx", b"<html>")], "is not an ONNX file");
        check(&[("m/1/model.onnx", &model_with_external("/etc/passwd"))], "outside its folder");
        check(&[("m/model.yaml", b"thread: 1")], "did you mean \"threads\"?");
        check(&[("a/model.yaml", b"aliases: [x]"), ("b/model.yaml", b"aliases: [x]")], "already belongs");
        check(&[("a/1/model.onnx", b""), ("a/model.yaml", b"labels: l.txt")], "one class name a line");
        check(&[("a/model.yaml/x", b"")], "it is not a plain file -> put a plain file there");
    }
}
