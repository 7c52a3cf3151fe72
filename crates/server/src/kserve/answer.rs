//! Writes an inference answer.

use caudal_tasks::{OutputTensor, ServedModel};
use caudal_types::{DType, ErrorKind};
use half::{bf16, f16};
use serde::{Serialize, Serializer, ser::SerializeSeq};

use crate::{docs::schemas, problem::Problem};

/// An inference answer.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct InferAnswer<'a> {
    model_name: &'a str,
    model_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    outputs: Vec<Output<'a>>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = InferOutput)]
struct Output<'a> {
    name: &'a str,
    #[schema(value_type = schemas::Datatype)]
    datatype: &'static str,
    shape: &'a [usize],
    #[schema(value_type = Vec<schemas::Element>)]
    data: Elements<'a>,
}

/// Writes `outputs` of `model` as JSON.
pub(crate) fn write(model: &ServedModel, id: Option<&str>, outputs: &[OutputTensor]) -> Result<Vec<u8>, Problem> {
    if let Some(odd) = outputs.iter().find(|output| output.dtype == DType::Bytes) {
        return Err(Problem::new(
            ErrorKind::WrongTask,
            format!("the output {:?} is {}, which cannot be sent as JSON", name(model, odd), odd.dtype),
            "name other outputs, or export the model with float32 outputs",
        ));
    }
    let answer = InferAnswer {
        model_name: &model.name,
        model_version: model.version.to_string(),
        id,
        outputs: outputs
            .iter()
            .map(|output| Output {
                name: name(model, output),
                datatype: output.dtype.name(),
                shape: &output.shape,
                data: Elements(output),
            })
            .collect(),
    };
    let bytes: usize = outputs.iter().map(|output| output.bytes.len()).sum();
    let mut json = Vec::with_capacity(256 + bytes * 3);
    serde_json::to_writer(&mut json, &answer).expect("answers are plain data");
    Ok(json)
}

fn name<'a>(model: &'a ServedModel, output: &OutputTensor) -> &'a str {
    &model.spec.outputs[output.index].name
}

/// The elements of a tensor as a flat list.
#[derive(Debug)]
struct Elements<'a>(&'a OutputTensor);

impl Serialize for Elements<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.dtype {
            DType::Bool => self.each(serializer, |[byte]: [u8; 1]| byte != 0),
            DType::U8 => self.each(serializer, u8::from_ne_bytes),
            DType::U16 => self.each(serializer, u16::from_ne_bytes),
            DType::U32 => self.each(serializer, u32::from_ne_bytes),
            DType::U64 => self.each(serializer, u64::from_ne_bytes),
            DType::I8 => self.each(serializer, i8::from_ne_bytes),
            DType::I16 => self.each(serializer, i16::from_ne_bytes),
            DType::I32 => self.each(serializer, i32::from_ne_bytes),
            DType::I64 => self.each(serializer, i64::from_ne_bytes),
            DType::F32 => self.each(serializer, |bytes| Float(f32::from_ne_bytes(bytes))),
            DType::F64 => self.each(serializer, |bytes| Float(f64::from_ne_bytes(bytes))),
            DType::F16 => self.each(serializer, |bytes| Float(f16::from_ne_bytes(bytes).to_f32())),
            DType::BF16 => self.each(serializer, |bytes| Float(bf16::from_ne_bytes(bytes).to_f32())),
            DType::Bytes => Err(serde::ser::Error::custom("not in JSON")),
        }
    }
}

/// A float. JSON has no numbers for NaN and the infinities: these are texts, which can be told apart, as `null` cannot.
struct Float<T>(T);

impl<T: Serialize + Into<f64> + Copy> Serialize for Float<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value: f64 = self.0.into();
        match value {
            value if value.is_finite() => self.0.serialize(serializer),
            value if value.is_nan() => serializer.serialize_str("NaN"),
            value if value > 0.0 => serializer.serialize_str("Infinity"),
            _ => serializer.serialize_str("-Infinity"),
        }
    }
}

impl Elements<'_> {
    fn each<S: Serializer, T: Serialize, const N: usize>(
        &self,
        serializer: S,
        read: impl Fn([u8; N]) -> T,
    ) -> Result<S::Ok, S::Error> {
        let chunks = self.0.bytes.as_chunks::<N>().0;
        let mut list = serializer.serialize_seq(Some(chunks.len()))?;
        for chunk in chunks {
            list.serialize_element(&read(*chunk))?;
        }
        list.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_that_are_no_numbers_can_be_told_apart() {
        let values = [1.5, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0];
        let bytes = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        let output = OutputTensor { index: 0, dtype: DType::F32, shape: vec![5], bytes };
        let json = serde_json::to_string(&Elements(&output)).unwrap();
        assert_eq!(json, r#"[1.5,"NaN","Infinity","-Infinity",-0.0]"#);
    }
}
