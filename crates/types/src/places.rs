//! Where things lie on disk that several programs of the house must agree on.

use std::{env, path::PathBuf};

/// The ONNX Runtime release that `cargo xtask setup` installs and the house is tested with.
pub const ONNXRUNTIME_VERSION: &str = "1.31.1";

/// The folder for what can be fetched or made again: `CAUDAL_CACHE_DIR`, else `$XDG_CACHE_HOME/caudal`, else
/// `~/.cache/caudal`.
pub fn cache_dir() -> PathBuf {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("CAUDAL_CACHE_DIR")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("caudal")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/caudal")))
        .unwrap_or_else(|| env::temp_dir().join("caudal-cache"))
}

/// Where `cargo xtask setup` puts ONNX Runtime's shared library.
pub fn cached_onnxruntime() -> PathBuf {
    cache_dir().join(format!("onnxruntime-{ONNXRUNTIME_VERSION}/libonnxruntime.so"))
}
