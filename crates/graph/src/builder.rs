//! Graph builder: makes nodes and the constants that they take.

use crate::{
    Model,
    onnx::onnx::{
        AttributeProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType,
        tensor_proto::DataType, tensor_shape_proto::Dimension,
    },
    tensors,
};

/// The value of an attribute.
#[derive(Debug, Clone, Copy)]
pub(crate) enum AttributeValue<'a> {
    Int(i64),
    Ints(&'a [i64]),
}

pub(crate) fn make_attribute(name: &str, value: AttributeValue<'_>) -> AttributeProto {
    let mut attribute = AttributeProto::new();
    attribute.set_name(name.to_owned());
    let kind = match value {
        AttributeValue::Int(number) => {
            attribute.set_i(number);
            AttributeType::INT
        }
        AttributeValue::Ints(numbers) => {
            attribute.ints = numbers.to_vec();
            AttributeType::INTS
        }
    };
    attribute.set_type(kind);
    attribute
}

/// A node of ONNX's standard operator `op`.
pub(crate) fn make_node(
    op: &str,
    inputs: &[&str],
    outputs: &[&str],
    attributes: &[(&str, AttributeValue<'_>)],
) -> NodeProto {
    let mut node = NodeProto::new();
    node.set_op_type(op.to_owned());
    node.set_name(format!("caudal/{op}/{}", outputs.first().unwrap_or(&"")));
    node.input = inputs.iter().map(|name| (*name).to_owned()).collect();
    node.output = outputs.iter().map(|name| (*name).to_owned()).collect();
    node.attribute = attributes.iter().map(|(name, value)| make_attribute(name, *value)).collect();
    node
}

/// An input or output of the graph.
pub(crate) fn make_value_info(name: &str, kind: DataType, dims: Vec<Dimension>) -> ValueInfoProto {
    let mut of = TypeProto::new();
    let tensor = of.mut_tensor_type();
    tensor.set_elem_type(kind as i32);
    tensor.shape.mut_or_insert_default().dim = dims;
    let mut value = ValueInfoProto::new();
    value.set_name(name.to_owned());
    value.type_ = Some(of).into();
    value
}

/// A dimension of fixed length.
pub(crate) fn fixed_dim(length: usize) -> Dimension {
    let mut dimension = Dimension::new();
    dimension.set_dim_value(length as i64);
    dimension
}

/// Nodes under construction; their constants are added to the model immediately.
pub(crate) struct GraphBuilder<'a> {
    pub(crate) model: &'a mut Model,
    pub(crate) nodes: Vec<NodeProto>,
    prefix: &'static str,
}

impl<'a> GraphBuilder<'a> {
    /// A builder whose names begin with `prefix`.
    pub(crate) fn new(model: &'a mut Model, prefix: &'static str) -> Self {
        Self { model, nodes: Vec::new(), prefix }
    }

    /// Adds a node; returns the name of its output.
    pub(crate) fn add_op(&mut self, op: &str, inputs: &[&str], attributes: &[(&str, AttributeValue<'_>)]) -> String {
        let name = self.prefixed_name(&op.to_lowercase());
        self.nodes.push(make_node(op, inputs, &[&name], attributes));
        name
    }

    /// Adds a node with the given names of its outputs.
    pub(crate) fn add_named_op(
        &mut self,
        op: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: &[(&str, AttributeValue<'_>)],
    ) {
        self.nodes.push(make_node(op, inputs, outputs, attributes));
    }

    pub(crate) fn float_tensor(&mut self, dims: &[usize], values: &[f32]) -> String {
        self.add_constant(|name| tensors::of_f32(name, dims, values))
    }

    pub(crate) fn float_scalar(&mut self, value: f32) -> String {
        self.float_tensor(&[], &[value])
    }

    pub(crate) fn int_vector(&mut self, values: &[i64]) -> String {
        self.add_constant(|name| tensors::of_i64(name, &[values.len()], values))
    }

    pub(crate) fn int_scalar(&mut self, value: i64) -> String {
        self.add_constant(|name| tensors::of_i64(name, &[], &[value]))
    }

    pub(crate) fn add_constant(&mut self, make: impl FnOnce(&str) -> TensorProto) -> String {
        let name = self.prefixed_name("constant");
        self.model.graph_mut().initializer.push(make(&name));
        name
    }

    /// Adds a conversion of `input` to the type `kind`.
    pub(crate) fn add_cast(&mut self, input: &str, kind: DataType) -> String {
        self.add_op("Cast", &[input], &[("to", AttributeValue::Int(kind as i64))])
    }

    /// Adds a slice `from..to` of `input` along `axis`.
    pub(crate) fn add_slice(&mut self, input: &str, axis: i64, from: i64, to: i64) -> String {
        let [from, to, axis] = [from, to, axis].map(|number| self.int_vector(&[number]));
        self.add_op("Slice", &[input, &from, &to, &axis], &[])
    }

    pub(crate) fn prefixed_name(&mut self, wish: &str) -> String {
        self.model.unused_name(&format!("{}/{wish}", self.prefix))
    }
}
