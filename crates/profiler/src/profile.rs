//! What was found: stacks with what they took.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

/// What a profile counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// CPU time, in nanoseconds; samples.
    Cpu,
    /// Memory that is held, in bytes; allocations.
    Heap,
}

/// A stack with what it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// Names, the outermost first: the thread's, then those of functions.
    pub frames: Vec<String>,
    /// Samples, or allocations.
    pub count: u64,
    /// Nanoseconds, or bytes.
    pub amount: u64,
}

/// Stacks with what they took. No two are the same.
#[derive(Debug, Clone)]
pub struct Profile {
    /// What is counted.
    pub kind: Kind,
    /// The stacks, in order of their frames.
    pub stacks: Vec<Stack>,
    /// When it was begun.
    pub began: SystemTime,
    /// How long it took; nothing for what is a look at one moment.
    pub took: Duration,
    /// A sample stands for so many nanoseconds, or is taken once in so many bytes.
    pub period: u64,
    /// Samples whose stack ends before it came to its outermost function.
    pub broken: u64,
    /// Samples that were taken and not kept.
    pub lost: u64,
}

/// What a CPU profile says in which there is no sample.
pub const IDLE: &str =
    "the process was idle: no CPU samples. Send requests while profiling, or profile for more seconds";

impl Profile {
    /// Whether it is a CPU profile of a process that did nothing.
    pub fn is_idle(&self) -> bool {
        self.kind == Kind::Cpu && self.count() == 0
    }

    /// A profile of `stacks`; those that are the same become one.
    pub fn new(kind: Kind, stacks: Vec<Stack>) -> Self {
        let mut merged: BTreeMap<Vec<String>, (u64, u64)> = BTreeMap::new();
        for stack in stacks {
            let known = merged.entry(stack.frames).or_default();
            *known = (known.0 + stack.count, known.1 + stack.amount);
        }
        let stacks = merged.into_iter().map(|(frames, (count, amount))| Stack { frames, count, amount }).collect();
        Self { kind, stacks, began: SystemTime::now(), took: Duration::ZERO, period: 1, broken: 0, lost: 0 }
    }

    /// All samples, or allocations.
    pub fn count(&self) -> u64 {
        self.stacks.iter().map(|stack| stack.count).sum()
    }

    /// All nanoseconds, or bytes.
    pub fn amount(&self) -> u64 {
        self.stacks.iter().map(|stack| stack.amount).sum()
    }

    /// The part, between 0 and 1, of stacks that `wanted` says yes to.
    pub fn share(&self, wanted: impl Fn(&Stack) -> bool) -> f64 {
        let part: u64 = self.stacks.iter().filter(|stack| wanted(stack)).map(|stack| stack.amount).sum();
        part as f64 / self.amount().max(1) as f64
    }

    /// What stands behind a stack in its collapsed form: samples of a CPU profile, bytes of a heap's.
    pub(crate) fn weight(&self, stack: &Stack) -> u64 {
        match self.kind {
            Kind::Cpu => stack.count,
            Kind::Heap => stack.amount,
        }
    }

    /// One stack a line, frames divided by semicolons, then its weight: samples, or bytes. An idle process is one line of no
    /// weight.
    pub fn collapsed(&self) -> String {
        if self.is_idle() {
            return "[idle] 0\n".to_owned();
        }
        self.stacks.iter().map(|stack| format!("{} {}\n", stack.frames.join(";"), self.weight(stack))).collect()
    }
}
