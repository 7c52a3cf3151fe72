//! Where a consultation stands: what its events say together, in order. Pure: the same events make the same state, and a
//! state that was written down and read again goes on as if it had not been.

mod apply;
mod messages;
#[cfg(test)]
pub(crate) mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet};

use caudal_store::Time;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use crate::raw::Raw;
pub use messages::{Message, Messages};
pub use view::{ConsultationView, MessageView};

/// The form of a [`State`] that is written down. One of another form is not read: the events are folded anew.
pub const SNAPSHOT_VERSION: u32 = 1;

/// Of errors, so many are kept, the last ones; all are counted.
pub const ERRORS_KEPT: usize = 20;

/// Of critical patterns with the same name one is kept, and at most so many names; all are counted.
pub const PATTERNS_KEPT: usize = 100;

/// What is known of one thing by its names, merged from several events.
pub type Facts = BTreeMap<String, Raw>;

/// Where a consultation stands. Times are microseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// How many events were applied.
    pub event_count: u64,
    /// The last of them.
    pub last_event_id: Option<Uuid>,
    /// The sequence of the last of them.
    pub sequence: u64,
    /// When the first was appended.
    pub first_event_at: Option<Time>,
    /// When the last was appended.
    pub updated_at: Option<Time>,
    /// How many there were of each type.
    pub events_by_type: BTreeMap<String, u64>,
    /// Messages that stand, in order.
    pub messages: Messages,
    /// What `DEMOGRAPHICS_UPDATED` said.
    pub patient_data: Facts,
    /// What `SYMPTOMS_UPDATED` said.
    pub symptoms: Facts,
    /// What `CONTEXT_UPDATED` said.
    pub context: Facts,
    /// Drawing data from the conversation.
    pub extraction: Extraction,
    /// What `COMPLETENESS_CALCULATED` said last, in percent. What Caudal finds itself is in the SOAP view.
    pub completeness_reported: Option<Raw>,
    /// The note.
    pub soap: Soap,
    /// What `URGENCY_CLASSIFIED` said last.
    pub urgency: Option<Raw>,
    /// What `CRITICAL_PATTERN_DETECTED` said, by the pattern's name.
    pub critical_patterns: BTreeMap<String, Raw>,
    /// How many critical patterns were detected.
    pub critical_pattern_count: u64,
    /// Questions to language models.
    pub llm: Calls,
    /// The client's state, as it said last.
    pub core_state: Option<Raw>,
    /// Whether the client failed at something and has not changed its state since.
    pub core_failed: bool,
    /// How many failures there were: of extractions, notes, models and clients.
    pub error_count: u64,
    /// The last of them.
    pub errors: Vec<Failure>,
    /// How many audit entries there were.
    pub audit_entry_count: u64,
    /// How often it began anew.
    pub reset_count: u64,
    /// Set once the note is final.
    pub commit: Option<Commit>,
}

/// How far something is that begins, ends or fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// Not begun.
    #[default]
    Idle,
    /// Begun.
    Running,
    /// Ended well.
    Completed,
    /// Ended badly.
    Failed,
}

/// Drawing medical data from the conversation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Extraction {
    /// How far it is.
    pub status: Progress,
    /// Which round.
    pub iteration: u64,
    /// Whether no further round follows.
    pub finished: bool,
    /// What the last good round found.
    pub data: Option<Raw>,
    /// What it did not find.
    pub missing_fields: Option<Raw>,
    /// How complete it finds the data, in percent.
    pub completeness: Option<Raw>,
    /// How far it finds that the data follows NOM-004, in percent.
    pub nom_compliance: Option<Raw>,
}

/// The note as events gave it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Soap {
    /// How far writing it is.
    pub status: Progress,
    /// Sections that were completed, by `subjetivo`, `objetivo`, `analisis`, `plan`.
    pub sections: Facts,
    /// How good its writer finds it.
    pub quality_score: Option<Raw>,
}

/// Questions to language models.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Calls {
    /// How many were begun.
    pub initiated: u64,
    /// How many were answered.
    pub completed: u64,
    /// How many failed.
    pub failed: u64,
    /// Names of those begun and not ended.
    pub open: BTreeSet<String>,
    /// Names of those that failed and were not answered since.
    pub failing: BTreeSet<String>,
}

/// A failure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The type of event that told of it.
    pub event_type: String,
    /// Its place in the stream.
    pub sequence: u64,
    /// When.
    pub time: Time,
    /// What it said.
    pub error: Option<Raw>,
}

/// That the note is final.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    /// The event that says so.
    pub sequence: u64,
    /// When.
    pub time: Time,
    /// Who answers for it.
    pub committed_by: Option<Raw>,
    /// SHA-256 of the note, as the client computed it.
    pub commit_hash: Option<Raw>,
}
