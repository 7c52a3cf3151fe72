//! Load from outside: requests sent to a server over HTTP, in a closed loop (each connection sends the next when it has
//! the last answer) or an open one (each request at its time, whatever the ones before do), and a [`Report`] of what
//! came back.
//!
//! In go a [`Target`], [`Request`]s and when to send them; a recorded [`Trace`] of arrivals is made into both by
//! [`prepare`]. Latency in an open loop counts from the moment at which a request was meant to be sent: a generator that
//! waits for a slow server does not hide it. How late the generator itself was is told beside it.
//!
//! Everything is bounded: time, requests, requests at once, bytes of bodies. What a bound keeps from being sent is counted.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use caudal_load::{ClosedLoop, Control, Limits, LoadError, Request, Target, closed_loop};
//! # async fn ask(picture: Vec<u8>) -> Result<(), LoadError> {
//! let report = closed_loop(
//!     ClosedLoop {
//!         target: Target::reach("http://127.0.0.1:8000").await?,
//!         requests: [Request::post("/predict/small", "image/jpeg", picture)].into(),
//!         connections: 4,
//!         warm_up: Duration::from_secs(1),
//!         duration: Duration::from_secs(10),
//!         limits: Limits::default(),
//!     },
//!     Control::default(),
//! );
//! println!("{:?}", report.await?.latency_ms);
//! # Ok(())
//! # }
//! ```
//!
//! This room knows the routes as any caller does, and nothing of what answers behind them.

mod alarm;
mod bodies;
mod client;
mod closed;
mod control;
mod error;
mod failure;
mod generator;
mod inputs;
mod maker;
mod open;
mod picture;
mod prepare;
mod report;
mod request;
mod routes;
mod schedule;
mod tally;
mod target;
mod times;
mod timing;
mod tls;
mod trace;

pub use closed::{ClosedLoop, closed_loop};
pub use control::{Control, Progress};
pub use error::LoadError;
pub use failure::FailureKind;
pub use generator::Limits;
pub use inputs::{Input, Inputs};
pub use open::{OpenLoop, open_loop};
pub use prepare::{Replay, prepare};
pub use report::{
    Bodies, Ended, Generator, Kind, NotSent, Recorded, Report, RouteReport, ServerSide, Skipped, StageMean,
};
pub use request::Request;
pub use schedule::Schedule;
pub use target::Target;
pub use times::Latency;
pub use tls::Tls;
pub use trace::{Arrival, Trace};
