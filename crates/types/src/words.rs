//! Small help with words, for errors that suggest what was meant.

use std::borrow::Cow;

/// Longer words than this are no misspelling of anything.
const LONGEST: usize = 64;

/// `text` as it may stand in a message: at most 80 letters of it.
pub fn shorten(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(80) {
        None => text.into(),
        Some((end, _)) => format!("{}…", &text[..end]).into(),
    }
}

/// `text` as it may stand in a line for people: without line breaks, and without what moves a cursor, clears a screen or
/// turns the direction of writing. These are written as `\n`, `\x1b`, `\u202e`. A line of JSON still says the same: what may
/// stand in its strings is written as JSON's own escapes.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// The same, of a text that may have several lines and tabs.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |letter| matches!(letter, '\n' | '\t'))
}

fn escaped(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    let acts = |letter: char| acts(letter) && !stays(letter);
    if !text.contains(acts) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match letter {
            letter if !acts(letter) => out.push(letter),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\x1f' => out.push_str(&format!("\\x{:02x}", letter as u32)),
            letter => out.push_str(&format!("\\u{:04x}", letter as u32)),
        }
    }
    out.into()
}

/// Whether a terminal or a viewer does something else with it than to show it.
fn acts(letter: char) -> bool {
    let turns =
        matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    letter.is_control() || turns
}

/// A file's text without the mark (U+FEFF) that some editors put in front.
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// The candidate closest to `word`, if one is close enough to have been meant: at most a third of the word's
/// letters differ (optimal string alignment: swapped neighbours count once; case and the kind of dash are ignored).
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > LONGEST {
        return None;
    }
    let word = plain(word);
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&word, &plain(candidate)), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn plain(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(word: &str, expected: Option<&str>) {
        assert_eq!(nearest(word, ["http_port", "max_batch_size", "host"]), expected, "{word}");
    }

    #[test]
    fn what_was_meant_is_found_and_nothing_else() {
        check("htp_port", Some("http_port"));
        check("HTTP-PORT", Some("http_port"));
        check("max_batchsize", Some("max_batch_size"));
        check("hots", Some("host"));
        check("hostt", Some("host"));
        check("colour", None);
        check(&"host".repeat(100), None);
    }

    #[test]
    fn printable_text_shows_what_would_act_on_a_terminal() {
        let wild = "a\n\r\t\u{1b}[2J\u{7f}\u{9b}\u{202e}ñ";
        assert_eq!(printable(wild), r"a\n\r\t\x1b[2J\u007f\u009b\u202eñ");
        assert_eq!(printable_lines(wild), "a\n\\r\t\\x1b[2J\\u007f\\u009b\\u202eñ");
        let json = "{\"words\": \"\\u001b[2J\u{7f}\u{9b}2J\u{61c}\"}";
        assert_eq!(printable(json), r#"{"words": "\u001b[2J\u007f\u009b2J\u061c"}"#, "what JSON leaves as it is");
        assert!(matches!(printable("plain ñ 日本"), Cow::Borrowed(_)));
    }

    #[test]
    fn what_is_long_is_cut_at_a_letter() {
        assert_eq!(shorten("short"), "short");
        assert_eq!(shorten(&"ñ".repeat(100)), format!("{}…", "ñ".repeat(80)));
    }
}
