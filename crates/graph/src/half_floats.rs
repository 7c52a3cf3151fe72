//! Computing in 16-bit floats: what gains by it is done in halves, its weights are stored so, and inputs and outputs of
//! the model stay as they were.

use std::collections::{HashMap, HashSet};

use half::f16;

use crate::{
    GraphError, Model,
    build::{Builder, Value},
    onnx::onnx::{TensorProto, tensor_proto::DataType},
    weights,
};

/// Operators that take and give halves wherever they take and give floats, all of their float inputs alike.
const ABLE: [&str; 33] = [
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

/// `model` computed in halves from its first layer with weights on, where its operators can.
pub fn halve(model: &Model) -> Result<Model, GraphError> {
    model.needs_opset(7, "computing in 16 bits")?;
    let mut halved = model.clone();
    let nodes = std::mem::take(&mut halved.graph_mut().node);
    let constants: HashMap<String, TensorProto> =
        halved.graph().initializer.iter().map(|tensor| (tensor.name().to_owned(), tensor.clone())).collect();
    let outputs: HashSet<String> = halved.graph().output.iter().map(|value| value.name().to_owned()).collect();
    let mut write =
        Writer { build: Builder::new(&mut halved, "fp16"), constants, halves: HashMap::new(), floats: HashSet::new() };
    for mut node in nodes {
        let layer = matches!(node.op_type(), "Conv" | "ConvTranspose" | "Gemm" | "MatMul");
        let able = node.domain().is_empty() && ABLE.contains(&node.op_type());
        let begins = layer && node.input.get(1).is_some_and(|weights| write.is_float(weights));
        let goes_on = able && node.input.iter().any(|name| write.halves.contains_key(name));
        if !begins && !goes_on {
            node.input.iter().for_each(|name| write.as_float(name));
            write.build.nodes.push(node);
            continue;
        }
        // What else these take are shapes.
        let first = matches!(node.op_type(), "Reshape" | "Split" | "Squeeze" | "Unsqueeze");
        for (index, name) in node.input.iter_mut().enumerate() {
            if !name.is_empty() && (index == 0 || !first) {
                write.as_half(name);
            }
        }
        let made = node.output.clone();
        for name in &mut node.output {
            let half = write.build.name(name);
            write.halves.insert(name.clone(), half.clone());
            *name = half;
        }
        write.build.nodes.push(node);
        for name in made.iter().filter(|name| outputs.contains(*name)) {
            write.as_float(name);
        }
    }
    let Writer { build, halves, .. } = write;
    let nodes = build.nodes;
    if halves.is_empty() {
        return Err(GraphError::Unsuitable("it has no layer to be computed in 16 bits".to_owned()));
    }
    halved.graph_mut().node = nodes;
    // What was said of types between the nodes no longer holds.
    halved.graph_mut().value_info.clear();
    crate::quantize::drop_unused_constants(&mut halved);
    Ok(halved)
}

struct Writer<'a> {
    build: Builder<'a>,
    constants: HashMap<String, TensorProto>,
    /// Values, and what they are called in halves.
    halves: HashMap<String, String>,
    /// Values made in halves of which there are floats too, under their own names.
    floats: HashSet<String>,
}

impl Writer<'_> {
    fn is_float(&self, name: &str) -> bool {
        self.constants.get(name).is_some_and(|tensor| tensor.data_type() == DataType::FLOAT as i32)
    }

    fn as_half(&mut self, name: &mut String) {
        if let Some(half) = self.halves.get(name) {
            name.clone_from(half);
            return;
        }
        let constant =
            self.constants.get(name).map(|tensor| (tensor.data_type(), weights::floats(tensor), tensor.dims.clone()));
        let half = match constant {
            Some((kind, Some(values), dims)) if kind == DataType::FLOAT as i32 => {
                let values: Vec<f16> = values.into_iter().map(f16::from_f32).collect();
                let dims: Vec<usize> = dims.into_iter().map(|length| length as usize).collect();
                self.build.constant(|name| weights::of_f16(name, &dims, &values))
            }
            Some(_) => return,
            None => self.build.cast(name, DataType::FLOAT16),
        };
        self.halves.insert(name.clone(), half.clone());
        self.floats.insert(name.clone());
        *name = half;
    }

    /// Makes sure that there is a value `name` in floats.
    fn as_float(&mut self, name: &str) {
        if let Some(half) = self.halves.get(name).filter(|_| !self.floats.contains(name)) {
            let half = half.clone();
            self.build.named("Cast", &[&half], &[name], &[("to", Value::Int(DataType::FLOAT as i64))]);
            self.floats.insert(name.to_owned());
        }
    }
}
