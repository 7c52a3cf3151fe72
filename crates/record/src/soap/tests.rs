//! Notes: what fills them, what is missing, what keeps them from being final.

use serde_json::{Value, json};

use super::*;
use crate::state::tests::fold;

fn view(events: &[(&str, Value)]) -> SoapView {
    SoapView::of(&fold(events))
}

/// A whole consultation.
fn whole() -> Vec<(&'static str, Value)> {
    let section =
        |name: &str, content: Value| ("SOAP_SECTION_COMPLETED", json!({ "section": name, "content": content }));
    vec![
        ("DEMOGRAPHICS_UPDATED", json!({ "age": 54, "gender": "female", "weight": 71.5, "height": 160 })),
        section(
            "subjetivo",
            json!({
                "motivo_consulta": "Dolor torácico", "historia_actual": "2 h, opresivo",
                "antecedentes": { "personales": ["HAS"], "familiares": ["IAM"] },
            }),
        ),
        section(
            "objetivo",
            json!({
                "signos_vitales": {
                    "presion_arterial": "150/95", "frecuencia_cardiaca": 98, "frecuencia_respiratoria": 20, "temperatura": 36.5,
                },
                "exploracion_fisica": { "aspecto": "diaforética" },
            }),
        ),
        section(
            "analisis",
            json!({ "diagnostico_principal": { "condicion": "SCA", "cie10": "I24.9" }, "pronostico": { "corto": "reservado" } }),
        ),
        section(
            "plan",
            json!({ "tratamiento_farmacologico": [{ "medicamento": "AAS", "dosis": "300 mg", "via": "oral", "frecuencia": "única" }] }),
        ),
    ]
}

#[test]
fn nothing_known_is_no_note() {
    let view = view(&[("MESSAGE_RECEIVED", json!({ "message": "hola" }))]);
    assert_eq!((view.soap_note, view.completeness, view.is_ready_for_commit), (None, 0.0, false));
    assert_eq!(view.missing_fields.len(), REQUIRED.len());
    assert_eq!(view.urgency_assessment, None);
}

#[test]
fn updates_fill_sections_until_somebody_writes_them() {
    let mut events = vec![
        ("DEMOGRAPHICS_UPDATED", json!({ "age": 54, "gender": "female", "weight": 71.5 })),
        (
            "SYMPTOMS_UPDATED",
            json!({ "primary_symptoms": ["dolor torácico", "náusea"], "duration": "2 h", "location": "" }),
        ),
        ("CONTEXT_UPDATED", json!({ "past_medical_history": ["HAS"], "family_history": [] })),
    ];
    let draft = view(&events);
    assert_eq!(
        (draft.sources.subjetivo, draft.sources.objetivo, draft.sources.plan),
        (Source::Draft, Source::Draft, Source::Missing)
    );
    assert_eq!(
        serde_json::to_value(draft.soap_note.unwrap()).unwrap(),
        json!({
            "ficha_identificacion": { "age": 54, "gender": "female", "weight": 71.5 },
            "subjetivo": {
                "motivo_consulta": "dolor torácico, náusea", "historia_actual": { "duracion": "2 h" },
                "antecedentes": { "personales": ["HAS"] },
            },
            "objetivo": { "signos_vitales": { "peso": 71.5 } },
            "analisis": null, "plan": null,
        })
    );
    // Age, sex, reason, history, illnesses, weight: six of sixteen.
    assert_eq!(draft.completeness, 6.0 / 16.0);
    events.push(("SOAP_SECTION_COMPLETED", json!({ "section": "S", "content": { "motivo_consulta": "Dolor" } })));
    let written = view(&events);
    assert_eq!(written.sources.subjetivo, Source::Section);
    assert_eq!(written.soap_note.unwrap().subjetivo.unwrap().as_json(), r#"{"motivo_consulta": "Dolor"}"#);
    assert!(written.missing_fields.contains(&"subjetivo.historia_actual"));
}

#[test]
fn a_whole_note_is_ready() {
    let view = view(&whole());
    assert_eq!(view.missing_fields, Vec::<&str>::new());
    assert_eq!((view.completeness, view.is_ready_for_commit, view.is_committed), (1.0, true, false));
}

#[test]
fn four_fifths_are_enough_and_less_is_not() {
    let mut events = whole();
    // Without weight and height from anywhere, and without exploration: 13 of 16.
    events[0].1 = json!({ "age": 54, "gender": "female" });
    events.push(("SOAP_SECTION_COMPLETED", json!({ "section": "O", "content": {
        "signos_vitales": { "presion_arterial": "150/95", "frecuencia_cardiaca": 98, "frecuencia_respiratoria": 20, "temperatura": 36.5 },
        "exploracion_fisica": { "aspecto": " ", "torax": null },
    } })));
    let at_limit = view(&events);
    assert_eq!(
        at_limit.missing_fields,
        ["objetivo.signos_vitales.peso", "objetivo.signos_vitales.talla", "objetivo.exploracion_fisica"]
    );
    assert!(at_limit.is_ready_for_commit);
    events[0].1 = json!({ "age": 54 });
    let below = view(&events);
    assert_eq!((below.completeness, below.is_ready_for_commit), (0.75, false));
}

#[test]
fn free_text_fills_what_is_told_and_not_what_is_measured() {
    let text = |section: &str| ("SOAP_SECTION_COMPLETED", json!({ "section": section, "content": "Texto libre." }));
    let view = view(&[text("S"), text("O"), text("A"), text("P")]);
    let told = REQUIRED.iter().filter(|field| field.told).count();
    assert_eq!(view.completeness, told as f64 / REQUIRED.len() as f64);
    assert!(view.missing_fields.contains(&"objetivo.signos_vitales.temperatura"));
}

#[test]
fn what_is_open_or_failed_keeps_a_note_from_being_final() {
    let check = |more: &[(&'static str, Value)], open: &[&str], failed: &[&str]| {
        let view = view(&[whole(), more.to_vec()].concat());
        assert_eq!(
            (view.open.as_slice(), view.failed.as_slice()),
            (
                &open.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()[..],
                &failed.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()[..]
            )
        );
        assert_eq!(view.is_ready_for_commit, open.is_empty() && failed.is_empty());
    };
    let call = json!({ "decision_id": "x" });
    check(&[("EXTRACTION_STARTED", json!({}))], &["extraction"], &[]);
    check(&[("EXTRACTION_STARTED", json!({})), ("EXTRACTION_COMPLETED", json!({}))], &[], &[]);
    check(&[("EXTRACTION_FAILED", json!({}))], &[], &["extraction"]);
    check(&[("SOAP_GENERATION_STARTED", json!({}))], &["soap_generation"], &[]);
    check(&[("SOAP_GENERATION_FAILED", json!({}))], &[], &["soap_generation"]);
    check(&[("SOAP_GENERATION_FAILED", json!({})), ("SOAP_GENERATION_COMPLETED", json!({}))], &[], &[]);
    check(&[("LLM_CALL_INITIATED", call.clone())], &["llm_call x"], &[]);
    check(&[("LLM_CALL_INITIATED", call.clone()), ("LLM_CALL_FAILED", call.clone())], &[], &["llm_call x"]);
    check(&[("LLM_CALL_FAILED", call.clone()), ("LLM_CALL_COMPLETED", call)], &[], &[]);
    check(&[("CORE_ERROR_OCCURRED", json!({}))], &[], &["core"]);
    check(&[("CORE_ERROR_OCCURRED", json!({})), ("CORE_STATE_CHANGED", json!({ "state": "idle" }))], &[], &[]);
}

#[test]
fn critical_patterns_raise_whatever_was_classified() {
    let low = (
        "URGENCY_CLASSIFIED",
        json!({ "urgency_level": "low", "gravity_score": 2, "time_to_action": "24 h", "risk_factors": ["HAS"] }),
    );
    let pattern =
        ("CRITICAL_PATTERN_DETECTED", json!({ "pattern_name": "SCA", "gravity_score": 9, "time_to_action": "10 min" }));
    let calm = view(std::slice::from_ref(&low)).urgency_assessment.unwrap();
    assert_eq!((&*calm.urgency_level, calm.raised, calm.gravity_score), ("low", false, Some(2)));
    for events in [vec![low.clone(), pattern.clone()], vec![pattern.clone(), low]] {
        let raised = view(&events).urgency_assessment.unwrap();
        assert_eq!((&*raised.urgency_level, raised.raised, raised.gravity_score), ("critical", true, Some(9)));
        assert_eq!(raised.classified_level.as_deref(), Some("low"));
        assert_eq!(raised.time_to_action.unwrap().as_json(), "\"10 min\"");
        assert_eq!(raised.risk_factors.unwrap().as_json(), "[\"HAS\"]");
        assert_eq!(raised.critical_patterns.len(), 1);
    }
    let alone = view(&[pattern]).urgency_assessment.unwrap();
    assert_eq!((&*alone.urgency_level, alone.classified_level), ("critical", None));
}

#[test]
fn the_soap_reference_is_what_the_code_says() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/soap.md");
    let page = std::fs::read_to_string(page).unwrap_or_default();
    let (before, rest) = page.split_once("<!-- required fields -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- end -->").unwrap();
    let text = format!("{before}<!-- required fields -->\n{}<!-- end -->{after}", required::rows());
    caudal_testkit::check_document("soap.md", &text);
}
