//! Where the files are that a file imports.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read as _,
    path::{Component, Path, PathBuf},
};

use super::tree::FILE_BYTES;

/// Reads files by the names that imports have: with slashes, from one folder on.
pub trait Sources {
    /// The text of that file. `Err` tells in a sentence why not.
    fn read(&self, name: &str) -> Result<String, String>;
}

/// Files in a folder and the folders within.
pub struct Folder(PathBuf);

impl Folder {
    /// Files in this folder.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
}

impl Sources for Folder {
    fn read(&self, name: &str) -> Result<String, String> {
        let root = self.0.canonicalize().map_err(|error| format!("the folder cannot be read: {error}"))?;
        let path = root.join(name).canonicalize().map_err(|_| format!("there is no file {name}"))?;
        // A link may lead elsewhere.
        if !path.starts_with(&root) {
            return Err(format!("{name} leads out of the folder"));
        }
        let mut text = String::new();
        let file = File::open(&path).map_err(|error| format!("{name} cannot be opened: {error}"))?;
        let most = FILE_BYTES as u64 + 1;
        file.take(most).read_to_string(&mut text).map_err(|error| format!("{name} cannot be read: {error}"))?;
        Ok(text)
    }
}

/// Files in memory.
impl Sources for BTreeMap<String, String> {
    fn read(&self, name: &str) -> Result<String, String> {
        self.get(name).cloned().ok_or_else(|| format!("there is no file {name}"))
    }
}

/// No files: whatever is imported is not there.
impl Sources for () {
    fn read(&self, name: &str) -> Result<String, String> {
        Err(format!("{name} cannot be read: this pipeline has no folder"))
    }
}

/// The name of what `from` calls `path`; refused if that leads out of the folder.
pub(super) fn beside(from: &str, path: &str) -> Result<String, String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str().unwrap_or_default()),
            Component::CurDir => {}
            Component::ParentDir if parts.pop().is_some() => {}
            _ => return Err(format!("{path} leads out of the folder")),
        }
    }
    Ok(parts.join("/"))
}
