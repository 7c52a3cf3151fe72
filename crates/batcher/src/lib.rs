//! One bounded queue per model: who is admitted waits, who waits is joined into batches, each gets its own
//! answer back.
//!
//! A caller first takes a [`Seat`], before any costly work is done for it: a full queue, a deadline that
//! cannot be met and a server that is going away are said there and then. When its rows are ready it trades
//! the seat for a [`Ticket`] and awaits it. Each instance of the model is a thread that takes what waits,
//! as [`form_batch`] decides, lets every entry write its rows into the batch, runs it and hands every entry
//! its rows of the output. Dropping a seat or ticket gives the place back at once, and stops a run that
//! nobody waits for any more.
//!
//! This room counts rows, not requests, and does not know what they mean. Rows of different lengths may share a run
//! where [`Ragged`] says how.

mod buffer;
mod error;
mod form;
mod held;
mod instance;
mod job;
mod order;
mod policy;
mod predict;
mod queue;
mod ragged;
mod recent;
mod state;
mod stats;

pub use error::{Failure, Refusal};
pub use form::{Formed, Stop, Waiting, form_batch};
pub use job::{Job, OutputRows, Ticket};
pub use policy::{Patience, Policy, TimeoutAction};
pub use predict::{Outlook, ServiceTimes};
pub use queue::{Habits, Instances, Queue, Request, Seat};
pub use ragged::{Block, Ragged};
pub use recent::KeptRun;
pub use stats::{Depth, Stats};
