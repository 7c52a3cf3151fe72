//! Tensors as bytes with a type and a shape; whose memory they are is somebody else's business.

use std::{fmt, str::FromStr};

/// Dimensions, outermost first.
pub type Shape = Vec<usize>;

/// Element types a tensor may have, under KServe v2's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum DType {
    Bool,
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
    F16,
    BF16,
    F32,
    F64,
    /// Strings of any length; they have no fixed size and no byte view.
    Bytes,
}

impl DType {
    const ALL: [Self; 14] = [
        Self::Bool,
        Self::U8,
        Self::U16,
        Self::U32,
        Self::U64,
        Self::I8,
        Self::I16,
        Self::I32,
        Self::I64,
        Self::F16,
        Self::BF16,
        Self::F32,
        Self::F64,
        Self::Bytes,
    ];

    /// Bytes per element; 0 for `Bytes`, whose elements differ.
    pub const fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 | Self::BF16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
            Self::Bytes => 0,
        }
    }

    /// KServe v2's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::U8 => "UINT8",
            Self::U16 => "UINT16",
            Self::U32 => "UINT32",
            Self::U64 => "UINT64",
            Self::I8 => "INT8",
            Self::I16 => "INT16",
            Self::I32 => "INT32",
            Self::I64 => "INT64",
            Self::F16 => "FP16",
            Self::BF16 => "BF16",
            Self::F32 => "FP32",
            Self::F64 => "FP64",
            Self::Bytes => "BYTES",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A datatype outside KServe v2's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownDType;

impl fmt::Display for UnknownDType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "datatype is one of ")?;
        for (i, dtype) in DType::ALL.iter().enumerate() {
            write!(f, "{}{dtype}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownDType {}

impl FromStr for DType {
    type Err = UnknownDType;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name).ok_or(UnknownDType)
    }
}

/// A dense, row-major tensor somewhere in memory, in the machine's byte order.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: &'a [usize],
    /// `element_count(shape) * dtype.size()` bytes.
    pub bytes: &'a [u8],
}

impl<'a> TensorView<'a> {
    /// The rows `from..from + count` along the first dimension.
    ///
    /// # Panics
    /// When the tensor has no first dimension or fewer rows.
    pub fn rows(&self, from: usize, count: usize) -> &'a [u8] {
        let row = self.bytes.len() / self.shape[0].max(1);
        &self.bytes[from * row..(from + count) * row]
    }
}

/// Number of elements in `shape`; `None` when the product does not fit.
pub fn element_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |count, &dim| count.checked_mul(dim))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back() {
        for dtype in DType::ALL {
            assert_eq!(dtype.name().parse(), Ok(dtype));
        }
        assert!("float32".parse::<DType>().unwrap_err().to_string().contains("FP32"));
    }

    #[test]
    fn a_product_that_does_not_fit_is_none() {
        assert_eq!(element_count(&[2, 3, 4]), Some(24));
        assert_eq!(element_count(&[]), Some(1));
        assert_eq!(element_count(&[usize::MAX, 2]), None);
    }

    #[test]
    fn rows_are_cut_along_the_first_dimension() {
        let bytes: Vec<u8> = (0..12).collect();
        let view = TensorView { dtype: DType::U8, shape: &[3, 4], bytes: &bytes };
        assert_eq!(view.rows(1, 2), &bytes[4..12]);
    }
}
