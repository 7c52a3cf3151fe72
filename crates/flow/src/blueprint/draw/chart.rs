//! A pipeline as a chart in Mermaid's language.

use std::fmt::Write as _;

use super::plan::{Part, Within, parts};
use crate::step::Definition;

/// A pipeline as a chart in Mermaid's language.
pub fn mermaid(definition: &Definition) -> String {
    let mut chart = Chart { text: "flowchart TD\n".to_owned(), nodes: 0 };
    let begin = chart.node("([", &super::plan::shown(&definition.name), "])");
    let last = chart.chain(&parts(&definition.steps), begin, "");
    let end = chart.node("([", "end", "])");
    chart.arrow(last, end, "");
    chart.text
}

struct Chart {
    text: String,
    nodes: usize,
}

/// A text within quotes, as Mermaid wants it.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("#quot;"),
            '<' => quoted.push_str("#lt;"),
            '>' => quoted.push_str("#gt;"),
            '#' => quoted.push_str("#35;"),
            '&' => quoted.push_str("#amp;"),
            '`' => quoted.push_str("#96;"),
            '|' => quoted.push_str("#124;"),
            '\\' => quoted.push_str("#92;"),
            letter => quoted.push(letter),
        }
    }
    quoted
}

impl Chart {
    fn node(&mut self, open: &str, label: &str, close: &str) -> usize {
        let id = self.nodes;
        self.nodes += 1;
        let _ = writeln!(self.text, "  n{id}{open}\"{}\"{close}", quoted(label));
        id
    }

    fn arrow(&mut self, from: usize, to: usize, label: &str) {
        let label = if label.is_empty() { String::new() } else { format!("|\"{}\"|", quoted(label)) };
        let _ = writeln!(self.text, "  n{from} -->{label} n{to}");
    }

    /// Steps after the node `before`; gives the last one's node.
    fn chain(&mut self, parts: &[Part], before: usize, label: &str) -> usize {
        let mut label = label;
        parts.iter().fold(before, |before, part| {
            let last = self.part(part, before, label);
            label = "";
            last
        })
    }

    fn part(&mut self, part: &Part, before: usize, label: &str) -> usize {
        let text = format!("{}: {}", part.kind, part.name);
        let (open, close, text) = match (&part.within, part.kind) {
            (Within::Nothing, "hitl") => ("[/", "/]", &text),
            (Within::Nothing, _) => ("[", "]", if part.kind == "step" { &part.name } else { &text }),
            (Within::Choice(_), _) => ("{", "}", &text),
            _ => ("[[", "]]", &text),
        };
        let node = self.node(open, text, close);
        self.arrow(before, node, label);
        let last = self.within(&part.within, node);
        if let Some(otherwise) = &part.otherwise {
            let fallback = self.part(otherwise, node, "fails");
            self.arrow(fallback, last, "");
        }
        last
    }

    fn within(&mut self, within: &Within, node: usize) -> usize {
        match within {
            Within::Nothing => node,
            Within::Once(parts) => self.chain(parts, node, ""),
            Within::Again(parts) => {
                let last = self.chain(parts, node, "");
                let _ = writeln!(self.text, "  n{last} -.->|again| n{node}");
                last
            }
            Within::Lanes(lanes) | Within::Choice(lanes) => {
                let ends: Vec<(usize, &str)> = lanes
                    .iter()
                    .map(|(name, parts)| {
                        let last = self.chain(parts, node, name);
                        (last, if parts.is_empty() { &**name } else { "" })
                    })
                    .collect();
                let join = self.node("((", " ", "))");
                ends.into_iter().for_each(|(end, label)| self.arrow(end, join, label));
                join
            }
        }
    }
}
