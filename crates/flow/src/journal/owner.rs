//! Which process runs a run.

use std::{fs, process};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A process that runs runs. It holds its name where these are kept for as long as it is there (`Runs::attend`), so that
/// others know of its end, on whatever machine they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Owner {
    /// No other has the same, nor will.
    pub name: Uuid,
    /// The machine's or container's name, for people.
    pub host: Box<str>,
    /// The process's number there, for people.
    pub pid: u32,
}

impl Default for Owner {
    /// One that was never there.
    fn default() -> Self {
        Self { name: Uuid::nil(), host: "".into(), pid: 0 }
    }
}

impl Owner {
    /// Another in this process.
    pub(crate) fn new() -> Self {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self { name: Uuid::new_v4(), host: host.trim().into(), pid: process::id() }
    }
}
