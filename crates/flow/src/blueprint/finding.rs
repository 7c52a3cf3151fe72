//! What is wrong with a file, or odd.

use std::{fmt, sync::Arc};

use serde::Serialize;

use super::tree::Mark;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file cannot be run.
    Error,
    /// It can, but perhaps not as meant.
    Warning,
}

/// Something that is wrong with a file, or odd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// In which file: empty for the one that was read, else one that it imports.
    pub file: Arc<str>,
    /// In which line, from 1.
    pub line: usize,
    /// In which column, from 1.
    pub column: usize,
    /// Its stable code.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// One sentence.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl Finding {
    pub(super) fn error(mark: Mark, code: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        let (message, hint) = (message.into(), hint.into());
        let file = Arc::from("");
        Self { file, line: mark.line, column: mark.column, code, severity: Severity::Error, message, hint }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, code, message, hint, severity } = self;
        let colon = if file.is_empty() { "" } else { ":" };
        let severity = if *severity == Severity::Error { "error" } else { "warning" };
        write!(f, "{file}{colon}{line}:{column}: {severity} {code}: {message} ({hint})")
    }
}

/// The codes of findings. Those that Flujo has mean what they mean there.
pub(super) mod code {
    /// The file cannot be read as YAML.
    pub(crate) const YAML: &str = "V-Y1";
    /// The file is too large, too deep, or becomes so by its anchors.
    pub(crate) const LARGE: &str = "V-Y2";
    /// A key is not known.
    pub(crate) const KEY: &str = "V-K1";
    /// A value is of another sort than its key takes.
    pub(crate) const SORT: &str = "V-K2";
    /// A key is missing.
    pub(crate) const MISSING: &str = "V-K3";
    /// A kind of step is not known.
    pub(crate) const KIND: &str = "V-K4";
    /// Something is known and not done, or done otherwise.
    pub(crate) const OTHERWISE: &str = "V-K5";
    /// A step does nothing.
    pub(crate) const NO_AGENT: &str = "V-A1";
    /// A leaf, agent, rule or check is not known, or its settings do not fit.
    pub(crate) const AGENT: &str = "V-A6";
    /// A number of an agent or of a step's config is none.
    pub(crate) const NUMBER: &str = "V-A7";
    /// A schema is none.
    pub(crate) const SCHEMA: &str = "V-S1";
    /// An expression or template cannot be read.
    pub(crate) const TEMPLATE: &str = "V-T3";
    /// `previous_step.output`, where `previous_step` is the output.
    pub(crate) const OUTPUT: &str = "V-T1";
    /// `this` outside a map.
    pub(crate) const THIS: &str = "V-T2";
    /// `steps.x`, where no step x comes before.
    pub(crate) const STEP: &str = "V-T4";
    /// Branches that write to one place of the context.
    pub(crate) const CONFLICT: &str = "V-P1";
    /// An import cannot be read.
    pub(crate) const IMPORT: &str = "V-I1";
    /// Imports import each other.
    pub(crate) const CYCLE: &str = "V-I3";
    /// A loop that cannot end but by its limit.
    pub(crate) const LOOP: &str = "V-L1";
    /// A state machine whose states do not hang together.
    pub(crate) const STATES: &str = "V-SM1";
}
