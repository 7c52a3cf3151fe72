//! Makes nodes, and the constants that they take.

use crate::{
    Model,
    onnx::onnx::{
        AttributeProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType,
        tensor_proto::DataType, tensor_shape_proto::Dimension,
    },
    weights,
};

/// The value of an attribute.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'a> {
    Int(i64),
    Ints(&'a [i64]),
}

pub(crate) fn attribute(name: &str, value: Value<'_>) -> AttributeProto {
    let mut attribute = AttributeProto::new();
    attribute.set_name(name.to_owned());
    let kind = match value {
        Value::Int(number) => {
            attribute.set_i(number);
            AttributeType::INT
        }
        Value::Ints(numbers) => {
            attribute.ints = numbers.to_vec();
            AttributeType::INTS
        }
    };
    attribute.set_type(kind);
    attribute
}

/// A node of ONNX's own operator `op`.
pub(crate) fn node(op: &str, inputs: &[&str], outputs: &[&str], attributes: &[(&str, Value<'_>)]) -> NodeProto {
    let mut node = NodeProto::new();
    node.set_op_type(op.to_owned());
    node.set_name(format!("caudal/{op}/{}", outputs.first().unwrap_or(&"")));
    node.input = inputs.iter().map(|name| (*name).to_owned()).collect();
    node.output = outputs.iter().map(|name| (*name).to_owned()).collect();
    node.attribute = attributes.iter().map(|(name, value)| attribute(name, *value)).collect();
    node
}

/// An input or output of the graph.
pub(crate) fn value(name: &str, kind: DataType, dims: Vec<Dimension>) -> ValueInfoProto {
    let mut of = TypeProto::new();
    let tensor = of.mut_tensor_type();
    tensor.set_elem_type(kind as i32);
    tensor.shape.mut_or_insert_default().dim = dims;
    let mut value = ValueInfoProto::new();
    value.set_name(name.to_owned());
    value.type_ = Some(of).into();
    value
}

/// A dimension of a fixed length.
pub(crate) fn fixed(length: usize) -> Dimension {
    let mut dimension = Dimension::new();
    dimension.set_dim_value(length as i64);
    dimension
}

/// Nodes being put together; the constants that they take go straight into the model.
pub(crate) struct Builder<'a> {
    pub(crate) model: &'a mut Model,
    pub(crate) nodes: Vec<NodeProto>,
    prefix: &'static str,
}

impl<'a> Builder<'a> {
    /// Nodes of which all names begin with `prefix`.
    pub(crate) fn new(model: &'a mut Model, prefix: &'static str) -> Self {
        Self { model, nodes: Vec::new(), prefix }
    }

    /// The output of a new node.
    pub(crate) fn op(&mut self, op: &str, inputs: &[&str], attributes: &[(&str, Value<'_>)]) -> String {
        let name = self.name(&op.to_lowercase());
        self.nodes.push(node(op, inputs, &[&name], attributes));
        name
    }

    /// A new node whose outputs are called `outputs`.
    pub(crate) fn named(&mut self, op: &str, inputs: &[&str], outputs: &[&str], attributes: &[(&str, Value<'_>)]) {
        self.nodes.push(node(op, inputs, outputs, attributes));
    }

    pub(crate) fn floats(&mut self, dims: &[usize], values: &[f32]) -> String {
        self.constant(|name| weights::of_f32(name, dims, values))
    }

    pub(crate) fn float(&mut self, value: f32) -> String {
        self.floats(&[], &[value])
    }

    pub(crate) fn ints(&mut self, values: &[i64]) -> String {
        self.constant(|name| weights::of_i64(name, &[values.len()], values))
    }

    pub(crate) fn int(&mut self, value: i64) -> String {
        self.constant(|name| weights::of_i64(name, &[], &[value]))
    }

    pub(crate) fn constant(&mut self, make: impl FnOnce(&str) -> TensorProto) -> String {
        let name = self.name("constant");
        self.model.graph_mut().initializer.push(make(&name));
        name
    }

    /// The type `kind` of what `input` holds.
    pub(crate) fn cast(&mut self, input: &str, kind: DataType) -> String {
        self.op("Cast", &[input], &[("to", Value::Int(kind as i64))])
    }

    /// The part `from..to` of `input` along `axis`.
    pub(crate) fn slice(&mut self, input: &str, axis: i64, from: i64, to: i64) -> String {
        let [from, to, axis] = [from, to, axis].map(|number| self.ints(&[number]));
        self.op("Slice", &[input, &from, &to, &axis], &[])
    }

    pub(crate) fn name(&mut self, wish: &str) -> String {
        self.model.fresh(&format!("{}/{wish}", self.prefix))
    }
}
