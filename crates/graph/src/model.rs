//! ONNX model: reading, inspection, writing.

use std::collections::HashSet;

use protobuf::Message;

use crate::{
    GraphError,
    onnx::onnx::{
        GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, ValueInfoProto,
        tensor_proto::DataLocation,
    },
};

/// Maximum size of one protobuf message.
const MAX_MODEL_BYTES: u64 = i32::MAX as u64;

/// An ONNX model.
#[derive(Debug, Clone)]
pub struct Model {
    pub(crate) proto: ModelProto,
    /// Names of values and nodes.
    names: HashSet<String>,
}

impl Model {
    /// Parses the model in `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, GraphError> {
        let proto = ModelProto::parse_from_bytes(bytes).map_err(|error| GraphError::Malformed(error.to_string()))?;
        if proto.graph.is_none() {
            return Err(GraphError::Malformed("it holds no graph".to_owned()));
        }
        let elsewhere = |tensor: &&TensorProto| tensor.data_location() == DataLocation::EXTERNAL;
        if let Some(tensor) = all_tensors(&proto.graph).find(elsewhere) {
            let location = tensor.external_data.iter().find(|entry| entry.key() == "location");
            return Err(GraphError::ExternalData(location.map_or("unnamed", |entry| entry.value()).to_owned()));
        }
        let names = value_names(&proto.graph).map(str::to_owned).collect();
        Ok(Self { proto, names })
    }

    /// Serializes the model.
    pub fn to_bytes(&self) -> Result<Vec<u8>, GraphError> {
        if self.proto.compute_size() > MAX_MODEL_BYTES {
            return Err(GraphError::TooLarge);
        }
        self.proto.write_to_bytes().map_err(|error| GraphError::Malformed(error.to_string()))
    }

    /// The version of ONNX's standard operators that it uses.
    pub fn opset(&self) -> i64 {
        let own = |opset: &&OperatorSetIdProto| matches!(opset.domain(), "" | "ai.onnx");
        self.proto.opset_import.iter().find(own).map_or(1, OperatorSetIdProto::version)
    }

    /// The metadata property `key`.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.proto.metadata_props.iter().find(|entry| entry.key() == key).map(StringStringEntryProto::value)
    }

    /// Sets the metadata property `key`.
    pub fn set_metadata(&mut self, key: &str, value: &str) {
        let notes = &mut self.proto.metadata_props;
        notes.retain(|entry| entry.key() != key);
        let mut entry = StringStringEntryProto::new();
        entry.set_key(key.to_owned());
        entry.set_value(value.to_owned());
        notes.push(entry);
    }

    /// A copy of the model with the values `names` as additional outputs.
    pub fn with_extra_outputs(&self, names: &[String]) -> Self {
        let mut revealed = self.clone();
        let outputs = &mut revealed.graph_mut().output;
        let hidden = names.iter().filter(|name| !self.graph().output.iter().any(|output| output.name() == *name));
        // Their types are inferred from the graph.
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

    /// Checks that the model's opset is at least `needs`.
    pub(crate) fn require_opset(&self, needs: i64, what: &'static str) -> Result<(), GraphError> {
        let has = self.opset();
        if has < needs { Err(GraphError::Opset { has, needs, what }) } else { Ok(()) }
    }

    /// A name that is not used yet: `wish` if possible.
    pub(crate) fn unused_name(&mut self, wish: &str) -> String {
        let numbered = (1..).map(|i| if i == 1 { wish.to_owned() } else { format!("{wish}_{i}") });
        let name = numbered.into_iter().find(|name| !self.names.contains(name)).unwrap_or_default();
        self.names.insert(name.clone());
        name
    }
}

/// All names in `graph` and in its subgraphs.
fn value_names(graph: &GraphProto) -> Box<dyn Iterator<Item = &str> + '_> {
    let values = [&graph.input, &graph.output, &graph.value_info].into_iter().flatten().map(ValueInfoProto::name);
    let nodes = graph.node.iter().flat_map(|node| {
        let inner = node.attribute.iter().flat_map(|attribute| attribute.graphs.iter().chain(attribute.g.as_ref()));
        let own = node.input.iter().chain(&node.output).map(String::as_str).chain([node.name()]);
        own.chain(inner.flat_map(value_names))
    });
    Box::new(values.chain(graph.initializer.iter().map(TensorProto::name)).chain(nodes))
}

/// All tensors in `graph` and in its subgraphs.
fn all_tensors(graph: &GraphProto) -> Box<dyn Iterator<Item = &TensorProto> + '_> {
    let sparse = graph.sparse_initializer.iter().flat_map(|tensor| tensor.values.iter().chain(tensor.indices.iter()));
    let attributes = graph.node.iter().flat_map(|node| &node.attribute);
    let within = attributes.flat_map(|attribute| {
        let graphs = attribute.graphs.iter().chain(attribute.g.as_ref());
        attribute.tensors.iter().chain(attribute.t.as_ref()).chain(graphs.flat_map(all_tensors))
    });
    Box::new(graph.initializer.iter().chain(sparse).chain(within))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn read_file(path: &str) -> Vec<u8> {
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)).unwrap()
    }

    /// One length-delimited protobuf field.
    fn protobuf_field(number: u32, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for mut varint in [number << 3 | 2, content.len() as u32] {
            while varint > 0x7f {
                bytes.push(varint as u8 | 0x80);
                varint >>= 7;
            }
            bytes.push(varint as u8);
        }
        [bytes, content.to_vec()].concat()
    }

    #[test]
    fn models_are_written_back_without_loss() {
        let small = ["double", "end2end", "fixed", "free", "slow", "ssd", "triple", "yolox"];
        let small = small.map(|name| format!("crates/testkit/models/{name}.onnx"));
        let real =
            ["models/nanodet/1/model.onnx", "fixtures/models/selfie.onnx", "fixtures/models/text_orientation.onnx"];
        for path in small.iter().map(String::as_str).chain(real) {
            let bytes = read_file(path);
            let model = Model::parse(&bytes).unwrap();
            let written = model.to_bytes().unwrap();
            // The order of fields may differ: it is that of ONNX's description.
            assert!(written.len() == bytes.len() && Model::parse(&written).unwrap().proto == model.proto, "{path}");
        }
    }

    #[test]
    fn unknown_fields_are_preserved() {
        let tensor = protobuf_field(5, &protobuf_field(900, b"in a tensor"));
        let graph = [tensor, protobuf_field(901, b"in the graph")].concat();
        let bytes = [vec![1 << 3, 9], protobuf_field(7, &graph), protobuf_field(902, b"in the model")].concat();
        let mut model = Model::parse(&bytes).unwrap();
        model.set_metadata("key", "value");
        let written = model.to_bytes().unwrap();
        for words in ["in a tensor", "in the graph", "in the model"] {
            assert!(written.windows(words.len()).any(|window| window == words.as_bytes()), "{words}");
        }
        assert_eq!(Model::parse(&written).unwrap().metadata("key"), Some("value"));
    }

    #[test]
    fn malformed_and_external_models_are_refused() {
        for bytes in [&b"hello, world"[..], b"", &[1 << 3, 9]] {
            assert!(matches!(Model::parse(bytes), Err(GraphError::Malformed(_))), "{bytes:?}");
        }
        let entry = [protobuf_field(1, b"location"), protobuf_field(2, b"weights.bin")].concat();
        let elsewhere = [protobuf_field(13, &entry), vec![14 << 3, 1]].concat();
        let attribute = protobuf_field(1, &protobuf_field(5, &protobuf_field(5, &elsewhere)));
        for graph in [protobuf_field(5, &elsewhere), attribute] {
            let error = Model::parse(&[vec![1 << 3, 9], protobuf_field(7, &graph)].concat()).unwrap_err();
            assert!(error.to_string().contains("weights.bin"), "{error}");
        }
    }

    #[test]
    fn unused_name_avoids_existing_names() {
        let mut model = Model::parse(&read_file("crates/testkit/models/slow.onnx")).unwrap();
        assert_eq!(model.unused_name("new"), "new");
        assert_eq!(model.unused_name("new"), "new_2");
        assert_eq!(model.unused_name("product"), "product_2", "within the loop it means something");
    }
}
