//! Which operator makes each output of a model, seen through operators that only hand numbers on.

use std::collections::{BTreeMap, HashMap};

/// Most bytes that names of values may take; graphs with more are not followed. Large language models have some MiB.
const MAX_BYTES: usize = 32 << 20;
/// What an entry takes beside its name.
const ENTRY_BYTES: usize = 64;
/// Outputs of a node that are looked at: what hands numbers on has one or two.
pub(super) const MAX_OUTPUTS: usize = 64;

/// Operators that give the numbers they take, in another order, shape or type.
const HAND_ON: &[&str] = &[
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
    /// What it takes first.
    pub(super) input: Option<String>,
    pub(super) outputs: Vec<String>,
}

/// The nodes of the main graph by what they make, as they are read.
#[derive(Debug, Default)]
pub(super) struct Makers {
    nodes: Vec<(String, Option<String>)>,
    by_output: HashMap<String, usize>,
    outputs: Vec<String>,
    bytes: usize,
}

impl Makers {
    pub(super) fn add(&mut self, node: Node) {
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
        self.bytes <= MAX_BYTES
    }

    /// The operator that makes each output of the graph, where it is known.
    pub(super) fn last_operators(self) -> BTreeMap<String, String> {
        if self.bytes > MAX_BYTES {
            return BTreeMap::new();
        }
        let last = |output: &String| Some((output.clone(), self.behind(output)?.to_owned()));
        self.outputs.iter().filter_map(last).collect()
    }

    fn behind(&self, output: &str) -> Option<&str> {
        let mut name = output;
        // A graph has no circles; a file may.
        for _ in 0..=self.nodes.len() {
            let (operator, input) = &self.nodes[*self.by_output.get(name)?];
            match HAND_ON.contains(&operator.as_str()) {
                true => name = input.as_deref()?,
                false => return Some(operator),
            }
        }
        None
    }
}
