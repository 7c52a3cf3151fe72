//! `cargo xtask tidy`: checks that documents use the field's words (docs/glossary.md) and no internal code names.

use std::{fs, process::Command};

use crate::say::{Result, root, step};

/// Phrases of a private idiom, each of which has a standard term.
const IDIOM: &[&str] = &[
    "whoever",
    "whatever becomes",
    "somebody",
    "nobody",
    "anybody",
    "told of",
    "tells of",
    "at once",
    "goes on",
    "goes its way",
    "anew",
    "is none",
    "are none",
    "put to rest",
    "broken off",
    "set aside",
    "one who asks",
    "who asks",
];

/// Words that begin a statement only in the idiom; in a question they are fine.
const OPENINGS: &[&str] = &["what", "who", "whoever", "whether"];

/// Marks of the idiom that a document may have in 1,000 words.
const MAX_MARKS_PER_1000_WORDS: f64 = 3.0;

/// Internal letters for the systems that Caudal replaces: readers know these by their names.
const CODE_NAMES: [&str; 5] = ["system A", "system B", "system C", "system D", "system E"];

/// Checks every document, and every source file for code names.
pub(crate) fn run() -> Result {
    let mut problems = Vec::new();
    for path in tracked_files(&["*.md"])? {
        problems.extend(check_document(&path, &read(&path)?));
    }
    for path in tracked_files(&["*.md", "*.rs", "*.yaml", "*.py"])? {
        if path != "xtask/src/tidy.rs" {
            problems.extend(check_code_names(&path, &read(&path)?));
        }
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(format!("text that readers cannot follow:\n  {}", problems.join("\n  "))),
    }
}

/// Prints the marks of each document, the worst first.
pub(crate) fn report() -> Result {
    let mut rows = Vec::new();
    for path in tracked_files(&["*.md"])? {
        let prose = prose(&read(&path)?);
        rows.push((marks_per_1000_words(&prose), path));
    }
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    step("marks of the idiom in 1,000 words");
    rows.iter().for_each(|(rate, path)| println!("{rate:6.1}  {path}"));
    Ok(())
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(root().join(path)).map_err(|error| format!("{path}: {error}"))
}

/// Tracked files that match one of the patterns and exist; vendored fixtures are others' words.
fn tracked_files(patterns: &[&str]) -> Result<Vec<String>> {
    let output = Command::new("git").current_dir(root()).arg("ls-files").args(patterns).output();
    let output = output.map_err(|error| format!("git ls-files cannot be run: {error}"))?;
    let paths = String::from_utf8_lossy(&output.stdout).into_owned();
    let ours = |path: &&str| !path.starts_with("fixtures/") && root().join(path).is_file();
    Ok(paths.lines().filter(ours).map(str::to_owned).collect())
}

fn check_document(path: &str, text: &str) -> Option<String> {
    let prose = prose(text);
    let rate = marks_per_1000_words(&prose);
    let allowed = MAX_MARKS_PER_1000_WORDS.max(rate_of_one_mark(&prose));
    (rate > allowed).then(|| {
        let found: Vec<String> = marks(&prose).into_iter().take(8).collect();
        format!("{path}: {rate:.1} marks of the idiom in 1,000 words, at most {allowed:.1}: {}", found.join("; "))
    })
}

fn check_code_names(path: &str, text: &str) -> Vec<String> {
    let has_code_name = |line: &str| {
        CODE_NAMES.iter().any(|name| {
            line.match_indices(name).any(|(at, _)| !line[at + name.len()..].starts_with(|c: char| c.is_alphanumeric()))
        })
    };
    let lines = text.lines().enumerate().filter(|(_, line)| has_code_name(line));
    lines.map(|(number, _)| format!("{path}:{}: names a system by its letter", number + 1)).collect()
}

/// One mark in a short document is no habit.
fn rate_of_one_mark(prose: &str) -> f64 {
    1000.0 / prose.split_whitespace().count().max(1) as f64
}

fn marks_per_1000_words(prose: &str) -> f64 {
    marks(prose).len() as f64 * rate_of_one_mark(prose)
}

/// The document without code: fenced blocks, and what is between backticks.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let lines = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        !fenced && !is_fence
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    text.split('`').step_by(2).collect::<Vec<_>>().join("_")
}

/// Each mark with a few words around it.
fn marks(prose: &str) -> Vec<String> {
    let words: Vec<&str> = prose.split_whitespace().collect();
    let plain: Vec<String> = words.iter().map(|word| plain(word)).collect();
    let at = |start: usize| words[start.saturating_sub(1)..words.len().min(start + 4)].join(" ");
    let phrase = |start: usize| {
        IDIOM.iter().any(|phrase| {
            let parts: Vec<&str> = phrase.split(' ').collect();
            plain[start..].iter().map(String::as_str).take(parts.len()).eq(parts)
        })
    };
    let opening = |start: usize| {
        let begins =
            start > 0 && words[start - 1].ends_with(['.', ':', ';']) && words[start].starts_with(char::is_uppercase);
        begins && OPENINGS.contains(&plain[start].as_str()) && !is_question(&words[start..])
    };
    // "There is none" is plain English, "a value is none" is not.
    let follows_there = |start: usize| start > 0 && plain[start - 1] == "there" && plain[start] != "there";
    let is_mark = |start: usize| phrase(start) && !follows_there(start) || opening(start);
    (0..words.len()).filter(|&start| is_mark(start)).map(at).collect()
}

fn plain(word: &str) -> String {
    word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase()
}

fn is_question(words: &[&str]) -> bool {
    let end = words.iter().find(|word| word.ends_with(['.', '?', '!', '|']));
    end.is_some_and(|word| word.ends_with('?'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idiom_is_found_in_prose_and_not_in_code() {
        let text = "Whoever asks is told of it.\n```\nwhoever\n```\nThe `nobody` user. What is kept stays. What is it? There is none.";
        assert_eq!(marks(&prose(text)).len(), 3, "{:?}", marks(&prose(text)));
    }

    #[test]
    fn a_document_full_of_idiom_is_refused_and_a_plain_one_is_not() {
        let plain = "The server evicts the model with the fewest requests per byte. ".repeat(40);
        assert_eq!(check_document("a.md", &plain), None);
        assert!(check_document("a.md", &format!("{plain} Whoever waits goes on at once.")).is_some());
    }

    #[test]
    fn letters_of_systems_are_refused() {
        assert_eq!(check_code_names("a.rs", "// as system B does\n// system Builder").len(), 1);
    }
}
