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
    fn what_is_long_is_cut_at_a_letter() {
        assert_eq!(shorten("short"), "short");
        assert_eq!(shorten(&"ñ".repeat(100)), format!("{}…", "ñ".repeat(80)));
    }
}
