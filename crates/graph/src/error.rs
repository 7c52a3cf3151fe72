//! Why a graph cannot be read or changed.

/// Why a graph cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// Not an ONNX model, or a damaged one.
    #[error("it is not an ONNX model: {0}")]
    Malformed(String),
    /// Its weights lie in other files.
    #[error("its weights lie in files beside it ({0}); save it as one file")]
    ExternalData(String),
    /// Its operators are too old.
    #[error("it is written in opset {has}, and {what} needs {needs} or later; export it again")]
    Opset {
        /// The version of ONNX's operators that it uses.
        has: i64,
        /// The oldest that would do.
        needs: i64,
        /// What for.
        what: &'static str,
    },
    /// Its graph is not one to which this can be done.
    #[error("{0}")]
    Unsuitable(String),
    /// It would be larger than the format allows.
    #[error("it would be larger than the 2 GiB that one ONNX file may have")]
    TooLarge,
}
