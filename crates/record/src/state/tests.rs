//! Folds: each type does what it says, and a state that was written down goes on as if it had not been.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::canonical::canonical;
use crate::event::Event;

/// The state after these events, one a second.
pub(crate) fn fold(events: &[(&str, Value)]) -> State {
    let mut state = State::default();
    go_on(&mut state, events);
    state
}

fn go_on(state: &mut State, events: &[(&str, Value)]) {
    for (kind, payload) in events {
        let payload = canonical(payload.to_string().as_bytes()).unwrap();
        let sequence = state.event_count + 1;
        let (time, id) = (sequence as i64 * 1_000_000, Uuid::from_u128(sequence.into()));
        state.apply(&Event { sequence, time, id, kind, payload: &payload });
    }
}

fn as_json(state: &State) -> Value {
    serde_json::to_value(state).unwrap()
}

fn contents(state: &State) -> Vec<String> {
    state.messages.iter().map(|message| message.message_content.as_ref().unwrap().as_text().unwrap().into()).collect()
}

#[test]
fn messages_come_change_and_go() {
    let second = Uuid::from_u128(2).to_string();
    let said = |id: &str, text: &str| ("MESSAGE_RECEIVED", json!({ "message_id": id, "message_content": text }));
    let mut events = vec![
        said("a", "uno"),
        ("MESSAGE_RECEIVED", json!({ "message": "dos \"ñ\"\n" })),
        said("c", "tres"),
        ("MESSAGE_UPDATED", json!({ "message_id": second, "content": "dos, mejor" })),
        ("MESSAGE_PROCESSED", json!({ "message_id": "c" })),
        ("MESSAGE_DELETED", json!({ "message_id": "a" })),
        ("MESSAGE_DELETED", json!({ "message_id": "nobody" })),
    ];
    let state = fold(&events);
    assert_eq!(contents(&state), ["dos, mejor", "tres"]);
    let messages: Vec<_> = state.messages.iter().collect();
    assert_eq!(messages[0].updated_at, Some(4_000_000));
    assert_eq!((messages[0].processed, messages[1].processed), (false, true));
    assert_eq!((state.event_count, state.last_event_id), (7, Some(Uuid::from_u128(7))));
    assert_eq!(state.events_by_type["MESSAGE_DELETED"], 2);
    // Brought again, it stands where it stood.
    events.push(said("c", "tres otra vez"));
    events.push(said("d", "cuatro"));
    assert_eq!(contents(&fold(&events)), ["dos, mejor", "tres otra vez", "cuatro"]);
    events.push(("MESSAGES_CLEARED", json!({})));
    assert!(fold(&events).messages.is_empty());
}

#[test]
fn facts_are_merged_and_null_says_nothing() {
    let state = fold(&[
        ("DEMOGRAPHICS_UPDATED", json!({ "age": 54, "gender": "female", "weight": null })),
        ("DEMOGRAPHICS_UPDATED", json!({ "age": null, "weight": 71.5, "ciudad\n": "Mérida" })),
        ("SYMPTOMS_UPDATED", json!({ "primary_symptoms": ["dolor"] })),
        ("CONTEXT_UPDATED", json!({ "allergies": ["penicilina"] })),
    ]);
    let state = as_json(&state);
    assert_eq!(state["patient_data"], json!({ "age": 54, "gender": "female", "weight": 71.5, "ciudad\n": "Mérida" }));
    assert_eq!(state["symptoms"], json!({ "primary_symptoms": ["dolor"] }));
    assert_eq!(state["context"], json!({ "allergies": ["penicilina"] }));
}

#[test]
fn extraction_goes_round() {
    let mut events = vec![("EXTRACTION_STARTED", json!({ "iteration": 1 }))];
    assert_eq!(fold(&events).extraction.status, Progress::Running);
    events.push(("EXTRACTION_FAILED", json!({ "error_message": "timeout" })));
    let state = fold(&events);
    assert_eq!((state.extraction.status, state.error_count, state.errors[0].sequence), (Progress::Failed, 1, 2));
    assert_eq!(state.errors[0].error.as_ref().unwrap().as_json(), "\"timeout\"");
    events.push(("EXTRACTION_ITERATION_INCREMENTED", json!({})));
    events.push((
        "EXTRACTION_COMPLETED",
        json!({ "extraction_data": { "x": 1 }, "missing_fields": [], "completeness": 90.5 }),
    ));
    events.push(("EXTRACTION_PROCESS_COMPLETED", json!({})));
    let extraction = fold(&events).extraction;
    assert_eq!((extraction.status, extraction.iteration, extraction.finished), (Progress::Completed, 2, true));
    assert_eq!(extraction.data.unwrap().as_json(), r#"{"x": 1}"#);
    assert_eq!(extraction.completeness.unwrap().as_json(), "90.5");
}

#[test]
fn calls_core_urgency_and_audit() {
    let state = fold(&[
        ("LLM_CALL_INITIATED", json!({ "decision_id": "a" })),
        ("LLM_CALL_INITIATED", json!({ "decision_id": "b" })),
        ("LLM_CALL_FAILED", json!({ "decision_id": "b", "error_message": "429" })),
        ("LLM_CALL_INITIATED", json!({})),
        ("LLM_CALL_COMPLETED", json!({})),
        ("CORE_ERROR_OCCURRED", json!({ "error": { "code": 7 } })),
        ("URGENCY_CLASSIFIED", json!({ "urgency_level": "low" })),
        ("CRITICAL_PATTERN_DETECTED", json!({ "pattern_name": "SCA" })),
        ("CRITICAL_PATTERN_DETECTED", json!({ "pattern_name": "SCA", "gravity_score": 9 })),
        ("AUDIT_ENTRY_CREATED", json!({ "audit_entries": [] })),
        ("COMPLETENESS_CALCULATED", json!({ "percentage": 40 })),
        ("clinic:TRIAGE_NOTE", json!({ "message_content": "not ours" })),
    ]);
    assert_eq!((state.llm.initiated, state.llm.completed, state.llm.failed), (3, 1, 1));
    assert_eq!((state.llm.open.len(), state.llm.failing.len()), (1, 1));
    assert!(state.core_failed && state.llm.open.contains("a") && state.llm.failing.contains("b"));
    assert_eq!((state.critical_patterns.len(), state.critical_pattern_count), (1, 2));
    assert_eq!((state.error_count, state.audit_entry_count), (2, 1));
    assert_eq!(state.events_by_type["clinic:TRIAGE_NOTE"], 1);
    assert!(state.messages.is_empty());
    assert_eq!(state.completeness_reported.unwrap().as_json(), "40");
}

#[test]
fn a_reset_begins_anew_and_a_commit_stays() {
    let state = fold(&[
        ("MESSAGE_RECEIVED", json!({ "message": "hola" })),
        (
            "SOAP_SECTION_COMPLETED",
            json!({ "section_name": "assessment", "section_content": { "pronostico": "bueno" } }),
        ),
        (
            "CONSULTATION_COMMITTED",
            json!({ "committed_by": "dra", "soap_data": { "plan": { "tratamiento": ["x"] }, "metadata": {} } }),
        ),
    ]);
    assert_eq!(state.soap.sections.keys().collect::<Vec<_>>(), ["analisis", "plan"]);
    let mut after = state.clone();
    go_on(&mut after, &[("CONSULTATION_RESET", json!({}))]);
    assert!(after.messages.is_empty() && after.soap == Soap::default());
    assert_eq!((after.event_count, after.reset_count), (4, 1));
    assert_eq!(after.commit, state.commit);
}

#[test]
fn what_grows_is_bounded() {
    let failures: Vec<_> = (0..50).map(|_| ("CORE_ERROR_OCCURRED", json!({}))).collect();
    let state = fold(&failures);
    assert_eq!((state.errors.len(), state.error_count, state.errors[0].sequence), (ERRORS_KEPT, 50, 31));
    let patterns: Vec<_> =
        (0..150).map(|n| ("CRITICAL_PATTERN_DETECTED", json!({ "pattern": n.to_string() }))).collect();
    let state = fold(&patterns);
    assert_eq!((state.critical_patterns.len(), state.critical_pattern_count), (PATTERNS_KEPT, 150));
}

#[test]
fn what_no_check_let_in_does_no_harm() {
    let mut state = State::default();
    for kind in crate::kinds::Kind::ALL {
        for payload in [&b""[..], b"7", b"{", b"\xff", br#"{"message_id":7,"section":[],"soap_data":"x"}"#] {
            let sequence = state.event_count + 1;
            state.apply(&Event { sequence, time: 0, id: Uuid::nil(), kind: kind.name(), payload });
        }
    }
    serde_json::to_string(&state).unwrap();
}

#[test]
fn answers_have_the_names_that_clients_know() {
    let state = fold(&[
        ("MESSAGE_RECEIVED", json!({ "message_content": "Hola", "message_role": "user" })),
        ("EXTRACTION_COMPLETED", json!({ "iteration": 2, "extraction_data": { "a": 1 } })),
        ("CONSULTATION_COMMITTED", json!({ "commit_hash": "ab" })),
    ]);
    let stream = caudal_store::StreamId::new("consultation", "c-1");
    let view = serde_json::to_value(ConsultationView::of(&stream, 0, Some("s-1"), &state)).unwrap();
    assert_eq!((&view["consultation_id"], &view["session_id"]), (&json!("c-1"), &json!("s-1")));
    assert_eq!(
        (&view["created_at"], &view["updated_at"]),
        (&json!("1970-01-01T00:00:00.000000Z"), &json!("1970-01-01T00:00:03.000000Z"))
    );
    assert_eq!(view["messages"][0]["message_content"], "Hola");
    assert_eq!((&view["extraction_data"], &view["extraction_iteration"]), (&json!({ "a": 1 }), &json!(2)));
    assert_eq!(
        (&view["is_committed"], &view["commit_hash"], &view["event_count"]),
        (&json!(true), &json!("ab"), &json!(3))
    );
}

fn any_event() -> impl Strategy<Value = (&'static str, Value)> {
    let kind = prop::sample::select(crate::kinds::Kind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>());
    let id = prop::sample::select(vec!["a", "b", "c", "00000000-0000-0000-0000-000000000003"]);
    let section = prop::sample::select(vec!["S", "plan", "objetivo"]);
    (kind, id, section, any::<Option<u8>>(), ".{0,8}").prop_map(|(kind, id, section, number, text)| {
        // Fields that mean something to many types, in one payload.
        let payload = json!({
            "message_id": id, "decision_id": id, "pattern_name": id, "content": text, "message_content": text, "section": section,
            "iteration": number, "age": number, "soap_data": { section: { "x": number } }, "error": text, "urgency_level": "low",
        });
        (kind, payload)
    })
}

proptest! {
    #[test]
    fn a_snapshot_goes_on_as_if_it_had_not_been(events in prop::collection::vec(any_event(), 0..60), cut in 0usize..60) {
        let cut = cut.min(events.len());
        let whole = fold(&events);
        let written = serde_json::to_string(&fold(&events[..cut])).unwrap();
        let mut restored: State = serde_json::from_str(&written).unwrap();
        go_on(&mut restored, &events[cut..]);
        prop_assert_eq!(&restored, &whole);
        prop_assert_eq!(as_json(&restored), as_json(&whole));
    }
}
