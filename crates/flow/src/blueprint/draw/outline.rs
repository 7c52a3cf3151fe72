//! A pipeline as an outline in plain words.

use crate::step::Definition;

/// A pipeline as an outline in plain words.
pub fn explain(definition: &Definition) -> String {
    definition.name.to_string()
}
