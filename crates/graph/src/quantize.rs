//! Quantization to 8 bits: `QuantizeLinear` and `DequantizeLinear` are put around layers, and the runtime replaces the
//! three by an integer kernel. Activations are unsigned and asymmetric, weights signed, symmetric and per channel,
//! biases 32 bits. (Jacob et al., "Quantization and Training of Neural Networks", 2018; ONNX Runtime's QDQ format.)
//!
//! Weights use 7 bits: on processors without VNNI the sum of two products of 8 by 8 bits exceeds 16 bits and saturates.

use std::collections::{HashMap, HashSet};

use crate::{
    GraphError, Model,
    builder::{AttributeValue, GraphBuilder},
    dataflow::{DataFlow, find_attribute, int_attribute},
    onnx::onnx::{AttributeProto, NodeProto, TensorProto, tensor_proto::DataType},
    tensors,
};

/// Largest quantized weight: 7 bits.
const MAX_WEIGHT_VALUE: f32 = 64.0;

/// Selection of the layers that compute in 8 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QuantizeConfig {
    /// The kinds of layers.
    pub scope: QuantizeScope,
    /// Number of layers with weights that stay in floats, counted back from the outputs on every path: the last layers
    /// decide positions and confidences, and are the most sensitive to rounding.
    pub skipped_layers: usize,
}

/// The kinds of layers that compute in 8 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuantizeScope {
    /// Convolutions.
    Convolutions,
    /// Convolutions, products with constant matrices, and operators between them that can stay in 8 bits.
    Chains,
}

/// The observed range of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub struct ValueRange {
    pub min: f32,
    pub max: f32,
}

impl ValueRange {
    /// Scale and zero point of the 8-bit representation. Zero is exact, because padding is zero.
    pub fn scale_and_zero_point(self) -> (f32, u8) {
        let (min, max) = (self.min.min(0.0), self.max.max(0.0));
        let scale = (max - min) / 255.0;
        if !scale.is_normal() {
            return (1.0, 0);
        }
        (scale, (-min / scale).round_ties_even().clamp(0.0, 255.0) as u8)
    }
}

/// The values of `model` whose ranges [`quantize_model`] needs.
pub fn values_to_calibrate(model: &Model, recipe: QuantizeConfig) -> Result<Vec<String>, GraphError> {
    let plan = QuantizePlan::from_model(model, recipe)?;
    let mut seen = HashSet::new();
    let wanted = plan.wanted.into_iter().filter(|name| seen.insert(*name));
    Ok(wanted.map(str::to_owned).collect())
}

/// Quantizes the layers of `model` that `recipe` selects; `ranges` are those of the values from
/// [`values_to_calibrate`].
pub fn quantize_model(
    model: &Model,
    recipe: QuantizeConfig,
    ranges: &HashMap<String, ValueRange>,
) -> Result<Model, GraphError> {
    let plan = QuantizePlan::from_model(model, recipe)?;
    let mut quantised = model.clone();
    quantised.graph_mut().node.clear();
    let mut write = QuantizeWriter {
        plan: &plan,
        ranges,
        build: GraphBuilder::new(&mut quantised, "int8"),
        grids: HashMap::new(),
        near: HashMap::new(),
    };
    for (place, node) in plan.flow.graph.node.iter().enumerate() {
        write.write_node(place, node)?;
    }
    let nodes = write.build.nodes;
    quantised.graph_mut().node = nodes;
    drop_unused_constants(&mut quantised);
    Ok(quantised)
}

/// The effect of a node on the quantization grid of its values.
#[derive(Debug, Clone, Copy, PartialEq)]
enum NodeRole {
    /// Has weights, per channel along this axis; its outputs have their own grid.
    Layer(usize),
    /// Computes new values with their own grid.
    Mixes,
    /// Passes on values of its first input, on the same grid.
    Keeps,
}

struct QuantizePlan<'a> {
    flow: DataFlow<'a>,
    per_channel: bool,
    roles: HashMap<usize, NodeRole>,
    /// Activations that are replaced by the saturation of the node before.
    dropped: HashSet<usize>,
    /// The outputs of each node with a role, after a dropped activation.
    gives: HashMap<usize, Vec<&'a str>>,
    /// Values that share the grid of another value.
    same_grid: HashMap<&'a str, &'a str>,
    /// Values whose ranges are needed.
    wanted: Vec<&'a str>,
}

impl<'a> QuantizePlan<'a> {
    fn from_model(model: &'a Model, recipe: QuantizeConfig) -> Result<Self, GraphError> {
        model.require_opset(10, "computing in 8 bits")?;
        let per_channel = model.opset() >= 13;
        let flow = DataFlow::from_graph(model.graph());
        let left = flow.layers_left();
        let mut plan = Self {
            flow,
            per_channel,
            roles: HashMap::new(),
            dropped: HashSet::new(),
            gives: HashMap::new(),
            same_grid: HashMap::new(),
            wanted: Vec::new(),
        };
        let mut on_grid = HashSet::new();
        for (place, node) in model.graph().node.iter().enumerate() {
            let wide = recipe.scope == QuantizeScope::Chains;
            let role = plan
                .node_role(node, wide, &on_grid)
                .filter(|_| left[place] > recipe.skipped_layers && !plan.dropped.contains(&place));
            if let Some(role) = role {
                plan.add_node(place, node, role, &mut on_grid);
            }
        }
        if !plan.roles.values().any(|role| matches!(role, NodeRole::Layer(_))) {
            return Err(GraphError::Unsuitable("it has no layer to be computed in 8 bits".to_owned()));
        }
        Ok(plan)
    }

    fn node_role(&self, node: &NodeProto, wide: bool, on_grid: &HashSet<&str>) -> Option<NodeRole> {
        if !node.domain().is_empty() {
            return None;
        }
        let stays = || node.input.first().is_some_and(|name| on_grid.contains(name.as_str()));
        let all_on_grid = || node.input.iter().all(|name| on_grid.contains(name.as_str()));
        match node.op_type() {
            "Conv" => self.has_weights(node).then_some(NodeRole::Layer(0)),
            "MatMul" if wide => {
                (self.has_weights(node) && self.weight_tensor(node)?.dims.len() == 2).then_some(NodeRole::Layer(1))
            }
            "Gemm" if wide => {
                let plain = |name: &str| find_attribute(node, name).is_none_or(|factor| factor.f() == 1.0);
                let plain = plain("alpha") && plain("beta") && int_attribute(node, "transA").unwrap_or(0) == 0;
                let axis = usize::from(int_attribute(node, "transB").unwrap_or(0) == 0);
                (plain && self.has_weights(node)).then_some(NodeRole::Layer(axis))
            }
            "Add" | "Mul" | "Concat" | "Sigmoid" | "LeakyRelu" | "AveragePool" | "GlobalAveragePool" if wide => {
                all_on_grid().then_some(NodeRole::Mixes)
            }
            "MaxPool" if wide => (stays() && node.output.len() == 1).then_some(NodeRole::Keeps),
            "Resize" if wide => {
                let nearest = find_attribute(node, "mode").is_none_or(|mode| mode.s() == b"nearest");
                (stays() && nearest).then_some(NodeRole::Keeps)
            }
            "Split" | "Transpose" | "Reshape" | "Squeeze" | "Unsqueeze" if wide => stays().then_some(NodeRole::Keeps),
            _ => None,
        }
    }

    fn weight_tensor(&self, node: &NodeProto) -> Option<&'a TensorProto> {
        self.flow.constants.get(node.input.get(1)?.as_str()).copied()
    }

    /// Whether the weights of `node`, and its bias if it has one, are constant floats and its input is not constant.
    fn has_weights(&self, node: &NodeProto) -> bool {
        let constant = |name: &String| self.flow.constants.get(name.as_str());
        let floats = |name: &String| constant(name).is_some_and(|tensor| tensor.data_type() == DataType::FLOAT as i32);
        let bias = node
            .input
            .get(2)
            .is_none_or(|bias| floats(bias) && constant(bias).is_some_and(|bias| bias.dims.len() == 1));
        bias && node.input.get(1).is_some_and(floats)
            && node.input.first().is_some_and(|input| constant(input).is_none())
    }

    fn add_node(&mut self, place: usize, node: &'a NodeProto, role: NodeRole, on_grid: &mut HashSet<&'a str>) {
        let mut gives: Vec<&str> = node.output.iter().map(String::as_str).collect();
        if role == NodeRole::Keeps {
            let root = self.grid_root(&node.input[0]);
            self.same_grid.extend(gives.iter().map(|name| (*name, root)));
        } else {
            if let NodeRole::Layer(_) = role
                && !on_grid.contains(node.input[0].as_str())
            {
                self.wanted.push(&node.input[0]);
            }
            if let Some((after, activation)) = self.saturating_activation(node, role) {
                self.dropped.insert(after);
                gives = vec![&activation.output[0]];
            }
            self.wanted.extend(&gives);
        }
        on_grid.extend(&gives);
        self.gives.insert(place, gives);
        self.roles.insert(place, role);
    }

    /// The activation after `node` that clips at zero, and at most at a constant above, as the range of bytes does.
    fn saturating_activation(&self, node: &NodeProto, role: NodeRole) -> Option<(usize, &'a NodeProto)> {
        let can = matches!(role, NodeRole::Layer(_)) || node.op_type() == "Add";
        let (place, after) = self.flow.only_consumer_of(node.output.first()?).filter(|_| can)?;
        let constant = |index: usize| {
            tensors::read_floats(self.flow.constants.get(after.input.get(index)?.as_str())?)?.first().copied()
        };
        let from_zero = match after.op_type() {
            "Relu" => true,
            "Clip" => {
                let low = find_attribute(after, "min").map(AttributeProto::f).or_else(|| constant(1));
                let high = after.input.get(2).is_none_or(|name| name.is_empty() || constant(2).is_some());
                low == Some(0.0) && high
            }
            _ => false,
        };
        from_zero.then_some((place, after))
    }

    /// The value whose grid `name` shares.
    fn grid_root<'b>(&self, name: &'b str) -> &'b str
    where
        'a: 'b,
    {
        self.same_grid.get(name).copied().unwrap_or(name)
    }
}

/// A quantization grid: its scale, and the names of its scale and zero point.
#[derive(Clone)]
struct QuantizeGrid {
    scale: f32,
    names: [String; 2],
}

struct QuantizeWriter<'a> {
    plan: &'a QuantizePlan<'a>,
    ranges: &'a HashMap<String, ValueRange>,
    build: GraphBuilder<'a>,
    /// Grids of values.
    grids: HashMap<String, QuantizeGrid>,
    /// Values without an 8-bit producer, and their quantized copies.
    near: HashMap<String, String>,
}

impl QuantizeWriter<'_> {
    fn write_node(&mut self, place: usize, node: &NodeProto) -> Result<(), GraphError> {
        let plan = self.plan;
        if plan.dropped.contains(&place) {
            return Ok(());
        }
        let mut node = node.clone();
        let Some(role) = plan.roles.get(&place) else {
            self.build.nodes.push(node);
            return Ok(());
        };
        if let NodeRole::Layer(axis) = *role {
            self.write_layer(&mut node, axis)?;
        }
        let gives = &plan.gives[&place];
        node.output = gives.iter().map(|name| self.build.prefixed_name(&format!("{name}/float"))).collect();
        let floats = node.output.clone();
        self.build.nodes.push(node);
        for (name, floats) in gives.iter().zip(&floats) {
            self.add_quantize_pair(name, floats, name)?;
        }
        Ok(())
    }

    /// Quantizes and dequantizes the value `floats` on the grid of `of`, as the value `name`.
    fn add_quantize_pair(&mut self, of: &str, floats: &str, name: &str) -> Result<(), GraphError> {
        let [scale, zero] = self.grid_of(of)?.names;
        let bytes = self.build.add_op("QuantizeLinear", &[floats, &scale, &zero], &[]);
        self.build.add_named_op("DequantizeLinear", &[&bytes, &scale, &zero], &[name], &[]);
        Ok(())
    }

    fn grid_of(&mut self, name: &str) -> Result<QuantizeGrid, GraphError> {
        let root = self.plan.grid_root(name);
        if let Some(grid) = self.grids.get(root) {
            return Ok(grid.clone());
        }
        let range = self
            .ranges
            .get(root)
            .ok_or_else(|| GraphError::Unsuitable(format!("the value {root:?} was not calibrated")))?;
        let (scale, zero) = range.scale_and_zero_point();
        let names =
            [self.build.float_scalar(scale), self.build.add_constant(|name| tensors::of_u8(name, &[], &[zero]))];
        let grid = QuantizeGrid { scale, names };
        self.grids.insert(root.to_owned(), grid.clone());
        Ok(grid)
    }

    /// Quantizes input, weights and bias of a layer.
    fn write_layer(&mut self, node: &mut NodeProto, axis: usize) -> Result<(), GraphError> {
        let input = node.input[0].clone();
        let step = self.grid_of(&input)?.scale;
        let made_on_grid = self.plan.flow.producer_of(&input).is_some_and(|maker| self.is_on_grid(maker, &input));
        if !made_on_grid {
            node.input[0] = match self.near.get(&input) {
                Some(near) => near.clone(),
                None => {
                    let near = self.build.prefixed_name(&format!("{input}/near"));
                    self.add_quantize_pair(&input, &input, &near)?;
                    self.near.insert(input, near.clone());
                    near
                }
            };
        }
        let constant =
            |index: usize| node.input.get(index).and_then(|name| self.plan.flow.constants.get(name.as_str()));
        let (Some(weights), bias) = (constant(1).copied(), constant(2).copied()) else { return Ok(()) };
        let bias = bias.and_then(tensors::read_floats);
        let Some(whole) = IntegerLayer::of(weights, bias.as_deref(), step, axis, self.plan.per_channel) else {
            return Ok(());
        };
        let dims: Vec<usize> = weights.dims.iter().map(|length| *length as usize).collect();
        let axis_attribute: &[(&str, AttributeValue<'_>)] =
            if whole.scales.len() > 1 { &[("axis", AttributeValue::Int(axis as i64))] } else { &[] };
        let channels: &[usize] = if whole.scales.len() > 1 { &[whole.scales.len()] } else { &[] };

        let build = &mut self.build;
        let numbers = build.add_constant(|name| tensors::of_i8(name, &dims, &whole.weights));
        let scales = build.float_tensor(channels, &whole.scales);
        let zeros = build.add_constant(|name| tensors::of_i8(name, channels, &vec![0; whole.scales.len()]));
        node.input[1] = build.add_op("DequantizeLinear", &[&numbers, &scales, &zeros], axis_attribute);
        if let Some(bias) = &whole.bias {
            let steps: Vec<f32> = whole.scales.iter().map(|scale| scale * step).collect();
            let numbers = build.add_constant(|name| tensors::of_i32(name, &[bias.len()], bias));
            let steps = build.float_tensor(channels, &steps);
            let zeros = build.add_constant(|name| tensors::of_i32(name, channels, &vec![0; whole.scales.len()]));
            let axis: &[(&str, AttributeValue<'_>)] =
                if whole.scales.len() > 1 { &[("axis", AttributeValue::Int(0))] } else { &[] };
            node.input[2] = build.add_op("DequantizeLinear", &[&numbers, &steps, &zeros], axis);
        }
        Ok(())
    }

    /// Whether `name` is a quantized output of node `maker`, or of an activation dropped after it.
    fn is_on_grid(&self, maker: usize, name: &str) -> bool {
        self.plan.dropped.contains(&maker) || self.plan.gives.get(&maker).is_some_and(|gives| gives.contains(&name))
    }
}

/// Weights and bias as integers.
struct IntegerLayer {
    weights: Vec<i8>,
    /// One scale for each channel, or one for all.
    scales: Vec<f32>,
    bias: Option<Vec<i32>>,
}

impl IntegerLayer {
    /// `step` is the scale of the layer's input.
    fn of(tensor: &TensorProto, bias: Option<&[f32]>, step: f32, axis: usize, per_channel: bool) -> Option<Self> {
        let values = tensors::read_floats(tensor)?;
        let channels = if per_channel { *tensor.dims.get(axis)? as usize } else { 1 };
        // Number of consecutive values of one channel.
        let run: usize = if per_channel {
            tensor.dims[axis + 1..].iter().map(|length| *length as usize).product()
        } else {
            values.len()
        };
        let channel = |index: usize| index / run.max(1) % channels;
        let mut scales = vec![0f32; channels];
        for (index, value) in values.iter().enumerate() {
            let scale = &mut scales[channel(index)];
            *scale = scale.max(value.abs() / MAX_WEIGHT_VALUE);
        }
        for (index, value) in bias.unwrap_or_default().iter().enumerate() {
            // A bias far above its weights must fit 32 bits too.
            let scale = &mut scales[index % channels];
            *scale = scale.max(value.abs() / (step * (1 << 30) as f32));
        }
        scales.iter_mut().filter(|scale| !scale.is_normal()).for_each(|scale| *scale = 1.0);
        let weights =
            values.iter().enumerate().map(|(index, value)| (value / scales[channel(index)]).round_ties_even() as i8);
        let bias = bias.map(|bias| {
            let whole = bias
                .iter()
                .enumerate()
                .map(|(index, value)| (value / (scales[index % channels] * step)).round_ties_even() as i32);
            whole.collect()
        });
        Some(Self { weights: weights.collect(), bias, scales })
    }
}

/// Removes constants that no node uses any more.
pub(crate) fn drop_unused_constants(model: &mut Model) {
    let graph = model.graph_mut();
    let inner = graph
        .node
        .iter()
        .any(|node| node.attribute.iter().any(|attribute| attribute.g.is_some() || !attribute.graphs.is_empty()));
    if inner {
        // A subgraph may use any of them.
        return;
    }
    let mut taken: HashSet<String> = graph.node.iter().flat_map(|node| node.input.iter().cloned()).collect();
    taken.extend(graph.output.iter().map(|value| value.name().to_owned()));
    graph.initializer.retain(|tensor| taken.contains(tensor.name()));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::onnx::onnx::{GraphProto, ModelProto, OperatorSetIdProto};

    /// `input` → conv, relu → conv, sigmoid, product → conv → `output`, two channels each.
    fn model(opset: i64) -> Model {
        let mut proto = ModelProto::new();
        let mut own = OperatorSetIdProto::new();
        own.set_version(opset);
        proto.opset_import.push(own);
        proto.graph = Some(GraphProto::new()).into();
        let mut model = Model::parse(&protobuf::Message::write_to_bytes(&proto).unwrap()).unwrap();
        let mut build = GraphBuilder::new(&mut model, "test");
        let mut conv = |name: &str, input: &str, output: &str| {
            let weights = build.float_tensor(&[2, 2, 1, 1], &[1.0, -0.5, 0.01, 0.002]);
            let bias = build.float_tensor(&[2], &[0.3, 100.0]);
            build.add_named_op("Conv", &[input, &weights, &bias], &[output], &[]);
            build.nodes.last_mut().unwrap().set_name(name.to_owned());
        };
        conv("first", "input", "a");
        conv("second", "b", "c");
        conv("third", "e", "output");
        build.add_named_op("Relu", &["a"], &["b"], &[]);
        build.add_named_op("Sigmoid", &["c"], &["d"], &[]);
        build.add_named_op("Mul", &["c", "d"], &["e"], &[]);
        let mut nodes = build.nodes;
        nodes.sort_by_key(|node| node.output[0].clone());
        nodes.sort_by_key(|node| node.output[0] == "output");
        model.graph_mut().node = nodes;
        model.graph_mut().output.push(crate::builder::make_value_info("output", DataType::FLOAT, Vec::new()));
        model
    }

    fn node_kinds(model: &Model) -> Vec<&str> {
        model.graph().node.iter().map(NodeProto::op_type).filter(|kind| !kind.ends_with("Linear")).collect()
    }

    fn ranges() -> HashMap<String, ValueRange> {
        ["input", "b", "c", "d", "e", "output"]
            .map(|name| (name.to_owned(), ValueRange { min: -1.0, max: 3.0 }))
            .into_iter()
            .collect()
    }

    fn count_nodes(model: &Model, kind: &str) -> usize {
        model.graph().node.iter().filter(|node| node.op_type() == kind).count()
    }

    #[test]
    fn layers_and_chains_are_quantized() {
        let model = model(13);
        let recipe = |scope, spared| QuantizeConfig { scope, skipped_layers: spared };
        let convolutions = recipe(QuantizeScope::Convolutions, 0);
        assert_eq!(values_to_calibrate(&model, convolutions).unwrap(), ["input", "b", "c", "e", "output"]);
        let written = quantize_model(&model, convolutions, &ranges()).unwrap();
        assert_eq!(
            node_kinds(&written),
            ["Conv", "Conv", "Sigmoid", "Mul", "Conv"],
            "saturation does what the Relu did"
        );
        assert_eq!(count_nodes(&written, "QuantizeLinear"), 5);
        // The others: weights and bias of three layers.
        assert_eq!(count_nodes(&written, "DequantizeLinear"), 5 + 6);
        let chains = quantize_model(&model, recipe(QuantizeScope::Chains, 0), &ranges()).unwrap();
        assert_eq!(count_nodes(&chains, "QuantizeLinear"), 6, "the sigmoid has a grid too");
        let spared = quantize_model(&model, recipe(QuantizeScope::Chains, 1), &ranges()).unwrap();
        assert_eq!(count_nodes(&spared, "QuantizeLinear"), 3, "{:?}", node_kinds(&spared));
        assert!(matches!(
            quantize_model(&model, recipe(QuantizeScope::Chains, 3), &ranges()),
            Err(GraphError::Unsuitable(_))
        ));
    }

    #[test]
    fn quantize_uses_per_tensor_scale_before_opset_13_and_fails_before_10() {
        let recipe = QuantizeConfig { scope: QuantizeScope::Convolutions, skipped_layers: 0 };
        let written = quantize_model(&model(11), recipe, &ranges()).unwrap();
        assert!(written.graph().node.iter().all(|node| find_attribute(node, "axis").is_none()));
        assert!(matches!(quantize_model(&model(9), recipe, &ranges()), Err(GraphError::Opset { has: 9, .. })));
    }

    #[test]
    fn large_bias_fits_32_bits() {
        let tensor = tensors::of_f32("w", &[2, 1], &[1.0, 1e-9]);
        let whole = IntegerLayer::of(&tensor, Some(&[0.5, 1000.0]), 0.01, 0, true).unwrap();
        assert_eq!(whole.weights, [64, 0]);
        let bias = whole.bias.unwrap();
        for (channel, wanted) in [0.5, 1000.0].into_iter().enumerate() {
            let got = bias[channel] as f32 * whole.scales[channel] * 0.01;
            assert!((got - wanted).abs() < wanted * 1e-2, "{got} {wanted}");
        }
    }

    proptest! {
        #[test]
        fn values_in_range_round_trip_and_zero_is_exact(
            a in -1e3f32..1e3, b in -1e3f32..1e3, part in 0f32..=1.0,
        ) {
            let range = ValueRange { min: a.min(b), max: a.max(b) };
            let (scale, zero) = range.scale_and_zero_point();
            let back = |number: f32| {
                let byte = (number / scale + f32::from(zero)).round_ties_even().clamp(0.0, 255.0);
                (byte - f32::from(zero)) * scale
            };
            prop_assert_eq!(back(0.0), 0.0);
            let number = range.min + (range.max - range.min) * part;
            // The zero point is rounded too: at the ends a value may be one step off.
            prop_assert!((back(number) - number).abs() <= scale * 1.01, "{} {}", back(number), number);
        }
    }
}
