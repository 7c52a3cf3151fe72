//! Model specification: inputs and outputs as the model file declares them.

use std::{collections::BTreeMap, fmt};

use caudal_types::DType;

/// One dimension of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// A fixed length.
    Fixed(usize),
    /// Any length; dimensions of the same non-empty name have the same length.
    Free(String),
}

impl Dim {
    /// The length, if it is fixed.
    pub fn fixed_length(&self) -> Option<usize> {
        match self {
            Self::Fixed(length) => Some(*length),
            Self::Free(_) => None,
        }
    }

    /// Whether this dimension of a tensor may have `length`.
    pub fn accepts_length(&self, length: usize) -> bool {
        self.fixed_length().is_none_or(|fixed| fixed == length)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(length) => write!(f, "{length}"),
            Self::Free(name) if name.is_empty() => f.write_str("?"),
            Self::Free(name) => f.write_str(name),
        }
    }
}

/// One input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name in the graph.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Its dimensions, outermost first.
    pub dims: Vec<Dim>,
}

impl TensorSpec {
    /// The dimensions of one row: all but the first.
    pub fn row_dims(&self) -> &[Dim] {
        self.dims.get(1..).unwrap_or_default()
    }

    /// Whether a tensor of `shape` is valid.
    pub fn accepts_shape(&self, shape: &[usize]) -> bool {
        self.dims.len() == shape.len() && self.dims.iter().zip(shape).all(|(dim, length)| dim.accepts_length(*length))
    }
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} [", self.name, self.dtype)?;
        for (i, dim) in self.dims.iter().enumerate() {
            write!(f, "{}{dim}", if i == 0 { "" } else { ", " })?;
        }
        f.write_str("]")
    }
}

/// Inputs and outputs of a model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelSpec {
    /// Inputs, in the order of an instance's inputs.
    pub inputs: Vec<TensorSpec>,
    /// Outputs, in the order of an instance's outputs.
    pub outputs: Vec<TensorSpec>,
    /// Metadata of the exporter: class names, stride, task.
    pub metadata: BTreeMap<String, String>,
}

impl ModelSpec {
    /// Whether rows of several requests may share a run: the first dimension of every input and output is free, all
    /// have one name, and that is a name of batch dimensions.
    ///
    /// A dimension of another name may be the length of a sequence, and joining requests along it would mix their
    /// answers; the settings can declare it a batch dimension.
    pub fn has_batch_dimension(&self) -> bool {
        let mut names = self.inputs.iter().chain(&self.outputs).map(|tensor| match tensor.dims.first() {
            Some(Dim::Free(name)) if is_batch_name(name) => Some(name),
            _ => None,
        });
        let Some(Some(first)) = names.next() else { return false };
        names.all(|name| name == Some(first))
    }
}

/// Whether `name` is a common name of batch dimensions: `batch`, `batch_size`, `Batch`, `N`, `bs`.
fn is_batch_name(name: &str) -> bool {
    let name = name.to_lowercase();
    name.contains("batch") || matches!(name.as_str(), "n" | "b" | "bs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dims: &[&str]) -> TensorSpec {
        let dims = dims.iter().map(|dim| dim.parse().map_or_else(|_| Dim::Free((*dim).to_owned()), Dim::Fixed));
        TensorSpec { name: "t".to_owned(), dtype: DType::F32, dims: dims.collect() }
    }

    fn batched(input: &[&str], output: &[&str]) -> bool {
        ModelSpec { inputs: vec![tensor(input)], outputs: vec![tensor(output)], ..Default::default() }
            .has_batch_dimension()
    }

    #[test]
    fn batch_dimension_needs_shared_name() {
        assert!(batched(&["batch", "3"], &["batch", "10"]));
        assert!(!batched(&["1", "3"], &["1", "10"]));
        assert!(batched(&["N", "3"], &["N", "10"]));
        assert!(!batched(&["batch", "3"], &["other_batch", "10"]));
        assert!(!batched(&["length", "3"], &["length", "10"]), "joining would mix sequences");
        assert!(!batched(&["", "3"], &["", "10"]));
        assert!(!batched(&[], &["batch"]));
        assert!(!ModelSpec::default().has_batch_dimension());
    }

    #[test]
    fn tensor_spec_accepts_matching_fixed_lengths() {
        let spec = tensor(&["n", "64"]);
        assert!(spec.accepts_shape(&[7, 64]));
        assert!(!spec.accepts_shape(&[7, 65]));
        assert!(!spec.accepts_shape(&[64]));
        assert_eq!(spec.to_string(), "t FP32 [n, 64]");
    }
}
