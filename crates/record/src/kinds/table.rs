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
    must(&["message_id"], Text, "Which message: its `message_id`, or the id of the event that brought it.");
const ITERATION: Field = may(&["iteration"], Integer(0, i64::MAX), "Which round of the extraction.");
const PERCENT: Shape = Number(0.0, 100.0);
const SHARE: Shape = Number(0.0, 1.0);
const GRAVITY: Field = may(&["gravity_score"], Integer(1, 10), "How grave, from 1 to 10.");
const TIME_TO_ACTION: Field = may(&["time_to_action"], Text, "How soon somebody must act.");
const ERROR: Field = may(&["error_message", "error"], Any, "What went wrong.");
const CALL: Field = may(&["decision_id", "call_id"], Text, "Which call; one that has none is only counted.");
const SOAP: Field = may(&["soap_data"], Object, "The note, by sections.");

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
        must(&["message_content", "message", "content"], Text, "What was said."),
        may(&["message_role", "role"], Text, "Who said it: user, assistant, or whoever else takes part; user unless said."),
        may(&["message_id"], Text, "The message's own name; the event's id unless said."),
        may(&["metadata"], Object, "What is said about it."),
    ];
    MessageUpdated "MESSAGE_UPDATED" "A message says something else now." [
        MESSAGE,
        must(&["updated_content", "message_content", "message", "content"], Text, "What it says now."),
    ];
    MessageDeleted "MESSAGE_DELETED" "A message is withdrawn. The record keeps it; the state does not show it." [MESSAGE];
    MessageProcessed "MESSAGE_PROCESSED" "A message has been worked through." [MESSAGE];
    MessagesCleared "MESSAGES_CLEARED" "All messages so far are withdrawn." [];
    ConsultationReset "CONSULTATION_RESET" "The consultation begins anew." [may(&["reason"], Text, "Why.")];
    ConsultationCommitted "CONSULTATION_COMMITTED" "The note is final." [
        SOAP,
        may(&["committed_by"], Text, "Who answers for it."),
        may(&["commit_hash"], Text, "SHA-256 of the note, as the client computes it."),
        may(&["quality_score"], SHARE, "How good the note is said to be."),
        may(&["completeness"], PERCENT, "How complete it is said to be."),
        may(&["nom_compliance"], PERCENT, "How far it is said to follow NOM-004."),
    ];
    ExtractionStarted "EXTRACTION_STARTED" "Medical data is being drawn from the conversation." [
        ITERATION,
        may(&["context_message_count"], Integer(0, i64::MAX), "How many messages it looks at."),
        may(&["has_previous_extraction"], Flag, "Whether there is one already."),
    ];
    ExtractionCompleted "EXTRACTION_COMPLETED" "Medical data was drawn from the conversation." [
        ITERATION,
        may(&["completeness"], PERCENT, "How much of what is needed is there."),
        may(&["nom_compliance"], PERCENT, "How far it follows NOM-004."),
        may(&["missing_fields"], List, "What is not there yet."),
        may(&["extraction_data"], Object, "What was found."),
    ];
    ExtractionFailed "EXTRACTION_FAILED" "Drawing medical data failed." [
        ITERATION,
        ERROR,
        may(&["error_type"], Text, "Which sort of failure."),
    ];
    ExtractionIterationIncremented "EXTRACTION_ITERATION_INCREMENTED" "Another round of the extraction." [ITERATION];
    ExtractionProcessCompleted "EXTRACTION_PROCESS_COMPLETED" "No further round follows." [];
    DemographicsUpdated "DEMOGRAPHICS_UPDATED" "Who the patient is. What is not said or null stays as it was." [
        may(&["age"], Integer(0, 150), "Years."),
        may(&["gender"], Text, "male, female, other."),
        may(&["weight"], Number(0.0, 1000.0), "Kilograms."),
        may(&["height"], Number(0.0, 300.0), "Centimetres."),
        may(&["occupation"], Text, "What they do."),
    ];
    SymptomsUpdated "SYMPTOMS_UPDATED" "What the patient feels. What is not said or null stays as it was." [
        may(&["primary_symptoms"], List, "What they come for."),
        may(&["secondary_symptoms"], List, "What comes with it."),
        may(&["duration"], Text, "Since when."),
        may(&["severity"], Text, "mild, moderate, severe."),
        may(&["location"], Text, "Where."),
        may(&["quality"], Text, "What it is like."),
        may(&["aggravating_factors"], List, "What makes it worse."),
        may(&["relieving_factors"], List, "What makes it better."),
    ];
    ContextUpdated "CONTEXT_UPDATED" "The patient's history. What is not said or null stays as it was." [
        may(&["past_medical_history"], List, "Illnesses."),
        may(&["family_history"], List, "Illnesses of the family."),
        may(&["medications"], List, "What they take."),
        may(&["allergies"], List, "What they do not tolerate."),
        may(&["surgeries"], List, "Operations."),
    ];
    CompletenessCalculated "COMPLETENESS_CALCULATED" "How complete somebody finds the data." [
        must(&["completeness_percentage", "completeness", "percentage"], PERCENT, "Percent."),
        may(&["missing_critical_fields"], List, "What is not there yet."),
    ];
    SoapGenerationStarted "SOAP_GENERATION_STARTED" "A note is being written." [];
    SoapSectionCompleted "SOAP_SECTION_COMPLETED" "A section of the note is written; it replaces what stood there." [
        must(&["section", "section_name"], OneOf(SECTIONS), "Which."),
        must(&["content", "section_content", "data"], Any, "An object with the fields of docs/soap.md, or free text."),
        may(&["confidence"], SHARE, "How sure its writer is."),
    ];
    SoapGenerationCompleted "SOAP_GENERATION_COMPLETED" "The note is written." [
        SOAP,
        may(&["quality_score"], SHARE, "How good it is said to be."),
        may(&["ready_for_commit"], Flag, "Whether its writer finds it ready; Caudal answers for itself."),
    ];
    SoapGenerationFailed "SOAP_GENERATION_FAILED" "Writing the note failed." [
        ERROR,
        may(&["partial_soap"], Object, "What was written until then."),
    ];
    CriticalPatternDetected "CRITICAL_PATTERN_DETECTED" "Signs of something that threatens life." [
        must(&["pattern_name", "pattern"], Text, "Which."),
        GRAVITY,
        may(&["widow_maker_alert"], Flag, "Whether it kills within hours."),
        may(&["symptoms_matched"], List, "By which signs."),
        may(&["critical_differentials"], List, "What it may be."),
        TIME_TO_ACTION,
    ];
    UrgencyClassified "URGENCY_CLASSIFIED" "How urgent it is." [
        must(&["urgency_level", "urgency", "level"], OneOf(LEVELS), "How urgent."),
        GRAVITY,
        TIME_TO_ACTION,
        may(&["identified_patterns"], List, "What was recognised."),
        may(&["risk_factors"], List, "What makes it worse."),
        may(&["immediate_actions"], List, "What must be done at once."),
    ];
    LlmCallInitiated "LLM_CALL_INITIATED" "A language model is asked." [
        CALL,
        may(&["llm_provider", "provider"], Text, "Whose model."),
        may(&["query_text"], Text, "What it is asked."),
        may(&["agent_name"], Text, "For whom."),
    ];
    LlmCallCompleted "LLM_CALL_COMPLETED" "A language model answered." [
        CALL,
        may(&["llm_provider", "provider"], Text, "Whose model."),
        may(&["decision_result"], Any, "What it answered."),
        may(&["confidence"], SHARE, "How sure it is."),
        may(&["latency_ms"], Number(0.0, f64::MAX), "How long it took."),
        may(&["tokens_used"], Any, "How many tokens it took."),
    ];
    LlmCallFailed "LLM_CALL_FAILED" "A language model did not answer." [
        CALL,
        ERROR,
        may(&["retry_count"], Integer(0, i64::MAX), "How often it was tried again."),
    ];
    AuditEntryCreated "AUDIT_ENTRY_CREATED" "Something that auditors should see." [
        may(&["audit_entries"], List, "The entries."),
    ];
    CoreStateChanged "CORE_STATE_CHANGED" "The client is in another state." [
        may(&["state", "core_state", "new_state", "status"], Any, "Which."),
    ];
    CoreErrorOccurred "CORE_ERROR_OCCURRED" "The client failed at something." [
        may(&["error_message", "error", "message"], Any, "What went wrong."),
    ];
}
