//! Dynamic batching: one bounded queue per model, which admits entries, joins them into batches and returns each entry
//! its own answer.
//!
//! A caller first takes a [`Permit`], before any costly work: a full queue, an unreachable deadline and a shutdown are
//! reported at this point. When its rows are ready, it exchanges the permit for a [`Reply`] and awaits it. Each
//! instance of the model is a thread that takes the entries selected by [`form_batch`], lets every entry write its rows
//! into the batch, runs it and returns every entry its rows of the output. Dropping a permit or reply frees its place
//! immediately, and interrupts a run that no entry needs any more.
//!
//! This crate counts rows, not requests, and does not know what they mean. Rows of different lengths may share a run as
//! [`VariableLength`] describes.

mod backlog;
mod buffer;
mod error;
mod form;
mod instance;
mod job;
mod policy;
mod predict;
mod queue;
mod recent_runs;
mod reply_order;
mod state;
mod stats;
mod variable_length;

pub use error::{Failure, Refusal};
pub use form::{BatchClosedBy, FormedBatch, WaitingEntry, form_batch};
pub use job::{Job, OutputRows, Reply};
pub use policy::{Policy, QueueTimeoutAction, QueueTimeouts};
pub use predict::{LoadEstimate, ServiceTimes};
pub use queue::{EntryRequest, Instances, Permit, Queue, QueueConfig};
pub use recent_runs::RecordedRun;
pub use stats::{QueueDepth, QueueStats};
pub use variable_length::{RowBlock, VariableLength};
