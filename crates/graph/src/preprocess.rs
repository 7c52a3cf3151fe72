//! Fusing preprocessing: the network takes images as a decoder gives them, 8-bit RGB pixels, and normalises them
//! itself.

use crate::{
    GraphError, Model,
    builder::{AttributeValue, GraphBuilder, fixed_dim, make_value_info},
    onnx::onnx::{ValueInfoProto, tensor_proto::DataType},
};

/// The normalisation to move into the graph: `byte * scale + bias` per channel, in the network's channel order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preprocessing {
    /// Width of the input.
    pub width: usize,
    /// Height of the input.
    pub height: usize,
    /// Factors.
    pub scale: [f32; 3],
    /// Summands.
    pub bias: [f32; 3],
    /// Whether the network takes one plane per channel.
    pub planar: bool,
    /// Whether its channel order is BGR.
    pub bgr: bool,
}

/// Replaces the only float input of `model` by `[rows, height, width, 3]` bytes of the same name.
pub fn fuse_preprocessing(model: &mut Model, pixels: &Preprocessing) -> Result<(), GraphError> {
    model.require_opset(7, "taking bytes")?;
    let input = only_input(model)?;
    let kind = input.type_.tensor_type().elem_type();
    if kind != DataType::FLOAT as i32 {
        return Err(GraphError::Unsuitable(format!("its input {:?} does not take floats", input.name())));
    }
    let rows = input.type_.tensor_type().shape.dim.first().cloned().unwrap_or_default();
    let (width, height) = (pixels.width, pixels.height);

    let mut build = GraphBuilder::new(model, "preprocess");
    let floats = build.prefixed_name("floats");
    let mut last = input.name().to_owned();
    if pixels.bgr {
        let order = build.int_vector(&[2, 1, 0]);
        last = build.add_op("Gather", &[&last, &order], &[("axis", AttributeValue::Int(3))]);
    }
    if pixels.planar {
        // Transposing bytes moves a quarter of the memory of floats.
        last = build.add_op("Transpose", &[&last], &[("perm", AttributeValue::Ints(&[0, 3, 1, 2]))]);
    }
    last = build.add_cast(&last, DataType::FLOAT);
    let channels: &[usize] = if pixels.planar { &[1, 3, 1, 1] } else { &[1, 1, 1, 3] };
    for (op, values, idle) in [("Mul", pixels.scale, 1.0), ("Add", pixels.bias, 0.0)] {
        if values != [idle; 3] {
            let values = build.float_tensor(channels, &values);
            last = build.add_op(op, &[&last, &values], &[]);
        }
    }
    build.add_named_op("Identity", &[&last], &[&floats], &[]);

    let nodes = build.nodes;
    let graph = model.graph_mut();
    let taken = graph.node.iter_mut().flat_map(|node| &mut node.input).filter(|name| *name == input.name());
    taken.for_each(|name| name.clone_from(&floats));
    graph.node.splice(0..0, nodes);
    let taken =
        make_value_info(input.name(), DataType::UINT8, vec![rows, fixed_dim(height), fixed_dim(width), fixed_dim(3)]);
    graph.input.iter_mut().filter(|known| known.name() == input.name()).for_each(|known| *known = taken.clone());
    Ok(())
}

/// The only input that is not also a constant; old models list constants as inputs.
fn only_input(model: &Model) -> Result<ValueInfoProto, GraphError> {
    let graph = model.graph();
    let constant = |value: &&ValueInfoProto| graph.initializer.iter().any(|tensor| tensor.name() == value.name());
    let inputs: Vec<_> = graph.input.iter().filter(|value| !constant(value)).collect();
    match inputs[..] {
        [input] => Ok(input.clone()),
        _ => Err(GraphError::Unsuitable(format!("it has {} inputs; expected one image", inputs.len()))),
    }
}
