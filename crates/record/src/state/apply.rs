//! What each type of event does to the state. Reads of a payload what the state keeps, once, and no tree.

use super::{
    Calls, Commit, ERRORS_KEPT, Extraction, Facts, Failure, Message, PATTERNS_KEPT, Progress, Raw, Soap, State,
};
use crate::event::Event;
use crate::kinds::Kind;
use crate::members::{Members, text};
use crate::soap::Section;

/// The values of the members named, in that order; the first of several names that stands there counts, and `null` is
/// nothing.
fn pick<'a, const N: usize>(payload: &'a [u8], names: [&[&str]; N]) -> [Option<&'a str>; N] {
    let mut found = [None; N];
    for (key, value) in Members::of_bytes(payload).filter(|(_, value)| *value != "null") {
        if let Some(index) = names.iter().position(|names| names.contains(&key)) {
            found[index].get_or_insert(value);
        }
    }
    found
}

fn raw(value: Option<&str>) -> Option<Raw> {
    value.and_then(Raw::new)
}

fn string(value: Option<&str>) -> Option<String> {
    value.and_then(text).map(std::borrow::Cow::into_owned)
}

const CONTENT: &[&str] = &["updated_content", "message_content", "message", "content"];
const ERROR: &[&str] = &["error_message", "error", "message"];
const CALL: &[&str] = &["decision_id", "call_id"];

impl State {
    /// Applies the next event. Types that are not ours are counted and change nothing else.
    pub fn apply(&mut self, event: &Event<'_>) {
        self.event_count += 1;
        self.sequence = event.sequence;
        self.last_event_id = Some(event.id);
        self.first_event_at.get_or_insert(event.time);
        self.updated_at = Some(event.time);
        match self.events_by_type.get_mut(event.kind) {
            Some(count) => *count += 1,
            None => {
                self.events_by_type.insert(event.kind.to_owned(), 1);
            }
        }
        if let Some(kind) = Kind::from_name(event.kind) {
            self.apply_kind(kind, event);
        }
    }

    fn apply_kind(&mut self, kind: Kind, event: &Event<'_>) {
        let payload = event.payload;
        match kind {
            Kind::MessageReceived => self.receive(event),
            Kind::MessageUpdated => {
                let [id, content] = pick(payload, [&["message_id"], CONTENT]);
                if let Some(message) = string(id).and_then(|id| self.messages.get_mut(&id)) {
                    message.message_content = raw(content).or(message.message_content.take());
                    message.updated_at = Some(event.time);
                }
            }
            Kind::MessageDeleted => {
                let [id] = pick(payload, [&["message_id"]]);
                if let Some(id) = string(id) {
                    self.messages.remove(&id);
                }
            }
            Kind::MessageProcessed => {
                let [id] = pick(payload, [&["message_id"]]);
                if let Some(message) = string(id).and_then(|id| self.messages.get_mut(&id)) {
                    message.processed = true;
                }
            }
            Kind::MessagesCleared => self.messages = Default::default(),
            Kind::ConsultationReset => self.reset(),
            Kind::ConsultationCommitted => {
                let [soap, committed_by, commit_hash, quality] =
                    pick(payload, [&["soap_data"], &["committed_by"], &["commit_hash"], &["quality_score"]]);
                self.soap.take(soap, quality);
                let (sequence, time) = (event.sequence, event.time);
                self.commit =
                    Some(Commit { sequence, time, committed_by: raw(committed_by), commit_hash: raw(commit_hash) });
            }
            Kind::ExtractionStarted => {
                self.extraction.status = Progress::Running;
                self.extraction.finished = false;
                self.extraction.count(payload, false);
            }
            Kind::ExtractionCompleted => self.extraction.complete(payload),
            Kind::ExtractionFailed => {
                self.extraction.status = Progress::Failed;
                self.extraction.count(payload, false);
                self.fail(event);
            }
            Kind::ExtractionIterationIncremented => self.extraction.count(payload, true),
            Kind::ExtractionProcessCompleted => {
                self.extraction.finished = true;
                if self.extraction.status == Progress::Running {
                    self.extraction.status = Progress::Completed;
                }
            }
            Kind::DemographicsUpdated => merge(&mut self.patient_data, payload),
            Kind::SymptomsUpdated => merge(&mut self.symptoms, payload),
            Kind::ContextUpdated => merge(&mut self.context, payload),
            Kind::CompletenessCalculated => {
                let [percent] = pick(payload, [&["completeness_percentage", "completeness", "percentage"]]);
                self.completeness_reported = raw(percent);
            }
            Kind::SoapGenerationStarted => self.soap.status = Progress::Running,
            Kind::SoapSectionCompleted => {
                let [section, content] =
                    pick(payload, [&["section", "section_name"], &["content", "section_content", "data"]]);
                if let (Some(section), Some(content)) =
                    (section.and_then(text).and_then(|name| Section::read(&name)), raw(content))
                {
                    self.soap.sections.insert(section.name().to_owned(), content);
                }
            }
            Kind::SoapGenerationCompleted => {
                let [soap, quality] = pick(payload, [&["soap_data"], &["quality_score"]]);
                self.soap.status = Progress::Completed;
                self.soap.take(soap, quality);
            }
            Kind::SoapGenerationFailed => {
                self.soap.status = Progress::Failed;
                self.fail(event);
            }
            Kind::CriticalPatternDetected => {
                self.critical_pattern_count += 1;
                let [name] = pick(payload, [&["pattern_name", "pattern"]]);
                let name = string(name).unwrap_or_default();
                let known = self.critical_patterns.contains_key(&name);
                if let Some(said) = whole(payload).filter(|_| known || self.critical_patterns.len() < PATTERNS_KEPT) {
                    self.critical_patterns.insert(name, said);
                }
            }
            Kind::UrgencyClassified => self.urgency = whole(payload),
            Kind::LlmCallInitiated => self.llm.begin(payload),
            Kind::LlmCallCompleted => self.llm.end(payload, true),
            Kind::LlmCallFailed => {
                self.llm.end(payload, false);
                self.fail(event);
            }
            Kind::AuditEntryCreated => self.audit_entry_count += 1,
            Kind::CoreStateChanged => {
                let [state] = pick(payload, [&["state", "core_state", "new_state", "status"]]);
                self.core_state = raw(state).or_else(|| whole(payload));
                self.core_failed = false;
            }
            Kind::CoreErrorOccurred => {
                self.core_failed = true;
                self.fail(event);
            }
        }
    }

    fn receive(&mut self, event: &Event<'_>) {
        let [id, role, content, metadata] =
            pick(event.payload, [&["message_id"], &["message_role", "role"], CONTENT, &["metadata"]]);
        self.messages.add(Message {
            message_id: string(id).unwrap_or_else(|| event.id.to_string()),
            sequence: event.sequence,
            message_role: raw(role),
            message_content: raw(content),
            metadata: raw(metadata),
            received_at: event.time,
            updated_at: None,
            processed: false,
        });
    }

    /// Begins anew. What was committed stays so, and what happened stays counted.
    fn reset(&mut self) {
        let before = std::mem::take(self);
        *self = Self {
            event_count: before.event_count,
            last_event_id: before.last_event_id,
            sequence: before.sequence,
            first_event_at: before.first_event_at,
            updated_at: before.updated_at,
            events_by_type: before.events_by_type,
            error_count: before.error_count,
            audit_entry_count: before.audit_entry_count,
            reset_count: before.reset_count + 1,
            commit: before.commit,
            ..Self::default()
        };
    }

    fn fail(&mut self, event: &Event<'_>) {
        self.error_count += 1;
        if self.errors.len() == ERRORS_KEPT {
            self.errors.remove(0);
        }
        let [error] = pick(event.payload, [ERROR]);
        let (sequence, time) = (event.sequence, event.time);
        self.errors.push(Failure { event_type: event.kind.to_owned(), sequence, time, error: raw(error) });
    }
}

impl Extraction {
    /// Which round it is: the one that is said, or `further` one more.
    fn count(&mut self, payload: &[u8], further: bool) {
        let [iteration] = pick(payload, [&["iteration"]]);
        let said = iteration.and_then(|iteration| iteration.trim_end_matches(".0").parse().ok());
        self.iteration = said.unwrap_or(self.iteration + u64::from(further));
    }

    fn complete(&mut self, payload: &[u8]) {
        self.count(payload, false);
        let [data, missing, completeness, compliance] =
            pick(payload, [&["extraction_data"], &["missing_fields"], &["completeness"], &["nom_compliance"]]);
        self.status = Progress::Completed;
        self.data = raw(data).or(self.data.take());
        self.missing_fields = raw(missing);
        self.completeness = raw(completeness);
        self.nom_compliance = raw(compliance);
    }
}

impl Soap {
    /// Takes the sections of a whole note.
    fn take(&mut self, soap: Option<&str>, quality: Option<&str>) {
        for (name, content) in soap.into_iter().flat_map(Members::of).filter(|(_, content)| *content != "null") {
            if let (Some(section), Some(content)) = (Section::read(name), Raw::new(content)) {
                self.sections.insert(section.name().to_owned(), content);
            }
        }
        self.quality_score = raw(quality).or(self.quality_score.take());
    }
}

impl Calls {
    fn begin(&mut self, payload: &[u8]) {
        let [id] = pick(payload, [CALL]);
        self.initiated += 1;
        self.open.extend(string(id));
    }

    fn end(&mut self, payload: &[u8], well: bool) {
        let [id] = pick(payload, [CALL]);
        *(if well { &mut self.completed } else { &mut self.failed }) += 1;
        if let Some(id) = string(id) {
            self.open.remove(&id);
            if well {
                self.failing.remove(&id);
            } else {
                self.failing.insert(id);
            }
        }
    }
}

/// Takes over what is said; `null` says nothing.
fn merge(facts: &mut Facts, payload: &[u8]) {
    for (key, value) in Members::of_bytes(payload).filter(|(_, value)| *value != "null") {
        let quoted = key.contains('\\').then(|| format!("\"{key}\""));
        let key = quoted.as_deref().and_then(|quoted| string(Some(quoted))).unwrap_or_else(|| key.to_owned());
        facts.extend(Raw::new(value).map(|value| (key, value)));
    }
}

fn whole(payload: &[u8]) -> Option<Raw> {
    std::str::from_utf8(payload).ok().and_then(Raw::new)
}
