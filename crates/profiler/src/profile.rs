//! Profiles: stacks with their weights.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

/// The quantity that a profile measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// CPU time in nanoseconds; the count is of samples.
    Cpu,
    /// Live memory in bytes; the count is of allocations.
    Heap,
}

/// A stack with its weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// Frames, outermost first: the thread's name, then function names.
    pub frames: Vec<String>,
    /// Samples or allocations.
    pub count: u64,
    /// Nanoseconds or bytes.
    pub amount: u64,
}

/// Distinct stacks with their weights.
#[derive(Debug, Clone)]
pub struct Profile {
    /// The measured quantity.
    pub kind: Kind,
    /// The stacks, ordered by frames.
    pub stacks: Vec<Stack>,
    /// Start time.
    pub began: SystemTime,
    /// Duration; zero for a heap profile.
    pub took: Duration,
    /// Nanoseconds per sample, or mean bytes per sampled allocation.
    pub period: u64,
    /// Samples whose stack could not be unwound to its outermost function.
    pub truncated: u64,
    /// Samples that were dropped.
    pub lost: u64,
}

/// Message for a CPU profile without samples.
pub const IDLE_MESSAGE: &str =
    "the process was idle: no CPU samples. Send requests while profiling, or profile for more seconds";

impl Profile {
    /// Returns true for a CPU profile without samples.
    pub fn is_idle(&self) -> bool {
        self.kind == Kind::Cpu && self.total_count() == 0
    }

    /// A profile of `stacks`; equal stacks are merged.
    pub fn new(kind: Kind, stacks: Vec<Stack>) -> Self {
        let mut merged: BTreeMap<Vec<String>, (u64, u64)> = BTreeMap::new();
        for stack in stacks {
            let known = merged.entry(stack.frames).or_default();
            *known = (known.0 + stack.count, known.1 + stack.amount);
        }
        let stacks = merged.into_iter().map(|(frames, (count, amount))| Stack { frames, count, amount }).collect();
        Self { kind, stacks, began: SystemTime::now(), took: Duration::ZERO, period: 1, truncated: 0, lost: 0 }
    }

    /// Total number of samples or allocations.
    pub fn total_count(&self) -> u64 {
        self.stacks.iter().map(|stack| stack.count).sum()
    }

    /// Total nanoseconds or bytes.
    pub fn total_amount(&self) -> u64 {
        self.stacks.iter().map(|stack| stack.amount).sum()
    }

    /// The share, from 0 to 1, of the stacks that match `wanted`.
    pub fn share_where(&self, wanted: impl Fn(&Stack) -> bool) -> f64 {
        let part: u64 = self.stacks.iter().filter(|stack| wanted(stack)).map(|stack| stack.amount).sum();
        part as f64 / self.total_amount().max(1) as f64
    }

    /// Weight of a stack in collapsed form: samples of a CPU profile, bytes of a heap profile.
    pub(crate) fn stack_weight(&self, stack: &Stack) -> u64 {
        match self.kind {
            Kind::Cpu => stack.count,
            Kind::Heap => stack.amount,
        }
    }

    /// Collapsed stacks: one stack per line, frames separated by semicolons, then its weight. An idle process is one
    /// line with weight 0.
    pub fn to_collapsed(&self) -> String {
        if self.is_idle() {
            return "[idle] 0\n".to_owned();
        }
        self.stacks.iter().map(|stack| format!("{} {}\n", stack.frames.join(";"), self.stack_weight(stack))).collect()
    }
}
