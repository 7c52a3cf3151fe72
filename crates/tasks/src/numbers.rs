//! Elements of tensors as numbers, whatever their type.

use caudal_types::DType;
use half::{bf16, f16};

/// Element `at` of a tensor of `dtype`; 0 beyond its end, and of strings.
pub(crate) fn number(dtype: DType, bytes: &[u8], at: usize) -> f64 {
    fn get<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
        bytes.as_chunks::<N>().0.get(at).copied().unwrap_or([0; N])
    }
    match dtype {
        DType::Bool | DType::U8 => f64::from(u8::from_ne_bytes(get(bytes, at))),
        DType::I8 => f64::from(i8::from_ne_bytes(get(bytes, at))),
        DType::U16 => f64::from(u16::from_ne_bytes(get(bytes, at))),
        DType::I16 => f64::from(i16::from_ne_bytes(get(bytes, at))),
        DType::U32 => f64::from(u32::from_ne_bytes(get(bytes, at))),
        DType::I32 => f64::from(i32::from_ne_bytes(get(bytes, at))),
        DType::U64 => u64::from_ne_bytes(get(bytes, at)) as f64,
        DType::I64 => i64::from_ne_bytes(get(bytes, at)) as f64,
        DType::F16 => f16::from_ne_bytes(get(bytes, at)).to_f64(),
        DType::BF16 => bf16::from_ne_bytes(get(bytes, at)).to_f64(),
        DType::F32 => f64::from(f32::from_ne_bytes(get(bytes, at))),
        DType::F64 => f64::from_ne_bytes(get(bytes, at)),
        DType::Bytes => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_of_any_type_is_its_number() {
        assert_eq!(number(DType::F16, &f16::from_f32(-1.5).to_ne_bytes(), 0), -1.5);
        assert_eq!(number(DType::BF16, &bf16::from_f32(3.0).to_ne_bytes(), 0), 3.0);
        assert_eq!(number(DType::I64, &[(-2i64).to_ne_bytes(), 7i64.to_ne_bytes()].concat(), 1), 7.0);
        assert_eq!(number(DType::I8, &[255], 0), -1.0);
        assert_eq!(number(DType::F32, &[], 0), 0.0);
    }
}
