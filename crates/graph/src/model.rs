//! A model: read, looked at, written.

use std::collections::HashSet;

use protobuf::Message;

use crate::{
    GraphError,
    onnx::onnx::{
        GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, ValueInfoProto,
        tensor_proto::DataLocation,
    },
};

/// What one protobuf message may measure.
const MOST_BYTES: u64 = i32::MAX as u64;

/// An ONNX model.
#[derive(Debug, Clone)]
pub struct Model {
    pub(crate) proto: ModelProto,
    /// Names that values and nodes have.
    names: HashSet<String>,
}

impl Model {
    /// Reads the model in `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, GraphError> {
        let proto = ModelProto::parse_from_bytes(bytes).map_err(|error| GraphError::Malformed(error.to_string()))?;
        if proto.graph.is_none() {
            return Err(GraphError::Malformed("it holds no graph".to_owned()));
        }
        let elsewhere = |tensor: &&TensorProto| tensor.data_location() == DataLocation::EXTERNAL;
        if let Some(tensor) = tensors(&proto.graph).find(elsewhere) {
            let location = tensor.external_data.iter().find(|entry| entry.key() == "location");
            return Err(GraphError::ExternalData(location.map_or("unnamed", |entry| entry.value()).to_owned()));
        }
        let names = names(&proto.graph).map(str::to_owned).collect();
        Ok(Self { proto, names })
    }

    /// The model as a file's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, GraphError> {
        if self.proto.compute_size() > MOST_BYTES {
            return Err(GraphError::TooLarge);
        }
        self.proto.write_to_bytes().map_err(|error| GraphError::Malformed(error.to_string()))
    }

    /// The version of ONNX's own operators that it uses.
    pub fn opset(&self) -> i64 {
        let own = |opset: &&OperatorSetIdProto| matches!(opset.domain(), "" | "ai.onnx");
        self.proto.opset_import.iter().find(own).map_or(1, OperatorSetIdProto::version)
    }

    /// What is noted under `key` beside the graph.
    pub fn note(&self, key: &str) -> Option<&str> {
        self.proto.metadata_props.iter().find(|entry| entry.key() == key).map(StringStringEntryProto::value)
    }

    /// Notes `value` under `key`.
    pub fn set_note(&mut self, key: &str, value: &str) {
        let notes = &mut self.proto.metadata_props;
        notes.retain(|entry| entry.key() != key);
        let mut entry = StringStringEntryProto::new();
        entry.set_key(key.to_owned());
        entry.set_value(value.to_owned());
        notes.push(entry);
    }

    /// The same model, which gives the values `names` too.
    pub fn reveal(&self, names: &[String]) -> Self {
        let mut revealed = self.clone();
        let outputs = &mut revealed.graph_mut().output;
        let hidden = names.iter().filter(|name| !self.graph().output.iter().any(|output| output.name() == *name));
        // Types follow from the graph.
        outputs.extend(hidden.map(|name| {
            let mut value = ValueInfoProto::new();
            value.set_name(name.clone());
            value
        }));
        revealed
    }

    pub(crate) fn graph(&self) -> &GraphProto {
        &self.proto.graph
    }

    pub(crate) fn graph_mut(&mut self) -> &mut GraphProto {
        self.proto.graph.mut_or_insert_default()
    }

    /// Checks that the model's operators are those of `needs` or later.
    pub(crate) fn needs_opset(&self, needs: i64, what: &'static str) -> Result<(), GraphError> {
        let has = self.opset();
        if has < needs { Err(GraphError::Opset { has, needs, what }) } else { Ok(()) }
    }

    /// A name that nothing has yet, `wish` if that is free.
    pub(crate) fn fresh(&mut self, wish: &str) -> String {
        let numbered = (1..).map(|i| if i == 1 { wish.to_owned() } else { format!("{wish}_{i}") });
        let name = numbered.into_iter().find(|name| !self.names.contains(name)).unwrap_or_default();
        self.names.insert(name.clone());
        name
    }
}

/// All names within `graph`, those in the graphs of its control flow too.
fn names(graph: &GraphProto) -> Box<dyn Iterator<Item = &str> + '_> {
    let values = [&graph.input, &graph.output, &graph.value_info].into_iter().flatten().map(ValueInfoProto::name);
    let nodes = graph.node.iter().flat_map(|node| {
        let inner = node.attribute.iter().flat_map(|attribute| attribute.graphs.iter().chain(attribute.g.as_ref()));
        let own = node.input.iter().chain(&node.output).map(String::as_str).chain([node.name()]);
        own.chain(inner.flat_map(names))
    });
    Box::new(values.chain(graph.initializer.iter().map(TensorProto::name)).chain(nodes))
}

/// All tensors within `graph`.
fn tensors(graph: &GraphProto) -> Box<dyn Iterator<Item = &TensorProto> + '_> {
    let sparse = graph.sparse_initializer.iter().flat_map(|tensor| tensor.values.iter().chain(tensor.indices.iter()));
    let attributes = graph.node.iter().flat_map(|node| &node.attribute);
    let within = attributes.flat_map(|attribute| {
        let graphs = attribute.graphs.iter().chain(attribute.g.as_ref());
        attribute.tensors.iter().chain(attribute.t.as_ref()).chain(graphs.flat_map(tensors))
    });
    Box::new(graph.initializer.iter().chain(sparse).chain(within))
}
