//! Where things lie on disk that several programs of the house must agree on.

use std::{env, path::PathBuf};

/// The ONNX Runtime release that `cargo xtask setup` installs and the house is tested with.
pub const ONNXRUNTIME_VERSION: &str = "1.31.1";

/// The newest release of ONNX Runtime that PyPI has with OpenVINO's provider; `cargo xtask setup openvino` installs it.
pub const OPENVINO_ONNXRUNTIME_VERSION: &str = "1.24.1";

/// The folder for what can be fetched or made again: `CAUDAL_CACHE_DIR`, else `$XDG_CACHE_HOME/caudal`, else
/// `~/.cache/caudal`. Who has no home has `/var/cache/caudal`, which only root can make.
pub fn cache_dir() -> PathBuf {
    choose(|name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from), env::home_dir())
}

/// The choice, from the environment's `variable`s and the `home` that HOME or the system's list of users gives.
fn choose(variable: impl Fn(&str) -> Option<PathBuf>, home: Option<PathBuf>) -> PathBuf {
    variable("CAUDAL_CACHE_DIR")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("caudal")))
        .or_else(|| home.filter(|home| home.is_absolute()).map(|home| home.join(".cache/caudal")))
        // A library is loaded from here: in a folder that anybody can make, anybody could leave one.
        .unwrap_or_else(|| PathBuf::from("/var/cache/caudal"))
}

/// Where `cargo xtask setup` puts ONNX Runtime's shared library.
pub fn cached_onnxruntime() -> PathBuf {
    cache_dir().join(format!("onnxruntime-{ONNXRUNTIME_VERSION}/libonnxruntime.so"))
}

/// Where `cargo xtask setup openvino` puts the library that has OpenVINO's provider.
pub fn cached_openvino() -> PathBuf {
    cache_dir().join(format!("onnxruntime-openvino-{OPENVINO_ONNXRUNTIME_VERSION}/libonnxruntime.so"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(set: &[(&str, &str)], home: Option<&str>, expected: &str) {
        let value = |name: &str| set.iter().find(|(set, _)| *set == name).map(|(_, value)| PathBuf::from(value));
        assert_eq!(choose(value, home.map(PathBuf::from)), PathBuf::from(expected), "{set:?} {home:?}");
    }

    #[test]
    fn the_nearest_setting_counts_and_none_leads_where_anybody_writes() {
        check(&[("CAUDAL_CACHE_DIR", "/a"), ("XDG_CACHE_HOME", "/b")], Some("/home/me"), "/a");
        check(&[("XDG_CACHE_HOME", "/b")], Some("/home/me"), "/b/caudal");
        check(&[], Some("/home/me"), "/home/me/.cache/caudal");
        check(&[], Some(""), "/var/cache/caudal");
        check(&[], None, "/var/cache/caudal");
    }
}
