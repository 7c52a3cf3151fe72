//! Pipelines written in YAML, `version: "0.1"`: what a user of Flujo writes, read into a [`Definition`].
//!
//! A file is read into a tree that knows its places, each key is looked at by one table (`keys`), from which the JSON
//! schema for editors is made too, and all that is wrong is told at once, each finding with its place, a code and a
//! mend. What cannot be done is an error or a warning, never left out silently. What leaves do is the [`Registry`]'s.

mod agents;
mod check;
mod draw;
mod fields;
mod file;
mod finding;
mod imports;
mod keys;
mod reader;
mod schema;
mod sources;
mod steps;
mod tags;
#[cfg(test)]
mod tests;
mod tree;

use std::sync::Arc;

pub use check::Schema as JsonSchema;
pub use draw::{explain, mermaid, svg};
pub use finding::{Finding, Severity};
pub use schema::schema;
pub use sources::{Folder, Sources};

use crate::{registry::Registry, step::Definition};
use reader::Reader;

/// A pipeline written in YAML.
pub struct Blueprint;

impl Blueprint {
    /// Reads a file's text. What it imports is read through `sources`.
    ///
    /// Given back is the pipeline with what is odd about it, or all that is wrong.
    pub fn read(
        text: &str,
        sources: &dyn Sources,
        registry: &Registry,
    ) -> Result<(Definition, Vec<Finding>), Vec<Finding>> {
        Self::read_as("", text, sources, registry)
    }

    /// Reads the file of that name.
    pub fn read_file(
        name: &str,
        sources: &dyn Sources,
        registry: &Registry,
    ) -> Result<(Definition, Vec<Finding>), Vec<Finding>> {
        match sources.read(name) {
            Ok(text) => Self::read_as(name, &text, sources, registry),
            Err(wrong) => {
                let hint = "mend the path";
                Err(vec![Finding::error(tree::Mark { line: 1, column: 1 }, finding::code::IMPORT, wrong, hint)])
            }
        }
    }

    fn read_as(
        name: &str,
        text: &str,
        sources: &dyn Sources,
        registry: &Registry,
    ) -> Result<(Definition, Vec<Finding>), Vec<Finding>> {
        let mut reader = Reader::new(sources, registry);
        reader.way.push(Arc::from(name));
        let read = match tree::read(text) {
            Ok(node) => reader.file(&node).map(|mut definition| {
                definition.knows_input = imports::asks_prompt(text);
                definition
            }),
            Err(finding) => {
                reader.note(finding);
                None
            }
        };
        let mut findings = reader.findings;
        findings.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        match read {
            Some(definition) if findings.iter().all(|finding| finding.severity == Severity::Warning) => {
                Ok((definition, findings))
            }
            _ => Err(findings),
        }
    }
}
