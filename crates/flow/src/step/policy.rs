//! How a step is done: what it is given, how often it is tried, what it may spend, and where its output goes.

use std::{sync::Arc, time::Duration};

use super::{Check, Rule, Step};
use crate::{budget::Limits, value::Map};

/// How a step is done.
#[derive(Clone, Default)]
pub struct Policy {
    /// What it is given, in place of what the step before gave.
    pub input: Option<Rule>,
    /// What it takes.
    pub takes: Option<Arc<dyn Check>>,
    /// What it gives.
    pub gives: Option<Arc<dyn Check>>,
    /// What is looked at before its output is believed.
    pub validators: Vec<Arc<dyn Check>>,
    /// What must hold of its output and of the context when it is done; else the run fails, whatever could be done instead.
    pub invariants: Vec<Rule>,
    /// How often it is tried, and with what pauses.
    pub retry: Retry,
    /// How long one try may take.
    pub timeout: Option<Duration>,
    /// What is done if it fails in the end.
    pub fallback: Option<Arc<Step>>,
    /// What it may spend.
    pub limits: Limits,
    /// Whether its output, an object, becomes a part of the context.
    pub updates_context: bool,
    /// Whether that may only change what is in the context already.
    pub known_names: bool,
    /// Where in the context its output goes: names with points between.
    pub sink: Option<Arc<str>>,
    /// Whether nobody waits for it: it goes its way as a run of its own, and the next step gets what this one got.
    pub background: bool,
    /// What its author says about it, which changes nothing.
    pub meta: Map,
}

/// How often a step is tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// Tries after the first.
    pub more: u32,
    /// Before the second try; each further wait is twice as long.
    pub wait: Duration,
    /// The longest wait. Where the other side asks for a longer one, the step is not tried again.
    pub longest: Duration,
    /// Whether each wait is drawn between none and what it would be, so that many do not come back at once.
    pub jitter: bool,
}

impl Default for Retry {
    fn default() -> Self {
        Self { more: 0, wait: Duration::from_millis(200), longest: Duration::from_secs(60), jitter: true }
    }
}
