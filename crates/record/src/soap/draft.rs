//! Sections that nobody has written yet, made of what was said about the patient so far.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::raw::{Raw, is_filled};
use crate::state::{Facts, State};

type Fields<'a> = BTreeMap<&'static str, &'a Raw>;

#[derive(Serialize)]
struct Subjective<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    motivo_consulta: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    historia_actual: Fields<'a>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    antecedentes: Fields<'a>,
}

#[derive(Serialize)]
struct Objective<'a> {
    signos_vitales: Fields<'a>,
}

/// What the patient says, by `SYMPTOMS_UPDATED` and `CONTEXT_UPDATED`.
pub(super) fn subjective(state: &State) -> Option<Raw> {
    let draft = Subjective {
        motivo_consulta: state.symptoms.get("primary_symptoms").and_then(words),
        historia_actual: renamed(
            &state.symptoms,
            &[
                ("duration", "duracion"),
                ("severity", "intensidad"),
                ("location", "localizacion"),
                ("quality", "caracter"),
                ("aggravating_factors", "agravantes"),
                ("relieving_factors", "atenuantes"),
                ("secondary_symptoms", "sintomas_acompanantes"),
            ],
        ),
        antecedentes: renamed(
            &state.context,
            &[
                ("past_medical_history", "personales"),
                ("family_history", "familiares"),
                ("medications", "medicamentos"),
                ("allergies", "alergias"),
                ("surgeries", "quirurgicos"),
            ],
        ),
    };
    written(&draft)
}

/// What is measured, as far as `DEMOGRAPHICS_UPDATED` says it.
pub(super) fn objective(state: &State) -> Option<Raw> {
    written(&Objective { signos_vitales: renamed(&state.patient_data, &[("weight", "peso"), ("height", "talla")]) })
}

fn renamed<'a>(facts: &'a Facts, names: &[(&str, &'static str)]) -> Fields<'a> {
    names
        .iter()
        .filter_map(|(from, to)| Some((*to, facts.get(*from).filter(|value| is_filled(value.as_json()))?)))
        .collect()
}

/// The words of a list, with commas between; of a text, the text.
fn words(value: &Raw) -> Option<String> {
    let words: Vec<String> =
        serde_json::from_str(value.as_json()).ok().or_else(|| Some(vec![value.as_text()?.into_owned()]))?;
    let words = words.join(", ");
    (!words.trim().is_empty()).then_some(words)
}

fn written(draft: &impl Serialize) -> Option<Raw> {
    let json = serde_json::to_string(draft).ok()?;
    if is_filled(&json) { Raw::new(&json) } else { None }
}
