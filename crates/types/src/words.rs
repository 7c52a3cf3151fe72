//! Small help with words, for errors that suggest what was meant.

/// The candidate closest to `word`, if one is close enough to have been meant: at most a third of the word's
/// letters differ (optimal string alignment: swapped neighbours count once; case and the kind of dash are ignored).
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
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
    }
}
