//! Conversion to 16-bit floats: suitable operators compute in half precision with half-precision weights, and the
//! model's inputs and outputs keep their types.

use std::collections::{HashMap, HashSet};

use half::f16;

use crate::{
    GraphError, Model,
    builder::{AttributeValue, GraphBuilder},
    onnx::onnx::{TensorProto, tensor_proto::DataType},
    tensors,
};

/// Operators that accept half precision wherever they accept floats, for all of their float inputs alike.
const HALF_OPERATORS: [&str; 33] = [
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Clip",
    "Concat",
    "Conv",
    "ConvTranspose",
    "Div",
    "Elu",
    "Flatten",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "MatMul",
    "MaxPool",
    "Mul",
    "PRelu",
    "Relu",
    "Reshape",
    "Sigmoid",
    "Softmax",
    "Split",
    "Squeeze",
    "Sub",
    "Tanh",
    "Transpose",
    "Unsqueeze",
    "Mish",
];

/// `model` in half precision from its first layer with weights on, as far as its operators support it.
pub fn convert_to_half(model: &Model) -> Result<Model, GraphError> {
    model.require_opset(7, "computing in 16 bits")?;
    let mut halved = model.clone();
    let nodes = std::mem::take(&mut halved.graph_mut().node);
    let constants: HashMap<String, TensorProto> =
        halved.graph().initializer.iter().map(|tensor| (tensor.name().to_owned(), tensor.clone())).collect();
    let outputs: HashSet<String> = halved.graph().output.iter().map(|value| value.name().to_owned()).collect();
    let mut write = HalfWriter {
        build: GraphBuilder::new(&mut halved, "fp16"),
        constants,
        halves: HashMap::new(),
        floats: HashSet::new(),
    };
    for mut node in nodes {
        let layer = matches!(node.op_type(), "Conv" | "ConvTranspose" | "Gemm" | "MatMul");
        let able = node.domain().is_empty() && HALF_OPERATORS.contains(&node.op_type());
        let begins = layer && node.input.get(1).is_some_and(|weights| write.is_float(weights));
        let goes_on = able && node.input.iter().any(|name| write.halves.contains_key(name));
        if !begins && !goes_on {
            node.input.iter().for_each(|name| write.as_float(name));
            write.build.nodes.push(node);
            continue;
        }
        // The other inputs of these are shapes.
        let first = matches!(node.op_type(), "Reshape" | "Split" | "Squeeze" | "Unsqueeze");
        for (index, name) in node.input.iter_mut().enumerate() {
            if !name.is_empty() && (index == 0 || !first) {
                write.as_half(name);
            }
        }
        let made = node.output.clone();
        for name in &mut node.output {
            let half = write.build.prefixed_name(name);
            write.halves.insert(name.clone(), half.clone());
            *name = half;
        }
        write.build.nodes.push(node);
        for name in made.iter().filter(|name| outputs.contains(*name)) {
            write.as_float(name);
        }
    }
    let HalfWriter { build, halves, .. } = write;
    let nodes = build.nodes;
    if halves.is_empty() {
        return Err(GraphError::Unsuitable("it has no layer to be computed in 16 bits".to_owned()));
    }
    halved.graph_mut().node = nodes;
    // The recorded types of intermediate values no longer hold.
    halved.graph_mut().value_info.clear();
    crate::quantize::drop_unused_constants(&mut halved);
    Ok(halved)
}

struct HalfWriter<'a> {
    build: GraphBuilder<'a>,
    constants: HashMap<String, TensorProto>,
    /// Values and the names of their half-precision copies.
    halves: HashMap<String, String>,
    /// Half-precision values that also exist as floats under their own names.
    floats: HashSet<String>,
}

impl HalfWriter<'_> {
    fn is_float(&self, name: &str) -> bool {
        self.constants.get(name).is_some_and(|tensor| tensor.data_type() == DataType::FLOAT as i32)
    }

    fn as_half(&mut self, name: &mut String) {
        if let Some(half) = self.halves.get(name) {
            name.clone_from(half);
            return;
        }
        let constant = self
            .constants
            .get(name)
            .map(|tensor| (tensor.data_type(), tensors::read_floats(tensor), tensor.dims.clone()));
        let half = match constant {
            Some((kind, Some(values), dims)) if kind == DataType::FLOAT as i32 => {
                let values: Vec<f16> = values.into_iter().map(f16::from_f32).collect();
                let dims: Vec<usize> = dims.into_iter().map(|length| length as usize).collect();
                self.build.add_constant(|name| tensors::of_f16(name, &dims, &values))
            }
            Some(_) => return,
            None => self.build.add_cast(name, DataType::FLOAT16),
        };
        self.halves.insert(name.clone(), half.clone());
        self.floats.insert(name.clone());
        *name = half;
    }

    /// Ensures that the value `name` exists as floats.
    fn as_float(&mut self, name: &str) {
        if let Some(half) = self.halves.get(name).filter(|_| !self.floats.contains(name)) {
            let half = half.clone();
            self.build.add_named_op("Cast", &[&half], &[name], &[("to", AttributeValue::Int(DataType::FLOAT as i64))]);
            self.floats.insert(name.to_owned());
        }
    }
}
