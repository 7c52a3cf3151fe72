//! Constant tensors: reading and making their values.

use half::f16;

use crate::onnx::onnx::{TensorProto, tensor_proto::DataType};

/// The values of `tensor`, if it holds floats of 32 or 16 bits.
pub(crate) fn read_floats(tensor: &TensorProto) -> Option<Vec<f32>> {
    let kind = tensor.data_type();
    if kind == DataType::FLOAT as i32 {
        return Some(match &tensor.raw_data {
            Some(raw) => raw.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            None => tensor.float_data.clone(),
        });
    }
    if kind == DataType::FLOAT16 as i32 {
        return Some(match &tensor.raw_data {
            Some(raw) => raw.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect(),
            None => tensor.int32_data.iter().map(|bits| f16::from_bits(*bits as u16).to_f32()).collect(),
        });
    }
    None
}

fn make_tensor(name: &str, kind: DataType, dims: &[usize], raw: Vec<u8>) -> TensorProto {
    let mut tensor = TensorProto::new();
    tensor.set_name(name.to_owned());
    tensor.set_data_type(kind as i32);
    tensor.dims = dims.iter().map(|length| *length as i64).collect();
    tensor.set_raw_data(raw);
    tensor
}

/// Values as a tensor's bytes, in ONNX's byte order.
macro_rules! made {
    ($name:ident, $type:ty, $kind:ident, $what:literal) => {
        #[doc = $what]
        pub(crate) fn $name(name: &str, dims: &[usize], values: &[$type]) -> TensorProto {
            make_tensor(name, DataType::$kind, dims, values.iter().flat_map(|value| value.to_le_bytes()).collect())
        }
    };
}

made!(of_f32, f32, FLOAT, "A tensor of floats.");
made!(of_f16, f16, FLOAT16, "A tensor of half floats.");
made!(of_i64, i64, INT64, "A tensor of large whole numbers.");
made!(of_i32, i32, INT32, "A tensor of whole numbers.");
made!(of_i8, i8, INT8, "A tensor of signed bytes.");
made!(of_u8, u8, UINT8, "A tensor of bytes.");
