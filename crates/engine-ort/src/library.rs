//! Location of ONNX Runtime's shared library: the settings, then `ORT_DYLIB_PATH`, then the cache folder.

use std::{
    env, fmt,
    path::{Path, PathBuf},
};

use caudal_types::cached_onnxruntime;

/// The source of the library's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LibrarySource {
    /// The setting `onnxruntime_library`.
    Setting,
    /// The variable `ORT_DYLIB_PATH`.
    Environment,
    /// The default: the folder where `cargo xtask setup` puts it.
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

/// The reason why the library cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// It was named but does not exist.
    #[error(
        "ONNX Runtime's library {path} (from {source_name}) does not exist; correct the path, or leave it out and run `cargo xtask setup` (in a checkout)"
    )]
    Missing {
        /// The configured path.
        path: PathBuf,
        /// The source of the path.
        source_name: LibrarySource,
    },
    /// None was named and the cache folder has none.
    #[error(
        "ONNX Runtime's library was not found (looked in {0}); run `cargo xtask setup` in a checkout of Caudal, or `pip install onnxruntime=={version}` and set onnxruntime_library (--onnxruntime-library, ORT_DYLIB_PATH) to its onnxruntime/capi/libonnxruntime.so.{version}", version = caudal_types::ONNXRUNTIME_VERSION
    )]
    NotFound(PathBuf),
    /// It exists but is not usable.
    #[error("{path} (from {source_name}) is not a usable ONNX Runtime library: {reason}")]
    Unusable {
        /// Its path.
        path: PathBuf,
        /// The source of the path.
        source_name: LibrarySource,
        /// The reason.
        reason: String,
    },
}

/// The library's path and its source; `setting` is the path in the settings.
pub fn locate_library(setting: Option<&Path>) -> Result<(PathBuf, LibrarySource), LibraryError> {
    let variable = env::var_os("ORT_DYLIB_PATH").filter(|value| !value.is_empty()).map(PathBuf::from);
    choose_library(setting, variable.as_deref(), &cached_onnxruntime())
}

fn choose_library(
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

    fn assert_choice(
        setting: Option<&str>,
        variable: Option<&str>,
        cached: &str,
        expected: Result<LibrarySource, &str>,
    ) {
        let found = choose_library(setting.map(Path::new), variable.map(Path::new), Path::new(cached));
        match (found, expected) {
            (Ok((_, source)), Ok(wanted)) => assert_eq!(source, wanted),
            (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{error}"),
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn setting_precedes_variable_and_cache() {
        assert_choice(Some(HERE), Some(NOWHERE), NOWHERE, Ok(LibrarySource::Setting));
        assert_choice(None, Some(HERE), NOWHERE, Ok(LibrarySource::Environment));
        assert_choice(None, None, HERE, Ok(LibrarySource::Cache));
    }

    #[test]
    fn missing_named_library_has_no_fallback() {
        assert_choice(Some(NOWHERE), Some(HERE), HERE, Err("from the setting onnxruntime_library"));
        assert_choice(None, Some(NOWHERE), HERE, Err("from the variable ORT_DYLIB_PATH"));
        assert_choice(None, None, NOWHERE, Err("cargo xtask setup"));
        assert_choice(None, None, NOWHERE, Err("pip install onnxruntime=="));
    }
}
