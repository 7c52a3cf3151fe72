//! Errors of reading and rewriting graphs.

/// The reason why a graph cannot be read or rewritten.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// Not an ONNX model, or a damaged one.
    #[error("it is not an ONNX model: {0}")]
    Malformed(String),
    /// Its weights are stored in other files.
    #[error("its weights are in external files ({0}); save it as one file")]
    ExternalData(String),
    /// Its opset is too old.
    #[error("it has opset {has}, and {what} needs opset {needs} or later; export it again")]
    Opset {
        /// The opset of the model.
        has: i64,
        /// The oldest sufficient opset.
        needs: i64,
        /// The purpose.
        what: &'static str,
    },
    /// Its graph is unsuitable for this change.
    #[error("{0}")]
    Unsuitable(String),
    /// It would exceed the size that the format allows.
    #[error("it would exceed 2 GiB, the limit of one ONNX file")]
    TooLarge,
}
