//! Traces for whoever collects them, by OpenTelemetry's protocol (OTLP).
//!
//! In come requests that are done, with the stamps that they carried anyway; out go spans, made of those stamps on a
//! thread of its own, by HTTP or gRPC. While a request is on its way nothing is recorded here: all that is done at its
//! start is to decide, by the caller's `traceparent` and the sampler, whether it will be told of. A collector that is slow
//! or away costs spans, which are counted, and nobody else anything.
//!
//! This room does not know the doors, nor what a request means.

mod context;
mod sampler;
mod send;
mod settings;
mod spans;
mod tracer;

pub use context::{Context, Parent, SpanId};
pub use sampler::Sampler;
pub use send::SendError;
pub use settings::{Encoding, Protocol, Settings, address, pairs};
pub use spans::Finished;
pub use tracer::{Counts, StartError, Tracer};
