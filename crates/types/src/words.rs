//! Small help with words, for errors that suggest what was meant.

/// The candidate closest to `word`, if one is close enough to have been meant: at most a third of the word's
/// letters differ (Levenshtein distance, case and the kind of dash ignored).
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = plain(word);
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &plain(candidate)), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn plain(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let change = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
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
        check("hots", None);
        check("hostt", Some("host"));
        check("colour", None);
    }
}
