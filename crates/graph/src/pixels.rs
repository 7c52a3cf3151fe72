//! Lets a network take pictures as they come from a decoder: bytes, pixel after pixel, red first. What happened to
//! them before the graph happens within it.

use crate::{
    GraphError, Model,
    build::{Builder, Value, fixed, value},
    onnx::onnx::{ValueInfoProto, tensor_proto::DataType},
};

/// What a network did not do to its pictures by itself: `byte * scale + bias`, channel by channel as the network
/// takes them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pixels {
    /// Width of the picture.
    pub width: usize,
    /// Height of the picture.
    pub height: usize,
    /// Factors.
    pub scale: [f32; 3],
    /// Summands.
    pub bias: [f32; 3],
    /// Whether the network takes one plane after the other.
    pub planar: bool,
    /// Whether it takes blue first.
    pub bgr: bool,
}

/// Makes the only input of `model`, floats, one of `[rows, height, width, 3]` bytes under the same name.
pub fn take_bytes(model: &mut Model, pixels: &Pixels) -> Result<(), GraphError> {
    model.needs_opset(7, "taking bytes")?;
    let input = only_input(model)?;
    let kind = input.type_.tensor_type().elem_type();
    if kind != DataType::FLOAT as i32 {
        return Err(GraphError::Unsuitable(format!("its input {:?} does not take floats", input.name())));
    }
    let rows = input.type_.tensor_type().shape.dim.first().cloned().unwrap_or_default();
    let (width, height) = (pixels.width, pixels.height);

    let mut build = Builder::new(model, "preprocess");
    let floats = build.name("floats");
    let mut last = input.name().to_owned();
    if pixels.bgr {
        let order = build.ints(&[2, 1, 0]);
        last = build.op("Gather", &[&last, &order], &[("axis", Value::Int(3))]);
    }
    if pixels.planar {
        // Bytes are a quarter of what floats are to move about.
        last = build.op("Transpose", &[&last], &[("perm", Value::Ints(&[0, 3, 1, 2]))]);
    }
    last = build.cast(&last, DataType::FLOAT);
    let channels: &[usize] = if pixels.planar { &[1, 3, 1, 1] } else { &[1, 1, 1, 3] };
    for (op, values, idle) in [("Mul", pixels.scale, 1.0), ("Add", pixels.bias, 0.0)] {
        if values != [idle; 3] {
            let values = build.floats(channels, &values);
            last = build.op(op, &[&last, &values], &[]);
        }
    }
    build.named("Identity", &[&last], &[&floats], &[]);

    let nodes = build.nodes;
    let graph = model.graph_mut();
    let taken = graph.node.iter_mut().flat_map(|node| &mut node.input).filter(|name| *name == input.name());
    taken.for_each(|name| name.clone_from(&floats));
    graph.node.splice(0..0, nodes);
    let taken = value(input.name(), DataType::UINT8, vec![rows, fixed(height), fixed(width), fixed(3)]);
    graph.input.iter_mut().filter(|known| known.name() == input.name()).for_each(|known| *known = taken.clone());
    Ok(())
}

/// The only input that is not a constant too, as old models list those.
fn only_input(model: &Model) -> Result<ValueInfoProto, GraphError> {
    let graph = model.graph();
    let constant = |value: &&ValueInfoProto| graph.initializer.iter().any(|tensor| tensor.name() == value.name());
    let inputs: Vec<_> = graph.input.iter().filter(|value| !constant(value)).collect();
    match inputs[..] {
        [input] => Ok(input.clone()),
        _ => Err(GraphError::Unsuitable(format!("it has {} inputs, and a picture is one", inputs.len()))),
    }
}
