//! Who makes and who takes each value of a graph, and which of them are the numbers that convolutions work on.

use std::collections::{HashMap, HashSet};

use crate::onnx::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto};

/// A graph seen by its values.
pub(crate) struct Flow<'a> {
    pub(crate) graph: &'a GraphProto,
    pub(crate) constants: HashMap<&'a str, &'a TensorProto>,
    outputs: HashSet<&'a str>,
    makers: HashMap<&'a str, usize>,
    takers: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Flow<'a> {
    pub(crate) fn of(graph: &'a GraphProto) -> Self {
        let constants = graph.initializer.iter().map(|tensor| (tensor.name(), tensor)).collect();
        let (mut makers, mut takers) = (HashMap::new(), HashMap::<_, Vec<_>>::new());
        for (place, node) in graph.node.iter().enumerate() {
            makers.extend(node.output.iter().map(|name| (name.as_str(), place)));
            node.input.iter().for_each(|name| takers.entry(name.as_str()).or_default().push(place));
        }
        Self { graph, constants, outputs: graph.output.iter().map(ValueInfoProto::name).collect(), makers, takers }
    }

    /// The place of the node that makes `name`.
    pub(crate) fn maker(&self, name: &str) -> Option<usize> {
        self.makers.get(name).copied()
    }

    /// The places of the nodes that take `name`.
    pub(crate) fn takers(&self, name: &str) -> &[usize] {
        self.takers.get(name).map_or(&[], Vec::as_slice)
    }

    /// The only node that takes `name`, where the graph does not give it away too.
    pub(crate) fn only_taker(&self, name: &str) -> Option<(usize, &'a NodeProto)> {
        match self.takers(name) {
            [place] if !self.outputs.contains(name) => Some((*place, &self.graph.node[*place])),
            _ => None,
        }
    }

    /// For each node the most layers with weights on a way from it to an output, its own among them.
    pub(crate) fn layers_left(&self) -> Vec<usize> {
        let mut left = vec![0; self.graph.node.len()];
        for (place, node) in self.graph.node.iter().enumerate().rev() {
            let after = node.output.iter().flat_map(|name| self.takers(name)).map(|taker| left[*taker]).max();
            left[place] = after.unwrap_or(0) + usize::from(has_weights(node));
        }
        left
    }
}

/// Whether `node` is a layer with weights.
fn has_weights(node: &NodeProto) -> bool {
    matches!(node.op_type(), "Conv" | "ConvTranspose" | "Gemm" | "MatMul")
}

/// The attribute `name` of `node`.
pub(crate) fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name() == name)
}

/// The whole number that attribute `name` of `node` holds.
pub(crate) fn int(node: &NodeProto, name: &str) -> Option<i64> {
    attribute(node, name).map(AttributeProto::i)
}
