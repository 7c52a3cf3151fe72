//! Data flow: producer and consumers of each value of a graph, and distances to its outputs.

use std::collections::{HashMap, HashSet};

use crate::onnx::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto};

/// A graph indexed by its values.
pub(crate) struct DataFlow<'a> {
    pub(crate) graph: &'a GraphProto,
    pub(crate) constants: HashMap<&'a str, &'a TensorProto>,
    outputs: HashSet<&'a str>,
    makers: HashMap<&'a str, usize>,
    takers: HashMap<&'a str, Vec<usize>>,
}

impl<'a> DataFlow<'a> {
    pub(crate) fn from_graph(graph: &'a GraphProto) -> Self {
        let constants = graph.initializer.iter().map(|tensor| (tensor.name(), tensor)).collect();
        let (mut makers, mut takers) = (HashMap::new(), HashMap::<_, Vec<_>>::new());
        for (place, node) in graph.node.iter().enumerate() {
            makers.extend(node.output.iter().map(|name| (name.as_str(), place)));
            node.input.iter().for_each(|name| takers.entry(name.as_str()).or_default().push(place));
        }
        Self { graph, constants, outputs: graph.output.iter().map(ValueInfoProto::name).collect(), makers, takers }
    }

    /// The index of the node that produces `name`.
    pub(crate) fn producer_of(&self, name: &str) -> Option<usize> {
        self.makers.get(name).copied()
    }

    /// The indices of the nodes that consume `name`.
    pub(crate) fn consumers_of(&self, name: &str) -> &[usize] {
        self.takers.get(name).map_or(&[], Vec::as_slice)
    }

    /// The only node that consumes `name`, unless the value is also an output of the graph.
    pub(crate) fn only_consumer_of(&self, name: &str) -> Option<(usize, &'a NodeProto)> {
        match self.consumers_of(name) {
            [place] if !self.outputs.contains(name) => Some((*place, &self.graph.node[*place])),
            _ => None,
        }
    }

    /// For each node the maximum number of layers with weights on a path from it to an output, itself included.
    pub(crate) fn layers_left(&self) -> Vec<usize> {
        let mut left = vec![0; self.graph.node.len()];
        for (place, node) in self.graph.node.iter().enumerate().rev() {
            let after = node.output.iter().flat_map(|name| self.consumers_of(name)).map(|taker| left[*taker]).max();
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
pub(crate) fn find_attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name() == name)
}

/// The integer value of attribute `name` of `node`.
pub(crate) fn int_attribute(node: &NodeProto, name: &str) -> Option<i64> {
    find_attribute(node, name).map(AttributeProto::i)
}
