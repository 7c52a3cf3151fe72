//! Consultations, their events, the state and the note that the events make.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Members;

/// A consultation that is to be made.
#[derive(ToSchema)]
pub(crate) struct NewConsultation {
    /// Who makes it.
    #[schema(example = "dr-lopez")]
    user_id: String,
    /// What is known of the patient.
    patient_stub: Option<Members>,
    /// Its id; the server makes one when absent.
    consultation_id: Option<String>,
    /// The session that it belongs to; the server makes one when absent.
    session_id: Option<String>,
}

/// A page of consultations.
#[derive(ToSchema)]
pub(crate) struct ConsultationPage {
    /// All consultations, not only those of this page.
    total: u64,
    offset: u64,
    returned_count: usize,
    consultations: Vec<ConsultationItem>,
}

/// A consultation in a list.
#[derive(ToSchema)]
pub(crate) struct ConsultationItem {
    consultation_id: String,
    /// ISO 8601, UTC.
    created_at: String,
    /// When it was made in the system that it was imported from; absent where it was not imported.
    #[schema(nullable = false)]
    original_created_at: Option<String>,
    /// When the last event was appended.
    updated_at: String,
    event_count: u64,
}

/// A consultation with the state that its events make.
#[derive(ToSchema)]
pub(crate) struct ConsultationAnswer {
    consultation: ConsultationDetails,
}

#[derive(ToSchema)]
struct ConsultationDetails {
    consultation_id: String,
    about: ConsultationAbout,
    created_at: String,
    /// When it was made in the system that it was imported from; absent where it was not imported.
    #[schema(nullable = false)]
    original_created_at: Option<String>,
    updated_at: String,
    event_count: u64,
    /// The last link of the hash chain, 64 hexadecimal digits.
    chain_hash: String,
    state: ConsultationState,
}

/// What was said when the consultation was made.
#[derive(ToSchema)]
struct ConsultationAbout {
    user_id: String,
    session_id: String,
    #[schema(nullable = false)]
    patient_stub: Option<Members>,
    /// What the file said of it that it was imported from.
    #[schema(nullable = false)]
    original: Option<Members>,
}

/// What all events of a consultation say together. Times are microseconds since 1970.
#[derive(ToSchema)]
struct ConsultationState {
    event_count: u64,
    last_event_id: Option<Uuid>,
    sequence: u64,
    first_event_at: Option<i64>,
    updated_at: Option<i64>,
    /// Events of each type.
    events_by_type: BTreeMap<String, u64>,
    messages: Vec<ConsultationMessage>,
    /// Merged from `DEMOGRAPHICS_UPDATED`.
    patient_data: Members,
    /// Merged from `SYMPTOMS_UPDATED`.
    symptoms: Members,
    /// Merged from `CONTEXT_UPDATED`.
    context: Members,
    extraction: Extraction,
    /// The last `COMPLETENESS_CALCULATED`, in percent.
    completeness_reported: Value,
    soap: SoapProgress,
    /// The last `URGENCY_CLASSIFIED`.
    urgency: Value,
    /// The last `CRITICAL_PATTERN_DETECTED` of each pattern.
    critical_patterns: Members,
    critical_pattern_count: u64,
    llm: LlmCalls,
    core_state: Value,
    core_failed: bool,
    error_count: u64,
    /// The last errors.
    errors: Vec<ConsultationFailure>,
    audit_entry_count: u64,
    reset_count: u64,
    /// Set when the note is final.
    commit: Option<Commit>,
}

/// A message of the conversation.
#[derive(ToSchema)]
struct ConsultationMessage {
    message_id: String,
    /// The event that brought it.
    sequence: u64,
    message_role: Value,
    message_content: Value,
    #[schema(required = false)]
    metadata: Value,
    received_at: i64,
    updated_at: Option<i64>,
    processed: bool,
}

/// Progress of a task.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
enum TaskProgress {
    Idle,
    Running,
    Completed,
    Failed,
}

/// Extraction of medical data from the conversation.
#[derive(ToSchema)]
struct Extraction {
    status: TaskProgress,
    iteration: u64,
    finished: bool,
    data: Value,
    missing_fields: Value,
    completeness: Value,
    nom_compliance: Value,
}

/// Writing of the note.
#[derive(ToSchema)]
struct SoapProgress {
    status: TaskProgress,
    /// Completed sections: `subjetivo`, `objetivo`, `analisis`, `plan`.
    sections: Members,
    quality_score: Value,
}

/// Calls of language models.
#[derive(ToSchema)]
struct LlmCalls {
    initiated: u64,
    completed: u64,
    failed: u64,
    /// Begun and not ended.
    open: Vec<String>,
    /// Failed, and not answered since.
    failing: Vec<String>,
}

/// A failure that an event reports.
#[derive(ToSchema)]
struct ConsultationFailure {
    event_type: String,
    sequence: u64,
    time: i64,
    error: Value,
}

/// The commit of the note.
#[derive(ToSchema)]
struct Commit {
    sequence: u64,
    time: i64,
    committed_by: Value,
    commit_hash: Value,
}

/// An event that is to be appended.
#[derive(ToSchema)]
pub(crate) struct NewEvent {
    /// One of `docs/events.md`, or one of your own.
    #[schema(example = "MESSAGE_RECEIVED")]
    event_type: String,
    /// What happened; its fields depend on the type.
    payload: Members,
    user_id: Option<String>,
    session_id: Option<String>,
    /// What is said about the event.
    metadata: Option<Members>,
    /// Its id; the server makes one when absent.
    event_id: Option<Uuid>,
    /// The number of events that the consultation must have; 409 if it has another.
    expected_version: Option<u64>,
}

/// Several events that are to be appended: all, or none.
#[derive(ToSchema)]
pub(crate) struct NewEvents {
    #[schema(max_items = 10000)]
    events: Vec<NewEvent>,
    /// The number of events that the consultation must have; 409 if it has another.
    expected_version: Option<u64>,
}

/// Several events that were appended.
#[derive(ToSchema)]
pub(crate) struct AppendedEvents {
    consultation_id: String,
    /// Events of the consultation.
    event_count: u64,
    first_sequence: u64,
    last_sequence: u64,
    timestamp: String,
    events: Vec<AppendedEvent>,
    /// Whether they had been appended before, by the same request under the same Idempotency-Key or with the same ids.
    #[schema(required = false)]
    repeated: bool,
}

#[derive(ToSchema)]
struct AppendedEvent {
    event_id: Uuid,
    sequence: u64,
    /// SHA-256 of the payload in canonical form.
    audit_hash: String,
}

/// The end of a stream of events.
#[derive(ToSchema)]
pub(crate) struct StreamedEvents {
    consultation_id: String,
    /// Events that were appended.
    appended: u64,
    /// Events that had been recorded before, under the same ids and with the same content; absent if there are none.
    #[schema(nullable = false)]
    repeated: Option<u64>,
    last_sequence: u64,
    event_count: u64,
}

/// An event as it was recorded.
#[derive(ToSchema)]
pub(crate) struct Event {
    event_id: Uuid,
    consultation_id: String,
    /// Its place, from 1.
    sequence: u64,
    /// ISO 8601, UTC.
    timestamp: String,
    /// The same in microseconds since 1970.
    time: i64,
    /// When it happened, where it was imported and had a time of its own; else absent.
    #[schema(nullable = false)]
    occurred_at: Option<String>,
    event_type: String,
    /// What happened: an object, or a text where it cannot be read as JSON.
    payload: Value,
    /// What is said about the event.
    metadata: Value,
    /// SHA-256 of the payload in canonical form.
    audit_hash: String,
    /// Its link of the hash chain.
    chain_hash: String,
}

/// A page of events.
#[derive(ToSchema)]
pub(crate) struct EventPage {
    consultation_id: String,
    /// All events of the consultation.
    event_count: u64,
    returned_count: usize,
    offset: u64,
    events: Vec<Event>,
}

/// The SOAP note of a consultation.
#[derive(ToSchema)]
pub(crate) struct SoapAnswer {
    /// The note; null while nothing is known.
    soap_note: Option<SoapNote>,
    sources: SoapSources,
    /// Filled of all required fields, 0 to 1.
    #[schema(minimum = 0, maximum = 1)]
    completeness: f64,
    /// Required fields that are empty, as `section.field`.
    missing_fields: Vec<String>,
    urgency_assessment: Option<UrgencyAssessment>,
    /// Tasks that have begun and not ended.
    open: Vec<String>,
    /// Tasks that failed and have not succeeded since.
    failed: Vec<String>,
    is_ready_for_commit: bool,
    is_committed: bool,
}

/// The sections of the note.
#[derive(ToSchema)]
struct SoapNote {
    ficha_identificacion: Members,
    subjetivo: Value,
    objetivo: Value,
    analisis: Value,
    plan: Value,
}

/// Where each section comes from.
#[derive(ToSchema)]
struct SoapSources {
    subjetivo: SoapSource,
    objetivo: SoapSource,
    analisis: SoapSource,
    plan: SoapSource,
}

/// The origin of a section: written, drafted from what is known of the patient, or missing.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
enum SoapSource {
    Section,
    Draft,
    Missing,
}

/// How urgent it is.
#[derive(ToSchema)]
struct UrgencyAssessment {
    /// `critical`, `high`, `medium` or `low`.
    urgency_level: String,
    classified_level: Option<String>,
    /// Whether a critical pattern raised the level.
    raised: bool,
    /// From 1 to 10.
    gravity_score: Option<i64>,
    time_to_action: Value,
    identified_patterns: Value,
    risk_factors: Value,
    immediate_actions: Value,
    critical_patterns: Vec<Value>,
}
