//! Text in messages: suggestions for misspelt names, and escaping.

use std::borrow::Cow;

/// Longer words are not compared.
const MAX_WORD_BYTES: usize = 64;

/// `text` shortened to 80 characters for messages.
pub fn shorten(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(80) {
        None => text.into(),
        Some((end, _)) => format!("{}…", &text[..end]).into(),
    }
}

/// `text` as one line for terminals and logs: line breaks, control characters and changes of text direction are escaped
/// as `\n`, `\x1b`, `\u202e`. A line of JSON keeps its meaning, because its strings get JSON's own escapes.
pub fn printable(text: &str) -> Cow<'_, str> {
    escape_unprintable(text, |_| false)
}

/// Like [`printable`], but keeps line breaks and tabs.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    escape_unprintable(text, |letter| matches!(letter, '\n' | '\t'))
}

fn escape_unprintable(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    let escape = |letter: char| is_unprintable(letter) && !keep(letter);
    if !text.contains(escape) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match letter {
            letter if !escape(letter) => out.push(letter),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\x1f' => out.push_str(&format!("\\x{:02x}", letter as u32)),
            letter => out.push_str(&format!("\\u{:04x}", letter as u32)),
        }
    }
    out.into()
}

/// Returns true for characters that control a terminal or change the text direction.
fn is_unprintable(letter: char) -> bool {
    let turns =
        matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    letter.is_control() || turns
}

/// `text` without a leading byte order mark (U+FEFF), which some editors write.
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// The candidate closest to `word`, if it is close enough: at most a third of the word's characters differ (optimal
/// string alignment: swapped neighbours count once; case and the kind of dash are ignored).
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > MAX_WORD_BYTES {
        return None;
    }
    let word = normalise_word(word);
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&word, &normalise_word(candidate)), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn normalise_word(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(word: &str, expected: Option<&str>) {
        assert_eq!(nearest(word, ["http_port", "max_batch_size", "host"]), expected, "{word}");
    }

    #[test]
    fn nearest_finds_misspellings_only() {
        check("htp_port", Some("http_port"));
        check("HTTP-PORT", Some("http_port"));
        check("max_batchsize", Some("max_batch_size"));
        check("hots", Some("host"));
        check("hostt", Some("host"));
        check("colour", None);
        check(&"host".repeat(100), None);
    }

    #[test]
    fn printable_escapes_control_characters() {
        let wild = "a\n\r\t\u{1b}[2J\u{7f}\u{9b}\u{202e}ñ";
        assert_eq!(printable(wild), r"a\n\r\t\x1b[2J\u007f\u009b\u202eñ");
        assert_eq!(printable_lines(wild), "a\n\\r\t\\x1b[2J\\u007f\\u009b\\u202eñ");
        let json = "{\"words\": \"\\u001b[2J\u{7f}\u{9b}2J\u{61c}\"}";
        assert_eq!(printable(json), r#"{"words": "\u001b[2J\u007f\u009b2J\u061c"}"#, "what JSON leaves as it is");
        assert!(matches!(printable("plain ñ 日本"), Cow::Borrowed(_)));
    }

    #[test]
    fn shorten_cuts_at_a_character() {
        assert_eq!(shorten("short"), "short");
        assert_eq!(shorten(&"ñ".repeat(100)), format!("{}…", "ñ".repeat(80)));
    }
}
