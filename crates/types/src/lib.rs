//! Shared vocabulary of all crates.
//!
//! What a request carries to the model and back: deadline, priority and stage timings; tensors as bytes with a shape;
//! and the closed set of error kinds. Also the plan that divides the machine's cores.
//!
//! This crate knows no async runtime, no wire format and no other crate.

mod cpu;
mod deadline;
mod error;
mod log_context;
mod paths;
mod priority;
mod stage;
mod suggest;
mod tensor;
mod trace_id;

pub use cpu::{CpuPlan, available_cpus};
pub use deadline::Deadline;
pub use error::{ErrorKind, Explain};
pub use log_context::{read_request_id, with_request_id};
pub use paths::{ONNXRUNTIME_VERSION, OPENVINO_ONNXRUNTIME_VERSION, cache_dir, cached_onnxruntime, cached_openvino};
pub use priority::{Priority, UnknownPriority};
pub use stage::{During, ModelId, Parts, PipelineSteps, Run, Stage, StageTimes, StepTiming, Trace};
pub use suggest::{nearest, printable, printable_lines, shorten, without_mark};
pub use tensor::{DType, Shape, TensorView, UnknownDType, element_count};
pub use trace_id::TraceId;
