//! Inspection of ONNX files without loading them: format, external files, operators.
//!
//! Parses the protobuf wire format (onnx.proto3) and skips everything that cannot contain a tensor, so that a file of
//! gigabytes is read in a few seeks.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read, Seek},
};

use super::output_operators::{MAX_OUTPUTS, Node, ProducerIndex};

/// Maximum nesting of graphs by control flow; deeper files are malicious.
const MAX_DEPTH: usize = 64;
/// Maximum size of names; longer strings are not read into memory.
const MAX_STRING_BYTES: u64 = 4096;

/// The result of inspecting a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct OnnxFile {
    /// The format's version.
    pub ir_version: u64,
    /// Size of the file.
    pub bytes: u64,
    /// External files with its weights, as the file names them.
    pub external_files: Vec<String>,
    /// Whether the time of a run may depend on the values of its inputs, not only on their shapes: it has loops or
    /// branches, computed sizes, or unknown operators.
    pub time_depends_on_values: bool,
    /// The operator that produces each output, such as `Softmax`, if known.
    pub last_operators: BTreeMap<String, String>,
}

/// Operators whose work or output size depends on values.
const VALUE_DEPENDENT_OPERATORS: &[&str] = &[
    "AffineGrid",
    "BlackmanWindow",
    "CenterCropPad",
    "Col2Im",
    "Compress",
    "ConstantOfShape",
    "DFT",
    "Expand",
    "HammingWindow",
    "HannWindow",
    "If",
    "Loop",
    "MaxUnpool",
    "MelWeightMatrix",
    "NonMaxSuppression",
    "NonZero",
    "OneHot",
    "Pad",
    "Range",
    "Resize",
    "STFT",
    "Scan",
    "SequenceMap",
    "Tile",
    "Unique",
    "Upsample",
];

/// The reason why a file could not be inspected.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The file is damaged or not an ONNX file.
    #[error("is not an ONNX file: {0}")]
    Malformed(&'static str),
}

impl OnnxFile {
    /// Inspects `file`.
    pub fn inspect_file(file: File) -> Result<Self, OnnxError> {
        let length = file.metadata()?.len();
        Self::parse_stream(BufReader::new(file), length)
    }

    fn parse_stream(input: impl Read + Seek, length: u64) -> Result<Self, OnnxError> {
        let found = Self { bytes: length, ..Self::default() };
        let mut walker = WireWalker {
            input,
            position: 0,
            found,
            graphs: 0,
            node: Node::default(),
            makers: ProducerIndex::default(),
        };
        walker.walk_message(Message::Model, length, MessagePlace::Inner(0))?;
        walker.found.last_operators = walker.makers.last_operators();
        match (walker.found.ir_version, walker.graphs) {
            (0, _) => Err(OnnxError::Malformed("it does not say which version of the format it has")),
            (_, 0) => Err(OnnxError::Malformed("it holds no graph")),
            _ => Ok(walker.found),
        }
    }
}

/// Messages that can contain a tensor.
#[derive(Clone, Copy, PartialEq)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    SparseTensor,
    Function,
    Training,
    /// A key and a value, in either order; relevant if the key is `location`.
    External,
    /// An output of a graph; its name is relevant.
    Value,
}

/// The graph that contains a message, and its depth.
#[derive(Clone, Copy, PartialEq)]
enum MessagePlace {
    /// The model's main graph, whose nodes and outputs are recorded.
    Main(usize),
    /// A subgraph or function.
    Inner(usize),
}

impl MessagePlace {
    fn depth(self) -> usize {
        match self {
            Self::Main(depth) | Self::Inner(depth) => depth,
        }
    }

    /// The place of `child` within `parent`, which is at this place.
    fn child_place(self, parent: Message, child: Message) -> Self {
        let depth = self.depth() + 1;
        match (self, parent, child) {
            (_, Message::Model, Message::Graph) => Self::Main(depth),
            (Self::Main(_), Message::Graph, Message::Node | Message::Value) => Self::Main(depth),
            _ => Self::Inner(depth),
        }
    }
}

impl Message {
    /// The message type of a field, if that can contain a tensor.
    fn child_message(self, field: u32) -> Option<Self> {
        match (self, field) {
            (Self::Model, 7) | (Self::Attribute, 6 | 11) | (Self::Training, 1 | 2) => Some(Self::Graph),
            (Self::Model, 20) => Some(Self::Training),
            (Self::Model, 25) => Some(Self::Function),
            (Self::Graph, 1) | (Self::Function, 7) => Some(Self::Node),
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::SparseTensor, 1 | 2) => Some(Self::Tensor),
            (Self::Graph, 12) => Some(Self::Value),
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Some(Self::SparseTensor),
            (Self::Node, 5) | (Self::Function, 11) => Some(Self::Attribute),
            (Self::Tensor, 13) => Some(Self::External),
            _ => None,
        }
    }
}

struct WireWalker<R> {
    input: R,
    position: u64,
    found: OnnxFile,
    graphs: usize,
    /// The node of the main graph in progress.
    node: Node,
    makers: ProducerIndex,
}

impl<R: Read + Seek> WireWalker<R> {
    fn walk_message(&mut self, message: Message, end: u64, place: MessagePlace) -> Result<(), OnnxError> {
        if place.depth() > MAX_DEPTH {
            return Err(OnnxError::Malformed("its graphs nest too deeply"));
        }
        self.graphs += usize::from(message == Message::Graph);
        let (mut key, mut value) = (String::new(), String::new());
        let in_main = matches!(place, MessagePlace::Main(_));
        while self.position < end {
            // Parsers with 32-bit tags would read another field from a larger tag.
            let tag = u32::try_from(self.read_varint()?)
                .map_err(|_| OnnxError::Malformed("a field's number is too large"))?;
            let (field, wire) = (tag >> 3, tag & 7);
            match (message, field, wire) {
                (Message::Model, 1, 0) => self.found.ir_version = self.read_varint()?,
                (Message::Node, 4, 2) => {
                    let operator = self.read_string(end)?;
                    self.found.time_depends_on_values |= VALUE_DEPENDENT_OPERATORS.contains(&&*operator);
                    if in_main {
                        self.node.operator = operator;
                    }
                }
                // Operators of other domains: some of them loop.
                (Message::Node, 7, 2) => {
                    let domain = self.read_string(end)?;
                    self.found.time_depends_on_values |= !matches!(&*domain, "" | "ai.onnx" | "ai.onnx.ml");
                }
                (Message::External, 1, 2) => key = self.read_string(end)?,
                (Message::External, 2, 2) => value = self.read_string(end)?,
                (Message::Node, 1 | 2, 2) if in_main => self.record_node_name(field, end)?,
                (Message::Value, 1, 2) if in_main => {
                    let name = self.read_value_name(end)?;
                    self.makers.add_output(name);
                }
                (_, _, 2) => {
                    let stop = self.read_block_end(end)?;
                    match message.child_message(field) {
                        Some(child) => self.walk_message(child, stop, place.child_place(message, child))?,
                        None => self.skip_to(stop)?,
                    }
                }
                (_, _, 0) => drop(self.read_varint()?),
                (_, _, 1) => self.skip_to(self.position + 8)?,
                (_, _, 5) => self.skip_to(self.position + 4)?,
                _ => return Err(OnnxError::Malformed("it has a field of no known kind")),
            }
        }
        if self.position > end {
            return Err(OnnxError::Malformed("a field reaches past the end of what holds it"));
        }
        if message == Message::Node && in_main {
            self.makers.add_node(std::mem::take(&mut self.node));
        }
        if key == "location" && !self.found.external_files.contains(&value) {
            self.found.external_files.push(value);
        }
        Ok(())
    }

    /// Records field `field` of a node: an input or an output.
    fn record_node_name(&mut self, field: u32, end: u64) -> Result<(), OnnxError> {
        let name = self.read_value_name(end)?;
        match field {
            1 => drop(self.node.input.get_or_insert(name)),
            _ if self.node.outputs.len() < MAX_OUTPUTS => self.node.outputs.push(name),
            _ => {}
        }
        Ok(())
    }

    /// The name of a value; empty if it is too long or not UTF-8, which must not prevent a model from being served.
    fn read_value_name(&mut self, end: u64) -> Result<String, OnnxError> {
        let stop = self.read_block_end(end)?;
        let mut bytes = vec![0; (stop - self.position).min(MAX_STRING_BYTES) as usize];
        self.input.read_exact(&mut bytes).map_err(truncation_error)?;
        self.position += bytes.len() as u64;
        self.skip_to(stop)?;
        Ok(String::from_utf8(bytes).unwrap_or_default())
    }

    /// Reads a length and returns the end of the block that follows.
    fn read_block_end(&mut self, end: u64) -> Result<u64, OnnxError> {
        let length = self.read_varint()?;
        self.position
            .checked_add(length)
            .filter(|stop| *stop <= end)
            .ok_or(OnnxError::Malformed("a field reaches past the end of what holds it"))
    }

    fn read_string(&mut self, end: u64) -> Result<String, OnnxError> {
        let stop = self.read_block_end(end)?;
        let length = stop - self.position;
        if length > MAX_STRING_BYTES {
            return Err(OnnxError::Malformed("a name in it is too long"));
        }
        let mut bytes = vec![0; length as usize];
        self.input.read_exact(&mut bytes).map_err(truncation_error)?;
        self.position = stop;
        String::from_utf8(bytes).map_err(|_| OnnxError::Malformed("a name in it is not UTF-8"))
    }

    fn skip_to(&mut self, stop: u64) -> Result<(), OnnxError> {
        // Not `seek`, which discards the read-ahead buffer.
        self.input.seek_relative((stop - self.position) as i64)?;
        self.position = stop;
        Ok(())
    }

    fn read_varint(&mut self) -> Result<u64, OnnxError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.input.read_exact(&mut byte).map_err(truncation_error)?;
            self.position += 1;
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(OnnxError::Malformed("a number in it has no end"))
    }
}

fn truncation_error(error: io::Error) -> OnnxError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => OnnxError::Malformed("it ends in the middle of a field"),
        _ => OnnxError::Io(error),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    /// One length-delimited protobuf field.
    pub(crate) fn field(number: u8, content: &[u8]) -> Vec<u8> {
        assert!(content.len() < 128 * 128, "two bytes of length suffice");
        let length = [(content.len() & 0x7f) as u8 | 0x80, (content.len() >> 7) as u8];
        [&[number << 3 | 2][..], &length, content].concat()
    }

    /// A model whose one initializer lives in `location`.
    pub(crate) fn model_with_external(location: &str) -> Vec<u8> {
        let entry = [field(1, b"location"), field(2, location.as_bytes())].concat();
        let tensor = field(13, &entry);
        [vec![1 << 3, 9], field(7, &field(5, &tensor))].concat()
    }

    fn read(bytes: &[u8]) -> Result<OnnxFile, OnnxError> {
        OnnxFile::parse_stream(Cursor::new(bytes), bytes.len() as u64)
    }

    #[test]
    fn external_file_is_found_at_any_depth() {
        assert_eq!(read(&model_with_external("w.bin")).unwrap().external_files, ["w.bin"]);
        let entry = [field(1, b"location"), field(2, b"../w")].concat();
        let in_attribute = field(1, &field(5, &field(5, &field(13, &entry))));
        let in_subgraph = field(1, &field(5, &field(6, &field(5, &field(13, &entry)))));
        for graph in [in_attribute, in_subgraph] {
            let model = [vec![1 << 3, 9], field(7, &graph)].concat();
            assert_eq!(read(&model).unwrap().external_files, ["../w"]);
        }
    }

    #[test]
    fn external_file_is_found_in_any_field_order() {
        let model = |entry: &[Vec<u8>]| [vec![1 << 3, 9], field(7, &field(5, &field(13, &entry.concat())))].concat();
        let files = |entry: &[Vec<u8>]| read(&model(entry)).unwrap().external_files;
        assert_eq!(files(&[field(2, b"../w"), field(1, b"location")]), ["../w"]);
        assert_eq!(files(&[field(2, b"w"), field(1, b"offset"), field(2, b"../w"), field(1, b"location")]), ["../w"]);
        assert_eq!(files(&[field(2, b"0"), field(1, b"offset")]), [""; 0]);
    }

    #[test]
    fn value_dependent_operators_are_found_at_any_depth() {
        let follows = |node: &[Vec<u8>]| {
            let node = field(1, &node.concat());
            let within = field(1, &field(5, &field(6, &node)));
            let read =
                |graph: &[u8]| read(&[vec![1 << 3, 9], field(7, graph)].concat()).unwrap().time_depends_on_values;
            assert_eq!(read(&node), read(&within), "in a graph and within a node's");
            read(&node)
        };
        assert!(!follows(&[field(4, b"MatMul")]));
        assert!(!follows(&[field(4, b"MatMul"), field(7, b"ai.onnx")]));
        assert!(follows(&[field(4, b"Loop")]));
        assert!(follows(&[field(4, b"Range")]));
        assert!(follows(&[field(4, b"BeamSearch"), field(7, b"com.microsoft")]));
    }

    #[test]
    fn tags_beyond_32_bits_are_refused() {
        // The graph's tag with its first five bits unchanged and bit 32 set: protobuf reads it as field 7 nevertheless.
        let whole = model_with_external("../w");
        let evading = [&whole[..2], &[whole[2] | 0x80, 0x80, 0x80, 0x80, 0x10], &whole[3..]].concat();
        assert!(matches!(read(&evading), Err(OnnxError::Malformed(_))));
        let padded = [&whole[..2], &[whole[2] | 0x80, 0x80, 0x80, 0x80, 0], &whole[3..]].concat();
        assert_eq!(read(&padded).unwrap().external_files, ["../w"]);
    }

    /// Counts the reads of its file.
    struct Counting(Cursor<Vec<u8>>, usize);

    impl Read for Counting {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.1 += 1;
            self.0.read(into)
        }
    }

    impl Seek for Counting {
        fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }

    #[test]
    fn buffered_bytes_are_reused() {
        // Hundreds of small weights with an irrelevant field each.
        let tensor = field(5, &field(9, &[0; 20]));
        let model = [vec![1 << 3, 9], field(7, &tensor.repeat(500))].concat();
        let length = model.len() as u64;
        let mut input = BufReader::new(Counting(Cursor::new(model), 0));
        OnnxFile::parse_stream(&mut input, length).unwrap();
        assert!(input.get_ref().1 < 10, "{} reads", input.get_ref().1);
    }

    /// A model whose output `y` is produced by `nodes`: operator, input, output.
    fn model_of(nodes: &[(&str, &str, &str)]) -> Vec<u8> {
        let node = |(operator, input, output): &(&str, &str, &str)| {
            let inner = field(1, &field(5, &field(6, &field(1, &field(4, b"Inner")))));
            let fields = [field(1, input.as_bytes()), field(1, b"second"), field(2, output.as_bytes())];
            field(1, &[fields.concat(), field(4, operator.as_bytes()), inner[3..].to_vec()].concat())
        };
        let graph = [nodes.iter().map(node).collect::<Vec<_>>().concat(), field(12, &field(1, b"y"))].concat();
        [vec![1 << 3, 9], field(7, &graph)].concat()
    }

    #[test]
    fn output_operator_is_found_through_pass_through_operators() {
        let last = |nodes: &[(&str, &str, &str)]| read(&model_of(nodes)).unwrap().last_operators.get("y").cloned();
        assert_eq!(last(&[("Softmax", "x", "y")]).as_deref(), Some("Softmax"));
        let handed = [
            ("Gemm", "x", "a"),
            ("Sigmoid", "a", "b"),
            ("QuantizeLinear", "b", "c"),
            ("DequantizeLinear", "c", "d"),
            ("Reshape", "d", "e"),
            ("Cast", "e", "y"),
        ];
        assert_eq!(last(&handed).as_deref(), Some("Sigmoid"));
        assert_eq!(last(&[("Identity", "x", "y")]), None, "the input itself");
        assert_eq!(last(&[("Identity", "y", "y")]), None, "a circle");
        assert_eq!(last(&[("Softmax", "x", "z")]), None);
    }

    #[test]
    fn invalid_files_are_reported() {
        for bytes in [&b""[..], b"hello, world", b"\xff\xd8\xff\xe0 a jpeg", &[1 << 3, 9]] {
            assert!(matches!(read(bytes), Err(OnnxError::Malformed(_))), "{bytes:?}");
        }
        let whole = model_with_external("w.bin");
        assert!(matches!(read(&whole[..whole.len() - 3]), Err(OnnxError::Malformed(_))));
    }

    #[test]
    fn deep_nesting_is_refused() {
        let mut graph = Vec::new();
        for _ in 0..200 {
            graph = field(1, &field(5, &field(6, &graph)));
        }
        let model = [vec![1 << 3, 9], field(7, &graph)].concat();
        assert!(matches!(read(&model), Err(OnnxError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
        }
    }
}
