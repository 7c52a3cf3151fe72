//! A pipeline as an outline in plain words.

use std::fmt::Write as _;

use super::plan::{Part, Within, parts, shown};
use crate::step::Definition;

/// A pipeline as an outline in plain words.
pub fn explain(definition: &Definition) -> String {
    let mut text = shown(&definition.name);
    if !definition.description.is_empty() {
        let _ = write!(text, ": {}", definition.description.trim());
    }
    text.push('\n');
    let limits = definition.limits;
    let cost = limits.cost.map(|cost| format!("{} USD", cost as f64 / 1e6));
    let tokens = limits.tokens.map(|tokens| format!("{tokens} tokens"));
    let steps = limits.steps.map(|steps| format!("{steps} steps"));
    let spend: Vec<String> = [cost, tokens, steps].into_iter().flatten().collect();
    if !spend.is_empty() {
        let _ = writeln!(text, "may spend {}", spend.join(", "));
    }
    if let Some(timeout) = definition.timeout {
        let _ = writeln!(text, "may take {timeout:?}");
    }
    if !definition.durable {
        text.push_str("its steps are not kept\n");
    }
    list(&parts(&definition.steps), 0, &mut text);
    text
}

fn list(parts: &[Part], depth: usize, text: &mut String) {
    let indent = "   ".repeat(depth);
    for (number, part) in parts.iter().enumerate() {
        let kind = if part.kind == "step" { String::new() } else { format!(" ({})", part.kind) };
        let colon = if part.notes.is_empty() { "" } else { ": " };
        let _ = writeln!(text, "{indent}{}. {}{kind}{colon}{}", number + 1, part.name, part.notes.join("; "));
        match &part.within {
            Within::Nothing => {}
            Within::Once(parts) | Within::Again(parts) => list(parts, depth + 1, text),
            Within::Lanes(lanes) | Within::Choice(lanes) => {
                for (name, parts) in lanes {
                    let _ = writeln!(text, "{indent}   {name}:{}", if parts.is_empty() { " nothing" } else { "" });
                    list(parts, depth + 2, text);
                }
            }
        }
        if let Some(otherwise) = &part.otherwise {
            let _ = writeln!(text, "{indent}   if it fails:");
            list(std::slice::from_ref(&**otherwise), depth + 2, text);
        }
    }
}
