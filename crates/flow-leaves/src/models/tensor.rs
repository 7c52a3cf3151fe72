//! Tensors as lists of numbers, and back.

use caudal_flow::{StepError, Value};
use caudal_types::{DType, Shape, element_count};
use half::{bf16, f16};

/// Dimensions of a list that are followed.
const DEEPEST: usize = 8;

/// What a list holds: its dimensions, and its elements in order.
pub(super) struct Elements<'a> {
    pub(super) shape: Shape,
    flat: Flat<'a>,
}

enum Flat<'a> {
    Values(Vec<&'a Value>),
    Bytes(&'a [u8]),
}

/// What is wrong with the tensor called `name`.
pub(super) fn wrong(name: &str, wrong: &str) -> StepError {
    let error = StepError::input(format!("the input {name:?} is no tensor: {wrong}"));
    error.hint("give it as lists within lists, all of one length").for_good()
}

impl<'a> Elements<'a> {
    /// Those of a list within lists, or of `{shape, data}`.
    pub(super) fn of(value: &'a Value) -> Result<Self, String> {
        let Value::Map(map) = value else {
            let mut flat = Vec::new();
            let shape = shape(value);
            gather(value, &shape, &mut flat)?;
            return Ok(Self { shape, flat: Flat::Values(flat) });
        };
        let sizes = map.get("shape").and_then(Value::as_list).ok_or("an object has shape and data")?;
        let size = |size: &Value| size.as_i64().and_then(|size| usize::try_from(size).ok());
        let shape: Option<Shape> = sizes.iter().map(size).collect();
        let shape = shape.filter(|shape| shape.len() <= DEEPEST).ok_or("its shape is no list of a few sizes")?;
        let flat = match map.get("data") {
            Some(Value::Bytes(bytes)) => Flat::Bytes(bytes),
            Some(Value::List(values)) if Some(values.len()) == element_count(&shape) => {
                Flat::Values(values.iter().collect())
            }
            Some(Value::List(values)) => {
                return Err(format!("data has {} elements, not what shape says", values.len()));
            }
            _ => return Err("data is a flat list, or bytes".to_owned()),
        };
        Ok(Self { shape, flat })
    }

    /// Its elements as bytes, which should be `expected` many.
    pub(super) fn read(&self, dtype: DType, expected: usize) -> Result<Vec<u8>, String> {
        match &self.flat {
            Flat::Bytes(bytes) if bytes.len() == expected => Ok(bytes.to_vec()),
            Flat::Bytes(bytes) => Err(format!("it has {} bytes, and its shape says {expected}", bytes.len())),
            Flat::Values(values) => {
                let mut bytes = Vec::with_capacity(expected);
                for value in values {
                    put(value, dtype, &mut bytes).ok_or_else(|| format!("{value} is no {dtype}"))?;
                }
                Ok(bytes)
            }
        }
    }
}

/// The dimensions that the first elements have; the others are compared with them.
fn shape(mut value: &Value) -> Shape {
    let mut shape = Vec::new();
    while let Value::List(values) = value
        && shape.len() <= DEEPEST
    {
        shape.push(values.len());
        let Some(first) = values.first() else { break };
        value = first;
    }
    shape
}

fn gather<'a>(value: &'a Value, shape: &[usize], flat: &mut Vec<&'a Value>) -> Result<(), String> {
    match (shape.split_first(), value) {
        (None, Value::List(_)) => Err("its lists lie too deep, or not all equally deep".to_owned()),
        (None, value) => {
            flat.push(value);
            Ok(())
        }
        (Some((size, rest)), Value::List(values)) if values.len() == *size => {
            values.iter().try_for_each(|value| gather(value, rest, flat))
        }
        (Some(_), _) => Err("its lists are not all of one length".to_owned()),
    }
}

/// Appends one element; `None` if it is none of that type.
fn put(value: &Value, dtype: DType, bytes: &mut Vec<u8>) -> Option<()> {
    let whole = || match value {
        Value::Number(number) => number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from)),
        _ => None,
    };
    macro_rules! whole {
        ($type:ty) => {
            bytes.extend_from_slice(&<$type>::try_from(whole()?).ok()?.to_ne_bytes())
        };
    }
    match dtype {
        DType::Bool => bytes.push(match value {
            Value::Bool(yes) => u8::from(*yes),
            _ => u8::from(whole().filter(|number| matches!(number, 0 | 1))? == 1),
        }),
        DType::U8 => whole!(u8),
        DType::U16 => whole!(u16),
        DType::U32 => whole!(u32),
        DType::U64 => whole!(u64),
        DType::I8 => whole!(i8),
        DType::I16 => whole!(i16),
        DType::I32 => whole!(i32),
        DType::I64 => whole!(i64),
        DType::F32 => bytes.extend_from_slice(&(value.as_f64()? as f32).to_ne_bytes()),
        DType::F64 => bytes.extend_from_slice(&value.as_f64()?.to_ne_bytes()),
        DType::F16 => bytes.extend_from_slice(&f16::from_f64(value.as_f64()?).to_ne_bytes()),
        DType::BF16 => bytes.extend_from_slice(&bf16::from_f64(value.as_f64()?).to_ne_bytes()),
        DType::Bytes => return None,
    }
    Some(())
}

/// The elements of a tensor; `None` if JSON has no such.
pub(super) fn write(dtype: DType, bytes: &[u8]) -> Option<Vec<Value>> {
    fn each<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> Value) -> Vec<Value> {
        bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect()
    }
    Some(match dtype {
        DType::Bool => each(bytes, |[byte]: [u8; 1]| (byte != 0).into()),
        DType::U8 => each(bytes, |bytes| u32::from(u8::from_ne_bytes(bytes)).into()),
        DType::U16 => each(bytes, |bytes| u32::from(u16::from_ne_bytes(bytes)).into()),
        DType::U32 => each(bytes, |bytes| u32::from_ne_bytes(bytes).into()),
        DType::U64 => each(bytes, |bytes| u64::from_ne_bytes(bytes).into()),
        DType::I8 => each(bytes, |bytes| i32::from(i8::from_ne_bytes(bytes)).into()),
        DType::I16 => each(bytes, |bytes| i32::from(i16::from_ne_bytes(bytes)).into()),
        DType::I32 => each(bytes, |bytes| i32::from_ne_bytes(bytes).into()),
        DType::I64 => each(bytes, |bytes| i64::from_ne_bytes(bytes).into()),
        DType::F32 => each(bytes, |bytes| f64::from(f32::from_ne_bytes(bytes)).into()),
        DType::F64 => each(bytes, |bytes| f64::from_ne_bytes(bytes).into()),
        DType::F16 => each(bytes, |bytes| f16::from_ne_bytes(bytes).to_f64().into()),
        DType::BF16 => each(bytes, |bytes| bf16::from_ne_bytes(bytes).to_f64().into()),
        DType::Bytes => return None,
    })
}

/// A flat list as lists within lists.
pub(super) fn nested(flat: Vec<Value>, shape: &[usize]) -> Value {
    let Some((_, inner)) = shape.split_first() else { return flat.into_iter().next().unwrap_or_default() };
    let mut values = flat;
    for size in inner.iter().rev() {
        values = values.chunks((*size).max(1)).map(|row| Value::list(row.iter().cloned())).collect();
    }
    Value::List(values.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_flow::value;

    fn read(value: Value, dtype: DType) -> Result<(Shape, Vec<u8>), String> {
        let elements = Elements::of(&value)?;
        let expected = element_count(&elements.shape).unwrap() * dtype.size();
        Ok((elements.shape.clone(), elements.read(dtype, expected)?))
    }

    #[test]
    fn lists_are_tensors_and_tensors_are_lists() {
        let value = value!([[1, 2, 3], [4, 5, 6]]);
        for dtype in [DType::U8, DType::I16, DType::I32, DType::U64, DType::I64] {
            let (shape, bytes) = read(value.clone(), dtype).unwrap();
            assert_eq!(shape, [2, 3]);
            assert_eq!(nested(write(dtype, &bytes).unwrap(), &shape), value);
        }
        let (shape, bytes) = read(value!([[[0.5]], [[-1]]]), DType::F32).unwrap();
        assert_eq!(nested(write(DType::F32, &bytes).unwrap(), &shape), value!([[[0.5]], [[-1.0]]]));
        let (shape, bytes) = read(value!([0.5, -1]), DType::F16).unwrap();
        assert_eq!(nested(write(DType::F16, &bytes).unwrap(), &shape), value!([0.5, -1.0]));
        assert_eq!(read(value!([true, 0]), DType::Bool), Ok((vec![2], vec![1, 0])));
        assert_eq!(read(value!({"shape": [1, 2], "data": [7, 8]}), DType::U8), Ok((vec![1, 2], vec![7, 8])));
        let bytes = [("shape", value!([2])), ("data", Value::Bytes(vec![7, 8].into()))];
        assert_eq!(read(Value::Map(bytes.into_iter().collect()), DType::U8), Ok((vec![2], vec![7, 8])));
        assert_eq!(nested(write(DType::U8, &[9]).unwrap(), &[]), value!(9));
    }

    #[test]
    fn what_is_no_tensor_is_told() {
        let wrong = |value: Value, dtype| read(value, dtype).unwrap_err();
        assert_eq!(wrong(value!([[1], [2, 3]]), DType::U8), "its lists are not all of one length");
        assert_eq!(wrong(value!([[1], 2]), DType::U8), "its lists are not all of one length");
        assert_eq!(wrong(value!([1, [2]]), DType::U8), "its lists lie too deep, or not all equally deep");
        assert_eq!(wrong(value!([300]), DType::U8), "300 is no UINT8");
        assert_eq!(wrong(value!(["x"]), DType::F32), "\"x\" is no FP32");
        assert_eq!(wrong(value!([1.5]), DType::I32), "1.5 is no INT32");
        assert_eq!(wrong(value!({"shape": [3], "data": [1]}), DType::U8), "data has 1 elements, not what shape says");
        assert_eq!(wrong(value!({"data": [1]}), DType::U8), "an object has shape and data");
        assert!(Elements::of(&value!({"shape": [-1], "data": []})).is_err());
        let deep = (0..20).fold(value!(1), |value, _| Value::list([value]));
        assert!(wrong(deep, DType::U8).contains("too deep"));
    }
}
