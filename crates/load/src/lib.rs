//! Load generator over HTTP, with a closed loop (each connection sends the next request when it has the last response)
//! or an open loop (each request at its scheduled time, whatever the server does), and a [`Report`] of the results.
//!
//! Its inputs are a [`Target`], [`Request`]s and a [`Schedule`]; [`plan_replay`] creates the latter two from a recorded
//! [`ArrivalTrace`]. Latency in an open loop is measured from the scheduled time of a request, so that a slow server
//! does not hide queueing (coordinated omission). The generator's own lag is reported separately.
//!
//! Everything is limited: duration, requests, concurrent requests, bytes of bodies. Requests not sent are counted.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use caudal_load::{ClosedLoop, Control, Limits, LoadError, Request, Target, closed_loop};
//! # async fn run(image: Vec<u8>) -> Result<(), LoadError> {
//! let report = closed_loop(
//!     ClosedLoop {
//!         target: Target::connect("http://127.0.0.1:8000").await?,
//!         requests: [Request::post("/predict/small", "image/jpeg", image)].into(),
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
//! This crate knows the server's routes as any client does, and nothing of their implementation.

mod arrivals;
mod bodies;
mod client;
mod closed_loop;
mod control;
mod error;
mod failure;
mod generator;
mod inputs;
mod latency;
mod open_loop;
mod precise_sleep;
mod replay_plan;
mod report;
mod request;
mod request_factory;
mod route_groups;
mod schedule;
mod server_timing;
mod stats;
mod synthetic_jpeg;
mod target;
mod tls;

pub use arrivals::{Arrival, ArrivalTrace};
pub use closed_loop::{ClosedLoop, closed_loop};
pub use control::{Control, Progress};
pub use error::LoadError;
pub use failure::FailureKind;
pub use generator::Limits;
pub use inputs::{Input, Inputs};
pub use latency::Latency;
pub use open_loop::{OpenLoop, open_loop};
pub use replay_plan::{ReplayPlan, plan_replay};
pub use report::{
    BodyCounts, EndReason, GeneratorStats, LoadKind, NotSent, RecordedLoad, Report, RouteReport, ServerTimes,
    SkippedArrivals, StageMean,
};
pub use request::Request;
pub use schedule::Schedule;
pub use target::Target;
pub use tls::Tls;
