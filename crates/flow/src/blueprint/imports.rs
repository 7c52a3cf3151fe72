//! Other files that a file imports.

use std::{mem, sync::Arc};

use super::{
    finding::code,
    reader::Reader,
    sources,
    tree::{self, Mark, Node, What},
};
use crate::step::Steps;

/// How many files stand within each other at most.
const DEPTH: usize = 8;
/// How many files are read for one.
const FILES: usize = 64;

/// Another file's pipeline.
#[derive(Clone)]
pub(super) struct Imported {
    pub(super) pipeline: Arc<str>,
    pub(super) steps: Steps,
    /// Whether it asks what it was given.
    pub(super) asks_prompt: bool,
    /// How many steps it has.
    pub(super) count: usize,
    /// How deep they lie within each other.
    pub(super) deepest: usize,
}

impl Reader<'_> {
    /// Reads the files that a file imports.
    pub(super) fn imports(&mut self, node: &Node) {
        let What::Map(entries) = &node.what else { return };
        for (alias, path) in entries {
            let imported = path.text().and_then(|text| self.import(path.mark, text));
            self.own.imports.insert(alias.name(), imported);
        }
    }

    fn import(&mut self, mark: Mark, path: &str) -> Option<Imported> {
        let from = self.way.last().cloned().unwrap_or_default();
        let name: Arc<str> = match sources::beside(&from, path) {
            Ok(name) => name.into(),
            Err(wrong) => {
                self.error(mark, code::IMPORT, wrong, "import files beside this one or below");
                return None;
            }
        };
        if let Some(place) = self.way.iter().position(|other| *other == name) {
            let way: Vec<&str> = self.way[place..].iter().map(|name| &**name).chain([&*name]).collect();
            let message = format!("files import each other: {}", way.join(" → "));
            self.error(mark, code::CYCLE, message, "take one of these imports out");
            return None;
        }
        self.files += 1;
        if self.way.len() >= DEPTH || self.files > FILES {
            let message = format!("more than {DEPTH} files stand within each other, or {FILES} in all");
            self.error(mark, code::LARGE, message, "import fewer");
            return None;
        }
        match self.sources.read(&name) {
            Ok(text) => self.within(name, &text),
            Err(wrong) => {
                self.error(mark, code::IMPORT, wrong, "mend the path: it is taken from this file's folder on");
                None
            }
        }
    }

    /// Reads the file `name`, which is `text`, for the sake of the one that is read.
    fn within(&mut self, name: Arc<str>, text: &str) -> Option<Imported> {
        self.way.push(Arc::clone(&name));
        let own = mem::take(&mut self.own);
        let imported = match tree::read(text) {
            Ok(node) => self.file(&node),
            Err(finding) => {
                self.note(finding);
                None
            }
        };
        let child = mem::replace(&mut self.own, own);
        self.way.pop();
        let read = imported?;
        let asks_prompt = asks_prompt(text);
        Some(Imported {
            pipeline: read.name,
            steps: read.steps,
            asks_prompt,
            count: child.steps,
            deepest: child.deepest,
        })
    }
}

/// Returns true if a file reads the run's first input. Flujo puts it into the context of every run; here it is there only
/// if the file reads it, because cached outputs depend on the context.
pub(super) fn asks_prompt(text: &str) -> bool {
    text.contains("context.initial_prompt")
}
