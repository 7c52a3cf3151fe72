//! Computing in 8 bits: `QuantizeLinear` and `DequantizeLinear` are put around layers, and whoever runs the model replaces
//! the three by an integer kernel. Activations are unsigned and asymmetric, weights signed, symmetric and per channel,
//! biases 32 bits. (Jacob et al., "Quantization and Training of Neural Networks", 2018; ONNX Runtime's QDQ format.)
//!
//! Weights take 7 bits: where a processor has no VNNI, two products of 8 by 8 bits do not fit the 16 bits in which they
//! are added, and saturate.

use std::collections::{HashMap, HashSet};

use crate::{
    GraphError, Model,
    build::{Builder, Value},
    flow::{Flow, attribute, int},
    onnx::onnx::{AttributeProto, NodeProto, TensorProto, tensor_proto::DataType},
    weights,
};

/// Largest weight: 7 bits.
const MOST: f32 = 64.0;

/// Which layers compute in 8 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Recipe {
    /// What computes in 8 bits.
    pub scope: Scope,
    /// Layers with weights that stay as they are, counted back from the outputs on every way: the last say where and how
    /// sure, and feel every rounding.
    pub spared: usize,
}

/// What computes in 8 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Convolutions.
    Convolutions,
    /// Convolutions, products with constant matrices, and what lies between them and need not leave the 8 bits.
    Chains,
}

/// The least and the most that a value was seen to be.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub struct Range {
    pub min: f32,
    pub max: f32,
}

impl Range {
    /// Scale and zero point with which its numbers are bytes. Zero is one of them: padding is exact.
    pub fn grid(self) -> (f32, u8) {
        let (min, max) = (self.min.min(0.0), self.max.max(0.0));
        let scale = (max - min) / 255.0;
        if !scale.is_normal() {
            return (1.0, 0);
        }
        (scale, (-min / scale).round_ties_even().clamp(0.0, 255.0) as u8)
    }
}

/// The values of `model` whose ranges [`quantize`] wants to know.
pub fn observed(model: &Model, recipe: Recipe) -> Result<Vec<String>, GraphError> {
    let plan = Plan::of(model, recipe)?;
    let mut seen = HashSet::new();
    let wanted = plan.wanted.into_iter().filter(|name| seen.insert(*name));
    Ok(wanted.map(str::to_owned).collect())
}

/// `model` with what `recipe` names computed in 8 bits; `ranges` are those of the values that [`observed`] names.
pub fn quantize(model: &Model, recipe: Recipe, ranges: &HashMap<String, Range>) -> Result<Model, GraphError> {
    let plan = Plan::of(model, recipe)?;
    let mut quantised = model.clone();
    quantised.graph_mut().node.clear();
    let mut write = Writer {
        plan: &plan,
        ranges,
        build: Builder::new(&mut quantised, "int8"),
        grids: HashMap::new(),
        near: HashMap::new(),
    };
    for (place, node) in plan.flow.graph.node.iter().enumerate() {
        write.node(place, node)?;
    }
    let nodes = write.build.nodes;
    quantised.graph_mut().node = nodes;
    drop_unused_constants(&mut quantised);
    Ok(quantised)
}

/// What a node does to the grid on which its numbers lie.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Role {
    /// Has weights, per channel along this axis of theirs; its outputs have a grid of their own.
    Layer(usize),
    /// Makes numbers of its own.
    Mixes,
    /// Hands on those of its first input, on whose grid they stay.
    Keeps,
}

struct Plan<'a> {
    flow: Flow<'a>,
    per_channel: bool,
    roles: HashMap<usize, Role>,
    /// Activations that the saturation of the node before does by itself.
    dropped: HashSet<usize>,
    /// What each node with a role gives, beyond an activation that was dropped.
    gives: HashMap<usize, Vec<&'a str>>,
    /// Values on the grid of another.
    same_grid: HashMap<&'a str, &'a str>,
    /// Values whose ranges are needed.
    wanted: Vec<&'a str>,
}

impl<'a> Plan<'a> {
    fn of(model: &'a Model, recipe: Recipe) -> Result<Self, GraphError> {
        model.needs_opset(10, "computing in 8 bits")?;
        let per_channel = model.opset() >= 13;
        let flow = Flow::of(model.graph());
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
            let wide = recipe.scope == Scope::Chains;
            let role = plan
                .role(node, wide, &on_grid)
                .filter(|_| left[place] > recipe.spared && !plan.dropped.contains(&place));
            if let Some(role) = role {
                plan.take(place, node, role, &mut on_grid);
            }
        }
        if !plan.roles.values().any(|role| matches!(role, Role::Layer(_))) {
            return Err(GraphError::Unsuitable("it has no layer to be computed in 8 bits".to_owned()));
        }
        Ok(plan)
    }

    fn role(&self, node: &NodeProto, wide: bool, on_grid: &HashSet<&str>) -> Option<Role> {
        if !node.domain().is_empty() {
            return None;
        }
        let stays = || node.input.first().is_some_and(|name| on_grid.contains(name.as_str()));
        let all_on_grid = || node.input.iter().all(|name| on_grid.contains(name.as_str()));
        match node.op_type() {
            "Conv" => self.has_weights(node).then_some(Role::Layer(0)),
            "MatMul" if wide => {
                (self.has_weights(node) && self.weights(node)?.dims.len() == 2).then_some(Role::Layer(1))
            }
            "Gemm" if wide => {
                let plain = |name: &str| attribute(node, name).is_none_or(|factor| factor.f() == 1.0);
                let plain = plain("alpha") && plain("beta") && int(node, "transA").unwrap_or(0) == 0;
                let axis = usize::from(int(node, "transB").unwrap_or(0) == 0);
                (plain && self.has_weights(node)).then_some(Role::Layer(axis))
            }
            "Add" | "Mul" | "Concat" | "Sigmoid" | "LeakyRelu" | "AveragePool" | "GlobalAveragePool" if wide => {
                all_on_grid().then_some(Role::Mixes)
            }
            "MaxPool" if wide => (stays() && node.output.len() == 1).then_some(Role::Keeps),
            "Resize" if wide => {
                let nearest = attribute(node, "mode").is_none_or(|mode| mode.s() == b"nearest");
                (stays() && nearest).then_some(Role::Keeps)
            }
            "Split" | "Transpose" | "Reshape" | "Squeeze" | "Unsqueeze" if wide => stays().then_some(Role::Keeps),
            _ => None,
        }
    }

    fn weights(&self, node: &NodeProto) -> Option<&'a TensorProto> {
        self.flow.constants.get(node.input.get(1)?.as_str()).copied()
    }

    /// Whether the weights of `node`, and its bias if it has one, are known floats and its input is none.
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

    fn take(&mut self, place: usize, node: &'a NodeProto, role: Role, on_grid: &mut HashSet<&'a str>) {
        let mut gives: Vec<&str> = node.output.iter().map(String::as_str).collect();
        if role == Role::Keeps {
            let root = self.root(&node.input[0]);
            self.same_grid.extend(gives.iter().map(|name| (*name, root)));
        } else {
            if let Role::Layer(_) = role
                && !on_grid.contains(node.input[0].as_str())
            {
                self.wanted.push(&node.input[0]);
            }
            if let Some((after, activation)) = self.saturates(node, role) {
                self.dropped.insert(after);
                gives = vec![&activation.output[0]];
            }
            self.wanted.extend(&gives);
        }
        on_grid.extend(&gives);
        self.gives.insert(place, gives);
        self.roles.insert(place, role);
    }

    /// The activation behind `node` that cuts off at zero, and above at most at a constant: bytes from 0 to 255 do so too.
    fn saturates(&self, node: &NodeProto, role: Role) -> Option<(usize, &'a NodeProto)> {
        let can = matches!(role, Role::Layer(_)) || node.op_type() == "Add";
        let (place, after) = self.flow.only_taker(node.output.first()?).filter(|_| can)?;
        let constant = |index: usize| {
            weights::floats(self.flow.constants.get(after.input.get(index)?.as_str())?)?.first().copied()
        };
        let from_zero = match after.op_type() {
            "Relu" => true,
            "Clip" => {
                let low = attribute(after, "min").map(AttributeProto::f).or_else(|| constant(1));
                let high = after.input.get(2).is_none_or(|name| name.is_empty() || constant(2).is_some());
                low == Some(0.0) && high
            }
            _ => false,
        };
        from_zero.then_some((place, after))
    }

    /// The value whose grid `name` lies on.
    fn root<'b>(&self, name: &'b str) -> &'b str
    where
        'a: 'b,
    {
        self.same_grid.get(name).copied().unwrap_or(name)
    }
}

/// A grid: its scale, and the names of its scale and zero point.
#[derive(Clone)]
struct Grid {
    scale: f32,
    names: [String; 2],
}

struct Writer<'a> {
    plan: &'a Plan<'a>,
    ranges: &'a HashMap<String, Range>,
    build: Builder<'a>,
    /// Grids of values.
    grids: HashMap<String, Grid>,
    /// Values that nothing in 8 bits has made, and what they are on their grids.
    near: HashMap<String, String>,
}

impl Writer<'_> {
    fn node(&mut self, place: usize, node: &NodeProto) -> Result<(), GraphError> {
        let plan = self.plan;
        if plan.dropped.contains(&place) {
            return Ok(());
        }
        let mut node = node.clone();
        let Some(role) = plan.roles.get(&place) else {
            self.build.nodes.push(node);
            return Ok(());
        };
        if let Role::Layer(axis) = *role {
            self.layer(&mut node, axis)?;
        }
        let gives = &plan.gives[&place];
        node.output = gives.iter().map(|name| self.build.name(&format!("{name}/float"))).collect();
        let floats = node.output.clone();
        self.build.nodes.push(node);
        for (name, floats) in gives.iter().zip(&floats) {
            self.onto_grid(name, floats, name)?;
        }
        Ok(())
    }

    /// Brings the value `floats` to the grid of `of`, and calls it `name` there.
    fn onto_grid(&mut self, of: &str, floats: &str, name: &str) -> Result<(), GraphError> {
        let [scale, zero] = self.grid(of)?.names;
        let bytes = self.build.op("QuantizeLinear", &[floats, &scale, &zero], &[]);
        self.build.named("DequantizeLinear", &[&bytes, &scale, &zero], &[name], &[]);
        Ok(())
    }

    fn grid(&mut self, name: &str) -> Result<Grid, GraphError> {
        let root = self.plan.root(name);
        if let Some(grid) = self.grids.get(root) {
            return Ok(grid.clone());
        }
        let range =
            self.ranges.get(root).ok_or_else(|| GraphError::Unsuitable(format!("nobody saw the value {root:?}")))?;
        let (scale, zero) = range.grid();
        let names = [self.build.float(scale), self.build.constant(|name| weights::of_u8(name, &[], &[zero]))];
        let grid = Grid { scale, names };
        self.grids.insert(root.to_owned(), grid.clone());
        Ok(grid)
    }

    /// Puts input, weights and bias of a layer on their grids.
    fn layer(&mut self, node: &mut NodeProto, axis: usize) -> Result<(), GraphError> {
        let input = node.input[0].clone();
        let step = self.grid(&input)?.scale;
        let made_on_grid = self.plan.flow.maker(&input).is_some_and(|maker| self.is_on_grid(maker, &input));
        if !made_on_grid {
            node.input[0] = match self.near.get(&input) {
                Some(near) => near.clone(),
                None => {
                    let near = self.build.name(&format!("{input}/near"));
                    self.onto_grid(&input, &input, &near)?;
                    self.near.insert(input, near.clone());
                    near
                }
            };
        }
        let constant =
            |index: usize| node.input.get(index).and_then(|name| self.plan.flow.constants.get(name.as_str()));
        let (Some(weights), bias) = (constant(1).copied(), constant(2).copied()) else { return Ok(()) };
        let bias = bias.and_then(weights::floats);
        let Some(whole) = Whole::of(weights, bias.as_deref(), step, axis, self.plan.per_channel) else { return Ok(()) };
        let dims: Vec<usize> = weights.dims.iter().map(|length| *length as usize).collect();
        let axis_attribute: &[(&str, Value<'_>)] =
            if whole.scales.len() > 1 { &[("axis", Value::Int(axis as i64))] } else { &[] };
        let channels: &[usize] = if whole.scales.len() > 1 { &[whole.scales.len()] } else { &[] };

        let build = &mut self.build;
        let numbers = build.constant(|name| weights::of_i8(name, &dims, &whole.weights));
        let scales = build.floats(channels, &whole.scales);
        let zeros = build.constant(|name| weights::of_i8(name, channels, &vec![0; whole.scales.len()]));
        node.input[1] = build.op("DequantizeLinear", &[&numbers, &scales, &zeros], axis_attribute);
        if let Some(bias) = &whole.bias {
            let steps: Vec<f32> = whole.scales.iter().map(|scale| scale * step).collect();
            let numbers = build.constant(|name| weights::of_i32(name, &[bias.len()], bias));
            let steps = build.floats(channels, &steps);
            let zeros = build.constant(|name| weights::of_i32(name, channels, &vec![0; whole.scales.len()]));
            let axis: &[(&str, Value<'_>)] = if whole.scales.len() > 1 { &[("axis", Value::Int(0))] } else { &[] };
            node.input[2] = build.op("DequantizeLinear", &[&numbers, &steps, &zeros], axis);
        }
        Ok(())
    }

    /// Whether `name` is what node `maker`, or an activation dropped behind it, gives on a grid.
    fn is_on_grid(&self, maker: usize, name: &str) -> bool {
        self.plan.dropped.contains(&maker) || self.plan.gives.get(&maker).is_some_and(|gives| gives.contains(&name))
    }
}

/// Weights and bias as whole numbers.
struct Whole {
    weights: Vec<i8>,
    /// One for each channel, or one for all.
    scales: Vec<f32>,
    bias: Option<Vec<i32>>,
}

impl Whole {
    /// `step` is the scale of what the weights are multiplied with.
    fn of(tensor: &TensorProto, bias: Option<&[f32]>, step: f32, axis: usize, per_channel: bool) -> Option<Self> {
        let values = weights::floats(tensor)?;
        let channels = if per_channel { *tensor.dims.get(axis)? as usize } else { 1 };
        // How many values in a row belong to one channel.
        let run: usize = if per_channel {
            tensor.dims[axis + 1..].iter().map(|length| *length as usize).product()
        } else {
            values.len()
        };
        let channel = |index: usize| index / run.max(1) % channels;
        let mut scales = vec![0f32; channels];
        for (index, value) in values.iter().enumerate() {
            let scale = &mut scales[channel(index)];
            *scale = scale.max(value.abs() / MOST);
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

/// Drops constants that no node takes any more.
pub(crate) fn drop_unused_constants(model: &mut Model) {
    let graph = model.graph_mut();
    let inner = graph
        .node
        .iter()
        .any(|node| node.attribute.iter().any(|attribute| attribute.g.is_some() || !attribute.graphs.is_empty()));
    if inner {
        // A graph within may take any of them.
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
        let mut build = Builder::new(&mut model, "test");
        let mut conv = |name: &str, input: &str, output: &str| {
            let weights = build.floats(&[2, 2, 1, 1], &[1.0, -0.5, 0.01, 0.002]);
            let bias = build.floats(&[2], &[0.3, 100.0]);
            build.named("Conv", &[input, &weights, &bias], &[output], &[]);
            build.nodes.last_mut().unwrap().set_name(name.to_owned());
        };
        conv("first", "input", "a");
        conv("second", "b", "c");
        conv("third", "e", "output");
        build.named("Relu", &["a"], &["b"], &[]);
        build.named("Sigmoid", &["c"], &["d"], &[]);
        build.named("Mul", &["c", "d"], &["e"], &[]);
        let mut nodes = build.nodes;
        nodes.sort_by_key(|node| node.output[0].clone());
        nodes.sort_by_key(|node| node.output[0] == "output");
        model.graph_mut().node = nodes;
        model.graph_mut().output.push(crate::build::value("output", DataType::FLOAT, Vec::new()));
        model
    }

    fn kinds(model: &Model) -> Vec<&str> {
        model.graph().node.iter().map(NodeProto::op_type).filter(|kind| !kind.ends_with("Linear")).collect()
    }

    fn ranges() -> HashMap<String, Range> {
        ["input", "b", "c", "d", "e", "output"]
            .map(|name| (name.to_owned(), Range { min: -1.0, max: 3.0 }))
            .into_iter()
            .collect()
    }

    fn linear(model: &Model, kind: &str) -> usize {
        model.graph().node.iter().filter(|node| node.op_type() == kind).count()
    }

    #[test]
    fn layers_and_what_lies_between_them_are_put_on_grids() {
        let model = model(13);
        let recipe = |scope, spared| Recipe { scope, spared };
        let convolutions = recipe(Scope::Convolutions, 0);
        assert_eq!(observed(&model, convolutions).unwrap(), ["input", "b", "c", "e", "output"]);
        let written = quantize(&model, convolutions, &ranges()).unwrap();
        assert_eq!(kinds(&written), ["Conv", "Conv", "Sigmoid", "Mul", "Conv"], "saturation does what the Relu did");
        assert_eq!(linear(&written, "QuantizeLinear"), 5);
        // Beside these: weights and bias of three layers.
        assert_eq!(linear(&written, "DequantizeLinear"), 5 + 6);
        let chains = quantize(&model, recipe(Scope::Chains, 0), &ranges()).unwrap();
        assert_eq!(linear(&chains, "QuantizeLinear"), 6, "the sigmoid has a grid too");
        let spared = quantize(&model, recipe(Scope::Chains, 1), &ranges()).unwrap();
        assert_eq!(linear(&spared, "QuantizeLinear"), 3, "{:?}", kinds(&spared));
        assert!(matches!(quantize(&model, recipe(Scope::Chains, 3), &ranges()), Err(GraphError::Unsuitable(_))));
    }

    #[test]
    fn before_opset_13_weights_share_a_scale_and_before_10_there_is_none() {
        let recipe = Recipe { scope: Scope::Convolutions, spared: 0 };
        let written = quantize(&model(11), recipe, &ranges()).unwrap();
        assert!(written.graph().node.iter().all(|node| attribute(node, "axis").is_none()));
        assert!(matches!(quantize(&model(9), recipe, &ranges()), Err(GraphError::Opset { has: 9, .. })));
    }

    #[test]
    fn a_bias_far_above_its_weights_fits_32_bits() {
        let tensor = weights::of_f32("w", &[2, 1], &[1.0, 1e-9]);
        let whole = Whole::of(&tensor, Some(&[0.5, 1000.0]), 0.01, 0, true).unwrap();
        assert_eq!(whole.weights, [64, 0]);
        let bias = whole.bias.unwrap();
        for (channel, wanted) in [0.5, 1000.0].into_iter().enumerate() {
            let got = bias[channel] as f32 * whole.scales[channel] * 0.01;
            assert!((got - wanted).abs() < wanted * 1e-2, "{got} {wanted}");
        }
    }

    proptest! {
        #[test]
        fn numbers_in_range_are_half_a_step_from_a_byte_and_zero_is_one(
            a in -1e3f32..1e3, b in -1e3f32..1e3, part in 0f32..=1.0,
        ) {
            let range = Range { min: a.min(b), max: a.max(b) };
            let (scale, zero) = range.grid();
            let back = |number: f32| {
                let byte = (number / scale + f32::from(zero)).round_ties_even().clamp(0.0, 255.0);
                (byte - f32::from(zero)) * scale
            };
            prop_assert_eq!(back(0.0), 0.0);
            let number = range.min + (range.max - range.min) * part;
            // The zero point is rounded too: at the ends a number may be one step off.
            prop_assert!((back(number) - number).abs() <= scale * 1.01, "{} {}", back(number), number);
        }
    }
}
