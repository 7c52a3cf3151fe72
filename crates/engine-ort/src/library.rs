//! Finds ONNX Runtime's shared library: what the settings say, then `ORT_DYLIB_PATH`, then the cache folder.

use std::{
    env, fmt,
    path::{Path, PathBuf},
};

use caudal_types::cached_onnxruntime;

/// Who named the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LibrarySource {
    /// The setting `onnxruntime_library`.
    Setting,
    /// The variable `ORT_DYLIB_PATH`.
    Environment,
    /// Nobody: it lies where `cargo xtask setup` puts it.
    Cache,
}

impl fmt::Display for LibrarySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Setting => "the setting onnxruntime_library",
            Self::Environment => "the variable ORT_DYLIB_PATH",
            Self::Cache => "the cache folder",
        })
    }
}

/// Why there is no library to work with.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// It was named and is not there.
    #[error(
        "ONNX Runtime's library {path} (from {source_name}) does not exist; correct the path, or leave it out and run `cargo xtask setup` (in a checkout)"
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
        /// Who said so.
        source_name: LibrarySource,
    },
    /// Nobody named one and the cache has none.
    #[error(
        "ONNX Runtime's library was not found (looked in {0}); run `cargo xtask setup` in a checkout of Caudal, or `pip install onnxruntime=={version}` and set onnxruntime_library (--onnxruntime-library, ORT_DYLIB_PATH) to its onnxruntime/capi/libonnxruntime.so.{version}", version = caudal_types::ONNXRUNTIME_VERSION
    )]
    NotFound(PathBuf),
    /// It is there and is not usable.
    #[error("{path} (from {source_name}) is not a usable ONNX Runtime library: {reason}")]
    Unusable {
        /// Where it is.
        path: PathBuf,
        /// Who named it.
        source_name: LibrarySource,
        /// What is wrong with it.
        reason: String,
    },
}

/// The library's path and who named it; `setting` is what the settings say.
pub fn locate(setting: Option<&Path>) -> Result<(PathBuf, LibrarySource), LibraryError> {
    let variable = env::var_os("ORT_DYLIB_PATH").filter(|value| !value.is_empty()).map(PathBuf::from);
    choose(setting, variable.as_deref(), &cached_onnxruntime())
}

fn choose(
    setting: Option<&Path>,
    variable: Option<&Path>,
    cached: &Path,
) -> Result<(PathBuf, LibrarySource), LibraryError> {
    let named =
        setting.map(|path| (path, LibrarySource::Setting)).or(variable.map(|path| (path, LibrarySource::Environment)));
    match named {
        Some((path, source)) if path.is_file() => Ok((path.to_owned(), source)),
        Some((path, source_name)) => Err(LibraryError::Missing { path: path.to_owned(), source_name }),
        None if cached.is_file() => Ok((cached.to_owned(), LibrarySource::Cache)),
        None => Err(LibraryError::NotFound(cached.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    const NOWHERE: &str = "/nowhere/lib.so";

    fn check(setting: Option<&str>, variable: Option<&str>, cached: &str, expected: Result<LibrarySource, &str>) {
        let found = choose(setting.map(Path::new), variable.map(Path::new), Path::new(cached));
        match (found, expected) {
            (Ok((_, source)), Ok(wanted)) => assert_eq!(source, wanted),
            (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{error}"),
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn the_setting_wins_then_the_variable_then_the_cache() {
        check(Some(HERE), Some(NOWHERE), NOWHERE, Ok(LibrarySource::Setting));
        check(None, Some(HERE), NOWHERE, Ok(LibrarySource::Environment));
        check(None, None, HERE, Ok(LibrarySource::Cache));
    }

    #[test]
    fn a_library_that_was_named_and_is_missing_is_not_replaced_by_another() {
        check(Some(NOWHERE), Some(HERE), HERE, Err("from the setting onnxruntime_library"));
        check(None, Some(NOWHERE), HERE, Err("from the variable ORT_DYLIB_PATH"));
        check(None, None, NOWHERE, Err("cargo xtask setup"));
        check(None, None, NOWHERE, Err("pip install onnxruntime=="));
    }
}
