//! The state as answers show it: times for people, and the names that clients of consultations know.

use caudal_store::{StreamId, Time};
use serde::Serialize;
use uuid::Uuid;

use super::{Calls, Facts, Failure, Message, Progress, Raw, State};
use crate::soap::{Note, SoapView, Urgency};
use crate::time::iso;

/// A consultation as it stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConsultationView<'a> {
    /// Its name.
    pub consultation_id: &'a str,
    /// The session it was begun in.
    pub session_id: Option<&'a str>,
    /// When it was begun.
    pub created_at: String,
    /// When the last event was appended.
    pub updated_at: String,
    /// Messages that stand.
    pub messages: Vec<MessageView<'a>>,
    /// Who the patient is.
    pub patient_data: &'a Facts,
    /// What they feel.
    pub symptoms: &'a Facts,
    /// Their history.
    pub context: &'a Facts,
    /// How far drawing data from the conversation is.
    pub extraction_status: Progress,
    /// Which round.
    pub extraction_iteration: u64,
    /// What it found.
    pub extraction_data: Option<&'a Raw>,
    /// What it did not find.
    pub extraction_missing_fields: Option<&'a Raw>,
    /// The note so far.
    pub soap_note: Option<Note>,
    /// How far writing it is.
    pub soap_status: Progress,
    /// Filled ÷ required fields of the note, from 0 to 1.
    pub completeness: f64,
    /// What `COMPLETENESS_CALCULATED` said last, in percent.
    pub completeness_reported: Option<&'a Raw>,
    /// How urgent it is.
    pub urgency_assessment: Option<Urgency>,
    /// Questions to language models.
    pub llm_calls: &'a Calls,
    /// The client's state, as it said last.
    pub core_state: Option<&'a Raw>,
    /// How many failures there were.
    pub error_count: u64,
    /// The last of them.
    pub errors: &'a [Failure],
    /// How many audit entries there were.
    pub audit_entry_count: u64,
    /// How often it began anew.
    pub reset_count: u64,
    /// Whether the note is final.
    pub is_committed: bool,
    /// SHA-256 of the note, as the client computed it.
    pub commit_hash: Option<&'a Raw>,
    /// Whether the note may be made final.
    pub is_ready_for_commit: bool,
    /// How many events there are.
    pub event_count: u64,
    /// The last of them.
    pub last_event_id: Option<Uuid>,
}

/// A message as answers show it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MessageView<'a> {
    /// Its name.
    pub message_id: &'a str,
    /// Who said it.
    pub message_role: Option<&'a Raw>,
    /// What it says now.
    pub message_content: Option<&'a Raw>,
    /// What is said about it.
    pub metadata: Option<&'a Raw>,
    /// When it came.
    pub received_at: String,
    /// When it was changed.
    pub updated_at: Option<String>,
    /// Whether it has been worked through.
    pub processed: bool,
}

impl<'a> ConsultationView<'a> {
    /// How the consultation `stream`, begun at `created`, is shown.
    pub fn of(stream: &'a StreamId, created: Time, session_id: Option<&'a str>, state: &'a State) -> Self {
        let SoapView { soap_note, completeness, urgency_assessment, is_ready_for_commit, .. } = SoapView::of(state);
        Self {
            consultation_id: &stream.name,
            session_id,
            created_at: iso(created),
            updated_at: iso(state.updated_at.unwrap_or(created)),
            messages: state.messages.iter().map(MessageView::of).collect(),
            patient_data: &state.patient_data,
            symptoms: &state.symptoms,
            context: &state.context,
            extraction_status: state.extraction.status,
            extraction_iteration: state.extraction.iteration,
            extraction_data: state.extraction.data.as_ref(),
            extraction_missing_fields: state.extraction.missing_fields.as_ref(),
            soap_note,
            soap_status: state.soap.status,
            completeness,
            completeness_reported: state.completeness_reported.as_ref(),
            urgency_assessment,
            llm_calls: &state.llm,
            core_state: state.core_state.as_ref(),
            error_count: state.error_count,
            errors: &state.errors,
            audit_entry_count: state.audit_entry_count,
            reset_count: state.reset_count,
            is_committed: state.commit.is_some(),
            commit_hash: state.commit.as_ref().and_then(|commit| commit.commit_hash.as_ref()),
            is_ready_for_commit,
            event_count: state.event_count,
            last_event_id: state.last_event_id,
        }
    }
}

impl<'a> MessageView<'a> {
    fn of(message: &'a Message) -> Self {
        Self {
            message_id: &message.message_id,
            message_role: message.message_role.as_ref(),
            message_content: message.message_content.as_ref(),
            metadata: message.metadata.as_ref(),
            received_at: iso(message.received_at),
            updated_at: message.updated_at.map(iso),
            processed: message.processed,
        }
    }
}
