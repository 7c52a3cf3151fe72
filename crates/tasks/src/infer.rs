//! Tensors in, tensors out, whatever they mean.

use caudal_batcher::{EntryRequest, Failure, Job, OutputRows};
use caudal_engine::{Dim, ModelSpec, TensorSpec};
use caudal_types::{DType, Shape, element_count, shorten};

use crate::{Call, ServedModel, TaskError};

/// One input of a request.
#[derive(Debug, Clone)]
pub struct InputTensor {
    /// Its name in the model.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Its dimensions.
    pub shape: Shape,
    /// Its elements, row-major, in the machine's byte order.
    pub bytes: Vec<u8>,
}

/// One output of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputTensor {
    /// Its place among the model's outputs.
    pub index: usize,
    /// Its element type.
    pub dtype: DType,
    /// Its dimensions.
    pub shape: Shape,
    /// Its elements, row-major, in the machine's byte order.
    pub bytes: Vec<u8>,
}

/// Tensors that the model does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// An input the model has not.
    #[error("the model has no input {0:?}; it takes {1}")]
    UnknownInput(String, String),
    /// An input is missing.
    #[error("the input {0} is missing")]
    MissingInput(String),
    /// An input comes twice.
    #[error("the input {0:?} comes twice")]
    RepeatedInput(String),
    /// Another element type.
    #[error("the input {name:?} is {expected}, not {got}")]
    DType {
        /// Which input.
        name: String,
        /// What the model takes.
        expected: DType,
        /// What came.
        got: DType,
    },
    /// Another shape.
    #[error("the input {spec} cannot have the shape {got:?}")]
    Shape {
        /// What the model takes.
        spec: String,
        /// What came.
        got: Shape,
    },
    /// More or fewer elements than the shape says.
    #[error("the input {name:?} has {got} bytes of data, its shape says {expected}")]
    Length {
        /// Which input.
        name: String,
        /// Bytes the shape asks for.
        expected: usize,
        /// Bytes that came.
        got: usize,
    },
    /// Inputs that bring different numbers of rows.
    #[error("the inputs bring different numbers of rows: {0} and {1}")]
    Rows(usize, usize),
    /// No rows, or more than one request may bring.
    #[error("a request brings 1 to {limit} rows for this model, not {rows}")]
    TooManyRows {
        /// Rows that came.
        rows: usize,
        /// Most rows.
        limit: usize,
    },
    /// An output is asked for twice.
    #[error("the output {0:?} is asked for twice")]
    RepeatedOutput(String),
    /// An output the model has not.
    #[error("the model has no output {0:?}; it gives {1}")]
    UnknownOutput(String, String),
}

impl ServedModel {
    /// Whether the smallest request would be given a seat now: if not, a body need not even be read.
    pub fn check_infer(&self, call: &Call) -> Result<(), TaskError> {
        call.trace.set_model(&self.id);
        Ok(self.queue.check_admission(&EntryRequest {
            rows: 1,
            tokens: 0,
            bytes: 0,
            priority: call.priority,
            deadline: call.deadline,
        })?)
    }

    /// How many bytes an input called `name` with elements of `dtype` and dimensions `shape` has, if the model takes
    /// such a one: to be asked before its elements are read.
    pub fn expect(&self, name: &str, dtype: DType, shape: &[usize]) -> Result<usize, TensorError> {
        let unknown = || TensorError::UnknownInput(shorten(name).into_owned(), list(&self.spec.inputs));
        let spec = self.spec.inputs.iter().find(|spec| spec.name == name).ok_or_else(unknown)?;
        let bytes = expected_bytes(spec, dtype, shape)?;
        match self.joined {
            true => self.check_rows(shape[0])?,
            false => self.check_own_rows(spec, shape)?,
        }
        Ok(bytes)
    }

    /// Runs `inputs`; gives the outputs called `wanted`, in that order, or all of them in the model's.
    pub async fn infer(
        &self,
        inputs: Vec<InputTensor>,
        wanted: &[String],
        call: &Call,
    ) -> Result<Vec<OutputTensor>, TaskError> {
        let outputs = select(&self.spec, wanted)?;
        let job = self.tensor_job(inputs, outputs)?;
        let seat = self.queue.admit(EntryRequest {
            rows: job.rows,
            tokens: 0,
            bytes: job.inputs.iter().map(Vec::len).sum(),
            priority: call.priority,
            deadline: call.deadline,
        })?;
        Ok(seat.submit(job, call.trace.clone()).await?)
    }

    /// Checks `inputs` against what the model takes and puts them in its order.
    fn tensor_job(&self, mut inputs: Vec<InputTensor>, outputs: Vec<usize>) -> Result<TensorJob, TensorError> {
        let mut ordered = Vec::with_capacity(inputs.len());
        for spec in &self.spec.inputs {
            let at = inputs.iter().position(|input| input.name == spec.name);
            let input = inputs.swap_remove(at.ok_or_else(|| TensorError::MissingInput(spec.to_string()))?);
            check(&input, spec)?;
            if !self.joined {
                self.check_own_rows(spec, &input.shape)?;
            }
            ordered.push(input);
        }
        if let Some(extra) = inputs.pop() {
            return Err(match self.spec.inputs.iter().any(|spec| spec.name == extra.name) {
                true => TensorError::RepeatedInput(extra.name),
                false => TensorError::UnknownInput(extra.name, list(&self.spec.inputs)),
            });
        }
        let rows = if self.joined { self.rows(&ordered)? } else { 1 };
        let (shapes, inputs) = ordered.into_iter().map(|input| (input.shape, input.bytes)).unzip();
        Ok(TensorJob { rows, shapes, inputs, outputs })
    }

    fn rows(&self, inputs: &[InputTensor]) -> Result<usize, TensorError> {
        let mut counts = inputs.iter().map(|input| input.shape[0]);
        let rows = counts.next().unwrap_or(1);
        if let Some(other) = counts.find(|count| *count != rows) {
            return Err(TensorError::Rows(rows, other));
        }
        self.check_rows(rows)?;
        Ok(rows)
    }

    /// Checks an input of a model whose rows are never joined: a request runs as it is, within what settings declare.
    fn check_own_rows(&self, spec: &TensorSpec, shape: &[usize]) -> Result<(), TensorError> {
        let limit = self.plan().max_request_rows;
        match (spec.dims.first(), shape.first()) {
            (Some(Dim::Free(_)), Some(rows)) if *rows > limit => Err(TensorError::TooManyRows { rows: *rows, limit }),
            _ => Ok(()),
        }
    }

    fn check_rows(&self, rows: usize) -> Result<(), TensorError> {
        let limit = self.plan().max_request_rows;
        if (1..=limit).contains(&rows) { Ok(()) } else { Err(TensorError::TooManyRows { rows, limit }) }
    }
}

fn check(input: &InputTensor, spec: &TensorSpec) -> Result<(), TensorError> {
    let expected = expected_bytes(spec, input.dtype, &input.shape)?;
    if input.bytes.len() != expected {
        return Err(TensorError::Length { name: input.name.clone(), expected, got: input.bytes.len() });
    }
    Ok(())
}

fn expected_bytes(spec: &TensorSpec, dtype: DType, shape: &[usize]) -> Result<usize, TensorError> {
    if dtype != spec.dtype {
        return Err(TensorError::DType { name: spec.name.clone(), expected: spec.dtype, got: dtype });
    }
    let bytes = element_count(shape).and_then(|count| count.checked_mul(dtype.size()));
    bytes
        .filter(|_| spec.accepts_shape(shape))
        .ok_or_else(|| TensorError::Shape { spec: spec.to_string(), got: shape.to_vec() })
}

fn select(spec: &ModelSpec, wanted: &[String]) -> Result<Vec<usize>, TensorError> {
    if wanted.is_empty() {
        return Ok((0..spec.outputs.len()).collect());
    }
    let find = |name: &String| {
        let index = spec.outputs.iter().position(|output| output.name == *name);
        index.ok_or_else(|| TensorError::UnknownOutput(shorten(name).into_owned(), list(&spec.outputs)))
    };
    let mut found = Vec::with_capacity(spec.outputs.len());
    for name in wanted {
        let index = find(name)?;
        // Each is a copy of what the model gave: a name said a thousand times would be a thousand copies.
        if found.contains(&index) {
            return Err(TensorError::RepeatedOutput(name.clone()));
        }
        found.push(index);
    }
    Ok(found)
}

fn list(tensors: &[TensorSpec]) -> String {
    tensors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

struct TensorJob {
    rows: usize,
    shapes: Vec<Shape>,
    inputs: Vec<Vec<u8>>,
    outputs: Vec<usize>,
}

impl Job for TensorJob {
    type Answer = Vec<OutputTensor>;

    fn shapes(&self) -> &[Shape] {
        &self.shapes
    }

    fn write_rows(&self, input: usize, rows: &mut [u8]) {
        rows.copy_from_slice(&self.inputs[input]);
    }

    fn read_outputs(self, outputs: OutputRows<'_>) -> Result<Vec<OutputTensor>, Failure> {
        let read = |index: usize| {
            let (view, shape) =
                outputs.output(index).ok_or_else(|| Failure::Failed("it gave fewer outputs than it has".to_owned()))?;
            Ok(OutputTensor { index, dtype: view.dtype, shape, bytes: view.bytes.to_vec() })
        };
        self.outputs.iter().map(|index| read(*index)).collect()
    }
}
