//! Small ONNX models written by a test itself, field by field after onnx.proto.

/// Types of a tensor's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum Numbers {
    F32 = 1,
    U8 = 2,
    I64 = 7,
}

/// An ONNX model in the making.
#[derive(Debug, Default, Clone)]
pub struct Graph {
    fields: Vec<u8>,
    notes: Vec<u8>,
}

impl Graph {
    /// A model that looks at a picture of `dims` and gives each of `outputs`, name, dimensions and numbers, whatever it sees.
    pub fn blind(input: &str, kind: Numbers, dims: &[i64], outputs: &[(&str, &[i64], &[f32])]) -> Self {
        let graph = Self::default()
            .input(input, kind, dims)
            .floats("zero", &[], &[0.0])
            .node("Cast", &[input], &["floats"], &[("to", 1)])
            .node("ReduceMean", &["floats"], &["mean"], &[("keepdims", 0)])
            .node("Mul", &["mean", "zero"], &["nothing"], &[]);
        outputs.iter().fold(graph, |graph, (name, dims, numbers)| {
            let held = format!("the_{name}");
            graph.floats(&held, dims, numbers).node("Add", &[&held, "nothing"], &[name], &[]).output(
                name,
                Numbers::F32,
                dims,
            )
        })
    }

    /// Adds an input. A dimension of -1 is free.
    #[must_use]
    pub fn input(self, name: &str, kind: Numbers, dims: &[i64]) -> Self {
        self.with(11, &value(name, kind, dims))
    }

    /// Adds an output. A dimension of -1 is free.
    #[must_use]
    pub fn output(self, name: &str, kind: Numbers, dims: &[i64]) -> Self {
        self.with(12, &value(name, kind, dims))
    }

    /// Adds a constant of floats.
    #[must_use]
    pub fn floats(self, name: &str, dims: &[i64], numbers: &[f32]) -> Self {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.constant(name, Numbers::F32, dims, &bytes)
    }

    /// Adds a constant of whole numbers.
    #[must_use]
    pub fn integers(self, name: &str, dims: &[i64], numbers: &[i64]) -> Self {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.constant(name, Numbers::I64, dims, &bytes)
    }

    /// Adds a constant of the bytes that it has in memory.
    #[must_use]
    pub fn constant(self, name: &str, kind: Numbers, dims: &[i64], bytes: &[u8]) -> Self {
        let dims: Vec<u8> = dims.iter().flat_map(|length| number(1, *length)).collect();
        self.with(5, &[dims, number(2, kind as i64), text(8, name), block(9, bytes)].concat())
    }

    /// Adds a node, with attributes of whole numbers.
    #[must_use]
    pub fn node(self, operator: &str, inputs: &[&str], outputs: &[&str], attributes: &[(&str, i64)]) -> Self {
        let inputs = inputs.iter().flat_map(|name| text(1, name));
        let outputs = outputs.iter().flat_map(|name| text(2, name));
        let attributes = attributes
            .iter()
            .flat_map(|(name, value)| block(5, &[text(1, name), number(3, *value), number(20, 2)].concat()));
        let node: Vec<u8> = inputs.chain(outputs).chain(text(4, operator)).chain(attributes).collect();
        self.with(1, &node)
    }

    /// Notes `value` under `key` beside the graph, as exporters do.
    #[must_use]
    pub fn note(mut self, key: &str, value: &str) -> Self {
        self.notes.extend(block(14, &[text(1, key), text(2, value)].concat()));
        self
    }

    /// The bytes of the file: ONNX's operators of version 17.
    pub fn bytes(&self) -> Vec<u8> {
        let graph = [&self.fields[..], &text(2, "made")].concat();
        [number(1, 8), block(7, &graph), block(8, &number(2, 17)), self.notes.clone()].concat()
    }

    fn with(mut self, field: u64, content: &[u8]) -> Self {
        self.fields.extend(block(field, content));
        self
    }
}

fn value(name: &str, kind: Numbers, dims: &[i64]) -> Vec<u8> {
    let one = |(place, length): (usize, &i64)| match length {
        -1 => block(1, &text(2, &format!("free_{place}"))),
        length => block(1, &number(1, *length)),
    };
    let shape: Vec<u8> = dims.iter().enumerate().flat_map(one).collect();
    let tensor = [number(1, kind as i64), block(2, &shape)].concat();
    [text(1, name), block(2, &block(1, &tensor))].concat()
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn number(field: u64, value: i64) -> Vec<u8> {
    [varint(field << 3), varint(value as u64)].concat()
}

fn block(field: u64, content: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

fn text(field: u64, content: &str) -> Vec<u8> {
    block(field, content.as_bytes())
}
