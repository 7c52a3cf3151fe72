//! The event types of consultations. Payloads are permissive: required is what an event is nothing without, and
//! whatever else stands in a payload is kept.

use super::Shape::{Any, Flag, Integer, List, Number, Object, OneOf, Text};
use super::{Field, Shape};

const fn must(names: &'static [&'static str], shape: Shape, meaning: &'static str) -> Field {
    Field { names, shape, required: true, meaning }
}

const fn may(names: &'static [&'static str], shape: Shape, meaning: &'static str) -> Field {
    Field { names, shape, required: false, meaning }
}

const MESSAGE: Field =
    must(&["message_id"], Text, "The message: its `message_id`, or the id of the event that added it.");
const ITERATION: Field = may(&["iteration"], Integer(0, i64::MAX), "Number of the extraction round.");
const PERCENT: Shape = Number(0.0, 100.0);
const SHARE: Shape = Number(0.0, 1.0);
const GRAVITY: Field = may(&["gravity_score"], Integer(1, 10), "Severity, from 1 to 10.");
const TIME_TO_ACTION: Field = may(&["time_to_action"], Text, "Time within which to act.");
const ERROR: Field = may(&["error_message", "error"], Any, "The error.");
const CALL: Field =
    may(&["decision_id", "call_id"], Text, "Identifier of the call; a call without one is only counted.");
const SOAP: Field = may(&["soap_data"], Object, "The note, by section.");

/// Names of the sections of a SOAP note, as they are understood.
pub(crate) const SECTIONS: &[&str] = &[
    "subjetivo",
    "objetivo",
    "analisis",
    "plan",
    "subjective",
    "objective",
    "assessment",
    "analysis",
    "análisis",
    "S",
    "O",
    "A",
    "P",
];

/// Levels of urgency, the highest first.
pub(crate) const LEVELS: &[&str] = &["critical", "high", "medium", "low"];

macro_rules! kinds {
    ($($kind:ident $name:literal $meaning:literal [$($field:expr),* $(,)?];)+) => {
        /// A type of event.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind { $(#[doc = $meaning] $kind,)+ }

        impl Kind {
            /// All types.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)+];

            /// Its name in requests and records.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)+ }
            }

            /// What such an event says.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$kind => $meaning,)+ }
            }

            /// What its payload holds.
            pub const fn fields(self) -> &'static [Field] {
                match self { $(Self::$kind => const { &[$($field),*] },)+ }
            }

            /// The type of this name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$kind),)+ _ => None }
            }
        }
    };
}

kinds! {
    MessageReceived "MESSAGE_RECEIVED" "A message of the conversation." [
        must(&["message_content", "message", "content"], Text, "Text of the message."),
        may(&["message_role", "role"], Text, "Role of the speaker: user, assistant or another participant; default: user."),
        may(&["message_id"], Text, "Identifier of the message; default: the event's id."),
        may(&["metadata"], Object, "Metadata of the message."),
    ];
    MessageUpdated "MESSAGE_UPDATED" "The text of a message was replaced." [
        MESSAGE,
        must(&["updated_content", "message_content", "message", "content"], Text, "The new text."),
    ];
    MessageDeleted "MESSAGE_DELETED" "A message was withdrawn. It remains in the record; the state does not show it." [MESSAGE];
    MessageProcessed "MESSAGE_PROCESSED" "A message was processed." [MESSAGE];
    MessagesCleared "MESSAGES_CLEARED" "All messages so far were withdrawn." [];
    ConsultationReset "CONSULTATION_RESET" "The consultation starts over." [may(&["reason"], Text, "The reason.")];
    ConsultationCommitted "CONSULTATION_COMMITTED" "The note is final." [
        SOAP,
        may(&["committed_by"], Text, "The person responsible for the note."),
        may(&["commit_hash"], Text, "SHA-256 of the note, as the client computes it."),
        may(&["quality_score"], SHARE, "Quality of the note, as the client rates it."),
        may(&["completeness"], PERCENT, "Completeness in percent, as the client rates it."),
        may(&["nom_compliance"], PERCENT, "Compliance with NOM-004 in percent, as the client rates it."),
    ];
    ExtractionStarted "EXTRACTION_STARTED" "Extraction of medical data from the conversation started." [
        ITERATION,
        may(&["context_message_count"], Integer(0, i64::MAX), "Number of messages that the extraction reads."),
        may(&["has_previous_extraction"], Flag, "True if an earlier extraction exists."),
    ];
    ExtractionCompleted "EXTRACTION_COMPLETED" "Extraction of medical data from the conversation completed." [
        ITERATION,
        may(&["completeness"], PERCENT, "Share of the required data that is present, in percent."),
        may(&["nom_compliance"], PERCENT, "Compliance with NOM-004, in percent."),
        may(&["missing_fields"], List, "Fields that are still missing."),
        may(&["extraction_data"], Object, "The extracted data."),
    ];
    ExtractionFailed "EXTRACTION_FAILED" "Extraction of medical data failed." [
        ITERATION,
        ERROR,
        may(&["error_type"], Text, "Kind of failure."),
    ];
    ExtractionIterationIncremented "EXTRACTION_ITERATION_INCREMENTED" "A further extraction round started." [ITERATION];
    ExtractionProcessCompleted "EXTRACTION_PROCESS_COMPLETED" "The extraction is finished; no further round follows." [];
    DemographicsUpdated "DEMOGRAPHICS_UPDATED" "The patient's demographics. Fields that are absent or null leave the earlier value unchanged." [
        may(&["age"], Integer(0, 150), "Years."),
        may(&["gender"], Text, "male, female, other."),
        may(&["weight"], Number(0.0, 1000.0), "Kilograms."),
        may(&["height"], Number(0.0, 300.0), "Centimetres."),
        may(&["occupation"], Text, "Occupation of the patient."),
    ];
    SymptomsUpdated "SYMPTOMS_UPDATED" "The patient's symptoms. Fields that are absent or null leave the earlier value unchanged." [
        may(&["primary_symptoms"], List, "The main symptoms."),
        may(&["secondary_symptoms"], List, "Accompanying symptoms."),
        may(&["duration"], Text, "Time since onset."),
        may(&["severity"], Text, "mild, moderate, severe."),
        may(&["location"], Text, "Location in the body."),
        may(&["quality"], Text, "Character of the symptoms."),
        may(&["aggravating_factors"], List, "Factors that make the symptoms worse."),
        may(&["relieving_factors"], List, "Factors that relieve the symptoms."),
    ];
    ContextUpdated "CONTEXT_UPDATED" "The patient's history. Fields that are absent or null leave the earlier value unchanged." [
        may(&["past_medical_history"], List, "Past illnesses."),
        may(&["family_history"], List, "Illnesses in the family."),
        may(&["medications"], List, "Medications that the patient takes."),
        may(&["allergies"], List, "Substances that the patient does not tolerate."),
        may(&["surgeries"], List, "Past operations."),
    ];
    CompletenessCalculated "COMPLETENESS_CALCULATED" "The client rated the completeness of the data." [
        must(&["completeness_percentage", "completeness", "percentage"], PERCENT, "Percent."),
        may(&["missing_critical_fields"], List, "Fields that are still missing."),
    ];
    SoapGenerationStarted "SOAP_GENERATION_STARTED" "Generation of the note started." [];
    SoapSectionCompleted "SOAP_SECTION_COMPLETED" "A section of the note was written; it replaces the previous one." [
        must(&["section", "section_name"], OneOf(SECTIONS), "The section."),
        must(&["content", "section_content", "data"], Any, "An object with the fields of docs/soap.md, or free text."),
        may(&["confidence"], SHARE, "The author's confidence in the section."),
    ];
    SoapGenerationCompleted "SOAP_GENERATION_COMPLETED" "Generation of the note completed." [
        SOAP,
        may(&["quality_score"], SHARE, "Quality of the note, as its author rates it."),
        may(&["ready_for_commit"], Flag, "True if the author considers the note ready; Caudal makes its own assessment."),
    ];
    SoapGenerationFailed "SOAP_GENERATION_FAILED" "Generation of the note failed." [
        ERROR,
        may(&["partial_soap"], Object, "The part that was written before the failure."),
    ];
    CriticalPatternDetected "CRITICAL_PATTERN_DETECTED" "Signs of a life-threatening condition were detected." [
        must(&["pattern_name", "pattern"], Text, "The pattern."),
        GRAVITY,
        may(&["widow_maker_alert"], Flag, "True if the condition can kill within hours."),
        may(&["symptoms_matched"], List, "The symptoms that matched."),
        may(&["critical_differentials"], List, "Possible diagnoses."),
        TIME_TO_ACTION,
    ];
    UrgencyClassified "URGENCY_CLASSIFIED" "The urgency of the consultation was classified." [
        must(&["urgency_level", "urgency", "level"], OneOf(LEVELS), "The level of urgency."),
        GRAVITY,
        TIME_TO_ACTION,
        may(&["identified_patterns"], List, "Patterns that were recognised."),
        may(&["risk_factors"], List, "Factors that raise the risk."),
        may(&["immediate_actions"], List, "Actions to take immediately."),
    ];
    LlmCallInitiated "LLM_CALL_INITIATED" "A call to a language model started." [
        CALL,
        may(&["llm_provider", "provider"], Text, "Provider of the model."),
        may(&["query_text"], Text, "The query sent to the model."),
        may(&["agent_name"], Text, "The agent on whose behalf the call is made."),
    ];
    LlmCallCompleted "LLM_CALL_COMPLETED" "A call to a language model completed." [
        CALL,
        may(&["llm_provider", "provider"], Text, "Provider of the model."),
        may(&["decision_result"], Any, "The answer."),
        may(&["confidence"], SHARE, "The model's confidence."),
        may(&["latency_ms"], Number(0.0, f64::MAX), "Duration of the call in milliseconds."),
        may(&["tokens_used"], Any, "Number of tokens used."),
    ];
    LlmCallFailed "LLM_CALL_FAILED" "A call to a language model failed." [
        CALL,
        ERROR,
        may(&["retry_count"], Integer(0, i64::MAX), "Number of retries."),
    ];
    AuditEntryCreated "AUDIT_ENTRY_CREATED" "An audit entry was created." [
        may(&["audit_entries"], List, "The entries."),
    ];
    CoreStateChanged "CORE_STATE_CHANGED" "The client changed its state." [
        may(&["state", "core_state", "new_state", "status"], Any, "The new state."),
    ];
    CoreErrorOccurred "CORE_ERROR_OCCURRED" "The client reported an error." [
        may(&["error_message", "error", "message"], Any, "The error."),
    ];
}
