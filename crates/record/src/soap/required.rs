//! Which fields a note must have, after NOM-004-SSA3-2012. `docs/soap.md` is made of this table.

use super::Section::{self, Analisis, Objetivo, Plan, Subjetivo};

/// A part of the note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Who the patient is.
    Ficha,
    /// A section.
    Section(Section),
}

/// A field that a note must have.
#[derive(Debug, Clone, Copy)]
pub struct Required {
    /// Its name in answers, `section.field`.
    pub name: &'static str,
    /// Where it may stand: the members to follow, with dots between.
    pub places: &'static [(Part, &'static str)],
    /// Where the norm asks for it.
    pub norm: &'static str,
    /// Whether it is told in words, so that free text may fill it.
    pub told: bool,
}

const fn told(name: &'static str, places: &'static [(Part, &'static str)], norm: &'static str) -> Required {
    Required { name, places, norm, told: true }
}

const fn measured(name: &'static str, places: &'static [(Part, &'static str)], norm: &'static str) -> Required {
    Required { name, places, norm, told: false }
}

const F: Part = Part::Ficha;
const S: Part = Part::Section(Subjetivo);
const O: Part = Part::Section(Objetivo);
const A: Part = Part::Section(Analisis);
const P: Part = Part::Section(Plan);

/// All of them.
pub const REQUIRED: &[Required] = &[
    measured("ficha_identificacion.edad", &[(F, "age"), (F, "edad"), (S, "ficha_identificacion.edad")], "5.9, 6.1.1"),
    measured(
        "ficha_identificacion.sexo",
        &[(F, "gender"), (F, "sexo"), (S, "ficha_identificacion.sexo")],
        "5.9, 6.1.1",
    ),
    told("subjetivo.motivo_consulta", &[(S, "motivo_consulta")], "6.1.1"),
    told("subjetivo.historia_actual", &[(S, "historia_actual"), (S, "padecimiento_actual")], "6.1.1, 6.2.1"),
    measured("subjetivo.antecedentes.personales", &[(S, "antecedentes.personales")], "6.1.1"),
    measured("subjetivo.antecedentes.familiares", &[(S, "antecedentes.familiares")], "6.1.1"),
    measured("objetivo.signos_vitales.presion_arterial", &[(O, "signos_vitales.presion_arterial")], "6.1.2, 6.2.2"),
    measured(
        "objetivo.signos_vitales.frecuencia_cardiaca",
        &[(O, "signos_vitales.frecuencia_cardiaca")],
        "6.1.2, 6.2.2",
    ),
    measured(
        "objetivo.signos_vitales.frecuencia_respiratoria",
        &[(O, "signos_vitales.frecuencia_respiratoria")],
        "6.1.2, 6.2.2",
    ),
    measured("objetivo.signos_vitales.temperatura", &[(O, "signos_vitales.temperatura")], "6.1.2, 6.2.2"),
    measured("objetivo.signos_vitales.peso", &[(O, "signos_vitales.peso"), (F, "weight")], "6.1.2"),
    measured("objetivo.signos_vitales.talla", &[(O, "signos_vitales.talla"), (F, "height")], "6.1.2"),
    told("objetivo.exploracion_fisica", &[(O, "exploracion_fisica")], "6.1.2"),
    told(
        "analisis.diagnostico_principal",
        &[(A, "diagnostico_principal"), (A, "diagnosticos"), (A, "diagnosticos_diferenciales")],
        "6.1.4, 6.2.4",
    ),
    told("analisis.pronostico", &[(A, "pronostico")], "6.1.5, 6.2.5"),
    told(
        "plan.tratamiento",
        &[(P, "tratamiento"), (P, "tratamiento_farmacologico"), (P, "tratamiento_no_farmacologico")],
        "6.1.6, 6.2.6",
    ),
];

/// The rows of the table in `docs/soap.md`.
#[cfg(test)]
pub(super) fn rows() -> String {
    use std::fmt::Write as _;

    let mut rows = "| field | read from | NOM-004-SSA3-2012 | free text fills it |\n|---|---|---|---|\n".to_owned();
    for field in REQUIRED {
        let place = |(part, path): &(Part, &str)| match part {
            Part::Ficha => format!("`DEMOGRAPHICS_UPDATED.{path}`"),
            Part::Section(section) => format!("`{}.{path}`", section.name()),
        };
        let places = field.places.iter().map(place).collect::<Vec<_>>().join(", ");
        let told = if field.told { "yes" } else { "no" };
        let _ = writeln!(rows, "| `{}` | {places} | {} | {told} |", field.name, field.norm);
    }
    rows
}
