//! Paths and versions that several programs of the workspace share.

use std::{env, path::PathBuf};

/// The ONNX Runtime release that `cargo xtask setup` installs and the tests use.
pub const ONNXRUNTIME_VERSION: &str = "1.31.1";

/// The newest ONNX Runtime release on PyPI with the OpenVINO provider; `cargo xtask setup openvino` installs it.
pub const OPENVINO_ONNXRUNTIME_VERSION: &str = "1.24.1";

/// The cache directory: `CAUDAL_CACHE_DIR`, else `$XDG_CACHE_HOME/caudal`, else `~/.cache/caudal`. Without a home
/// directory it is `/var/cache/caudal`, which only root can create.
pub fn cache_dir() -> PathBuf {
    choose_cache_dir(|name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from), env::home_dir())
}

/// Selects the directory from environment variables and the home directory.
fn choose_cache_dir(variable: impl Fn(&str) -> Option<PathBuf>, home: Option<PathBuf>) -> PathBuf {
    variable("CAUDAL_CACHE_DIR")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("caudal")))
        .or_else(|| home.filter(|home| home.is_absolute()).map(|home| home.join(".cache/caudal")))
        // Libraries are loaded from here, so it must not be a path that any user can create.
        .unwrap_or_else(|| PathBuf::from("/var/cache/caudal"))
}

/// Path of ONNX Runtime's shared library from `cargo xtask setup`.
pub fn cached_onnxruntime() -> PathBuf {
    cache_dir().join(format!("onnxruntime-{ONNXRUNTIME_VERSION}/libonnxruntime.so"))
}

/// Path of the library with the OpenVINO provider from `cargo xtask setup openvino`.
pub fn cached_openvino() -> PathBuf {
    cache_dir().join(format!("onnxruntime-openvino-{OPENVINO_ONNXRUNTIME_VERSION}/libonnxruntime.so"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(set: &[(&str, &str)], home: Option<&str>, expected: &str) {
        let value = |name: &str| set.iter().find(|(set, _)| *set == name).map(|(_, value)| PathBuf::from(value));
        assert_eq!(choose_cache_dir(value, home.map(PathBuf::from)), PathBuf::from(expected), "{set:?} {home:?}");
    }

    #[test]
    fn cache_dir_follows_the_environment_and_is_never_world_writable() {
        check(&[("CAUDAL_CACHE_DIR", "/a"), ("XDG_CACHE_HOME", "/b")], Some("/home/me"), "/a");
        check(&[("XDG_CACHE_HOME", "/b")], Some("/home/me"), "/b/caudal");
        check(&[], Some("/home/me"), "/home/me/.cache/caudal");
        check(&[], Some(""), "/var/cache/caudal");
        check(&[], None, "/var/cache/caudal");
    }
}
