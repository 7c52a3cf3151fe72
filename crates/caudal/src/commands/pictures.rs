//! Pictures that are named on the command line.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{CommandError, other};

const ENDINGS: [&str; 6] = ["jpg", "jpeg", "png", "webp", "bmp", "gif"];

/// The pictures named, and those in folders named, each once.
pub(super) fn files<'a>(named: impl Iterator<Item = &'a PathBuf>) -> Result<Vec<PathBuf>, CommandError> {
    let mut files = Vec::new();
    for path in named {
        if path.is_dir() {
            let before = files.len();
            collect(path, &mut files).map_err(|error| other(format!("{} cannot be read: {error}", path.display())))?;
            if files.len() == before {
                return Err(other(format!("the folder {} holds no pictures", path.display())));
            }
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    entries.sort();
    for path in entries {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
        if path.is_dir() {
            collect(&path, files)?;
        } else if ENDINGS.contains(&&*ending) {
            files.push(path);
        }
    }
    Ok(())
}
