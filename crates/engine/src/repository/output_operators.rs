//! Output operators: the operator that produces each output of a model, ignoring operators that only pass values on.

use std::collections::{BTreeMap, HashMap};

/// Maximum size of all names; larger graphs are not indexed. Large language models have some MiB.
const MAX_NAME_BYTES: usize = 32 << 20;
/// Memory of an entry beside its name.
const ENTRY_BYTES: usize = 64;
/// Outputs of a node that are recorded; operators that pass values on have one or two.
pub(super) const MAX_OUTPUTS: usize = 64;

/// Operators that pass their input on in another order, shape or type.
const PASS_THROUGH_OPERATORS: &[&str] = &[
    "Cast",
    "DequantizeLinear",
    "Dropout",
    "Flatten",
    "Identity",
    "QuantizeLinear",
    "Reshape",
    "Slice",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
];

/// A node of the main graph.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) operator: String,
    /// Its first input.
    pub(super) input: Option<String>,
    pub(super) outputs: Vec<String>,
}

/// Index of the main graph's nodes by their outputs.
#[derive(Debug, Default)]
pub(super) struct ProducerIndex {
    nodes: Vec<(String, Option<String>)>,
    by_output: HashMap<String, usize>,
    outputs: Vec<String>,
    bytes: usize,
}

impl ProducerIndex {
    pub(super) fn add_node(&mut self, node: Node) {
        let names = node.outputs.iter().chain(&node.input).chain([&node.operator]);
        if self.has_room(names.map(|name| name.len() + ENTRY_BYTES).sum()) {
            let place = self.nodes.len();
            self.by_output.extend(node.outputs.into_iter().map(|output| (output, place)));
            self.nodes.push((node.operator, node.input));
        }
    }

    pub(super) fn add_output(&mut self, name: String) {
        if self.has_room(name.len() + ENTRY_BYTES) {
            self.outputs.push(name);
        }
    }

    fn has_room(&mut self, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        self.bytes <= MAX_NAME_BYTES
    }

    /// The operator that produces each output of the graph, if known.
    pub(super) fn last_operators(self) -> BTreeMap<String, String> {
        if self.bytes > MAX_NAME_BYTES {
            return BTreeMap::new();
        }
        let last = |output: &String| Some((output.clone(), self.producing_operator(output)?.to_owned()));
        self.outputs.iter().filter_map(last).collect()
    }

    fn producing_operator(&self, output: &str) -> Option<&str> {
        let mut name = output;
        // A graph has no cycles, but a file may.
        for _ in 0..=self.nodes.len() {
            let (operator, input) = &self.nodes[*self.by_output.get(name)?];
            match PASS_THROUGH_OPERATORS.contains(&operator.as_str()) {
                true => name = input.as_deref()?,
                false => return Some(operator),
            }
        }
        None
    }
}
