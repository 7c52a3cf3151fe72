//! The vocabulary every room of Caudal shares.
//!
//! What a request carries from the door to the model and back: its deadline and priority, the stamps that
//! each stage leaves on it, tensors seen as bytes with a shape, and the closed set of ways in which it can
//! fail. Beside that, the plan that shares the machine's cores among everyone.
//!
//! This room knows no async runtime, no wire format and no other room.

mod behalf;
mod cpu;
mod deadline;
mod error;
mod places;
mod priority;
mod stage;
mod tensor;
mod trace_id;
mod words;

pub use behalf::{on_behalf_of, with_request};
pub use cpu::{CpuPlan, available_cpus};
pub use deadline::Deadline;
pub use error::{ErrorKind, Explain};
pub use places::{ONNXRUNTIME_VERSION, OPENVINO_ONNXRUNTIME_VERSION, cache_dir, cached_onnxruntime, cached_openvino};
pub use priority::{Priority, UnknownPriority};
pub use stage::{During, ModelId, Parts, Run, Stage, Stamps, StepStamp, Steps, Trace};
pub use tensor::{DType, Shape, TensorView, UnknownDType, element_count};
pub use trace_id::TraceId;
pub use words::{nearest, printable, printable_lines, shorten, without_mark};
