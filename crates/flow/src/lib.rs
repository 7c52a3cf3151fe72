//! Pipelines: steps one after the other, at the same time, again and again, chosen, cached, budgeted, and durable.
//!
//! A pipeline is a value ([`Definition`]), put together in Rust with types ([`Pipeline`]) or read from a file. An
//! [`Engine`] runs it. What a step does is an [`Action`]; what it gives is a [`Value`], shared and never changed. What
//! happened stands in the run's log, from which everything that is told of a run is read.
//!
//! This room does not know HTTP, models, or what any leaf does.

mod action;
mod blueprint;
mod budget;
mod cache;
mod engine;
mod error;
mod flows;
mod functions;
pub mod journal;
mod key;
mod live;
mod log;
mod paths;
mod registry;
mod report;
mod room;
mod run;
mod step;
mod typed;
mod value;
mod view;
mod words;

#[doc(hidden)]
pub use serde_json;

pub use action::{Action, Answer, Aside, Call, Outcome as Started};
pub use blueprint::{Blueprint, Finding, Folder, JsonSchema, Severity, Sources, explain, mermaid, schema, svg};
pub use budget::{Allowance, Limits, Quota, Refusal, Reservation, Usage};
pub use cache::{Answered, Found, Shelf, ShelfError, ShelfOptions, Shelved, SqliteShelf, StepCache};
pub use engine::{Engine, Handle, Options, Outcome, Ran, Run, RunOptions};
pub use error::{Fault, RunError, StepError};
pub use flows::{Count, Flows, Going, TakenUp};
pub use functions::{check, function, later, rule};
pub use key::{Key, key_of};
pub use log::{Entry, Event, Label, Log, Place, Status, What, path};
pub use registry::{Leaf, Maker, Registry};
pub use report::{Report, Spent, StepReport};
pub use room::Room;
pub use run::Prompt;
pub use step::{
    Cached, Change, Check, Conditional, Definition, Each, Formula, How, Human, Import, Keep, Kind, Knows, Loop,
    Machine, Merge, On, Parallel, Policy, Propagate, Reduce, Retry, Router, Rule, Search, Step, Steps, Strategy, Talk,
    Transition, Voice,
};
pub use typed::Pipeline;
pub use value::{Canonical, Data, Held, Map, Native, OutOfBounds, Value, write_canonical};
pub use view::View;
pub use words::{Expression, Shape, Undefined, WordsError};
