//! The SOAP note of a consultation, made of its state, and whether it may be committed. `docs/soap.md` has the rules.

mod draft;
mod required;
#[cfg(test)]
mod tests;
mod urgency;

use serde::Serialize;

use crate::raw::{Raw, is_filled};
use crate::state::{Facts, Progress, State};

pub use required::{Part, REQUIRED, Required};
pub use urgency::Urgency;

/// From this share of required fields on, a note may be committed.
pub const READY_FROM: f64 = 0.8;

/// A section of the note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Section {
    /// What the patient says.
    Subjetivo,
    /// What is found and measured.
    Objetivo,
    /// What it is.
    Analisis,
    /// What is done.
    Plan,
}

impl Section {
    /// All, in order.
    pub const ALL: [Self; 4] = [Self::Subjetivo, Self::Objetivo, Self::Analisis, Self::Plan];

    /// Its name in the note.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Subjetivo => "subjetivo",
            Self::Objetivo => "objetivo",
            Self::Analisis => "analisis",
            Self::Plan => "plan",
        }
    }

    /// The section of this name: the Spanish one, the English one or the letter.
    pub fn read(name: &str) -> Option<Self> {
        Some(match name {
            "subjetivo" | "subjective" | "S" => Self::Subjetivo,
            "objetivo" | "objective" | "O" => Self::Objetivo,
            "analisis" | "análisis" | "assessment" | "analysis" | "A" => Self::Analisis,
            "plan" | "P" => Self::Plan,
            _ => return None,
        })
    }
}

/// Where a section's content comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Somebody wrote the section.
    Section,
    /// Made of what was said about the patient so far.
    Draft,
    /// Nothing is there.
    Missing,
}

/// The note.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Note {
    /// Who the patient is, as events said.
    pub ficha_identificacion: Facts,
    /// What the patient says.
    pub subjetivo: Option<Raw>,
    /// What is found and measured.
    pub objetivo: Option<Raw>,
    /// What it is.
    pub analisis: Option<Raw>,
    /// What is done.
    pub plan: Option<Raw>,
}

/// Where each section comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sources {
    /// The first.
    pub subjetivo: Source,
    /// The second.
    pub objetivo: Source,
    /// The third.
    pub analisis: Source,
    /// The fourth.
    pub plan: Source,
}

/// The answer about a consultation's note.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SoapView {
    /// The note; `None` while nothing is known.
    pub soap_note: Option<Note>,
    /// Where its sections come from.
    pub sources: Sources,
    /// Filled ÷ required fields, from 0 to 1.
    pub completeness: f64,
    /// Required fields that are not filled, as `section.field`.
    pub missing_fields: Vec<&'static str>,
    /// How urgent it is; `None` while nobody said.
    pub urgency_assessment: Option<Urgency>,
    /// What was begun and not ended.
    pub open: Vec<String>,
    /// What failed and has not gone well since.
    pub failed: Vec<String>,
    /// Whether the note may be committed: complete enough, nothing open, nothing failed.
    pub is_ready_for_commit: bool,
    /// Whether it was.
    pub is_committed: bool,
}

impl SoapView {
    /// The note that `state` makes.
    pub fn of(state: &State) -> Self {
        let written = |section: Section| state.soap.sections.get(section.name()).cloned();
        let pick = |section, draft: Option<Raw>| match (written(section), draft) {
            (Some(content), _) => (Some(content), Source::Section),
            (None, Some(draft)) => (Some(draft), Source::Draft),
            (None, None) => (None, Source::Missing),
        };
        let (subjetivo, s) = pick(Section::Subjetivo, draft::subjective(state));
        let (objetivo, o) = pick(Section::Objetivo, draft::objective(state));
        let (analisis, a) = pick(Section::Analisis, None);
        let (plan, p) = pick(Section::Plan, None);
        let note = Note { ficha_identificacion: state.patient_data.clone(), subjetivo, objetivo, analisis, plan };
        let missing: Vec<_> = REQUIRED.iter().filter(|field| !note.fills(field)).map(|field| field.name).collect();
        let completeness = (REQUIRED.len() - missing.len()) as f64 / REQUIRED.len() as f64;
        let (open, failed) = (open(state), failed(state));
        Self {
            is_ready_for_commit: completeness >= READY_FROM && open.is_empty() && failed.is_empty(),
            soap_note: (!note.is_empty()).then_some(note),
            sources: Sources { subjetivo: s, objetivo: o, analisis: a, plan: p },
            completeness,
            missing_fields: missing,
            urgency_assessment: Urgency::of(state),
            open,
            failed,
            is_committed: state.commit.is_some(),
        }
    }
}

impl Note {
    fn part(&self, part: Part) -> Option<&Raw> {
        match part {
            Part::Ficha => None,
            Part::Section(Section::Subjetivo) => self.subjetivo.as_ref(),
            Part::Section(Section::Objetivo) => self.objetivo.as_ref(),
            Part::Section(Section::Analisis) => self.analisis.as_ref(),
            Part::Section(Section::Plan) => self.plan.as_ref(),
        }
    }

    fn is_empty(&self) -> bool {
        self.ficha_identificacion.is_empty()
            && Section::ALL.iter().all(|section| self.part(Part::Section(*section)).is_none())
    }

    /// Whether a required field is filled, at one of the places where it may stand.
    fn fills(&self, field: &Required) -> bool {
        field.places.iter().any(|(part, path)| match (part, self.part(*part)) {
            (Part::Ficha, _) => self.ficha_identificacion.get(*path).is_some_and(|value| is_filled(value.as_json())),
            (_, None) => false,
            // Free text cannot be looked into: it fills what is told in words, not what is measured.
            (_, Some(content)) if content.as_text().is_some() => field.told && is_filled(content.as_json()),
            (_, Some(content)) => path
                .split('.')
                .try_fold(content.as_json(), |value, key| crate::raw::member(value, key))
                .is_some_and(is_filled),
        })
    }
}

fn open(state: &State) -> Vec<String> {
    let running = |progress, name: &str| (progress == Progress::Running).then(|| name.to_owned());
    let calls = state.llm.open.iter().map(|id| format!("llm_call {id}"));
    [running(state.extraction.status, "extraction"), running(state.soap.status, "soap_generation")]
        .into_iter()
        .flatten()
        .chain(calls)
        .collect()
}

fn failed(state: &State) -> Vec<String> {
    let failed = |failed: bool, name: &str| failed.then(|| name.to_owned());
    let calls = state.llm.failing.iter().map(|id| format!("llm_call {id}"));
    [
        failed(state.extraction.status == Progress::Failed, "extraction"),
        failed(state.soap.status == Progress::Failed, "soap_generation"),
        failed(state.core_failed, "core"),
    ]
    .into_iter()
    .flatten()
    .chain(calls)
    .collect()
}
