//! The exposition in Prometheus's own text format 0.0.4, for whoever does not ask for OpenMetrics: the same names, labels
//! and values. What differs is how families are introduced.

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `text`, which is OpenMetrics, in that format.
pub(super) fn classic(text: &str) -> String {
    let mut classic = String::with_capacity(text.len());
    let mut help = "";
    for line in text.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            classic.push_str(line);
            classic.push('\n');
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        let (what, family, rest) = (words.next(), words.next().unwrap_or_default(), words.next().unwrap_or_default());
        match what {
            Some("HELP") => help = rest,
            Some("TYPE") => {
                // A counter is called as its samples are, and what is left open has another name.
                let (suffix, kind) = match rest {
                    "counter" => ("_total", rest),
                    "unknown" => ("", "untyped"),
                    _ => ("", rest),
                };
                classic.push_str(&format!("# HELP {family}{suffix} {help}\n# TYPE {family}{suffix} {kind}\n"));
            }
            // Units and the end are not told.
            _ => {}
        }
    }
    classic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_introduced_as_the_format_has_it() {
        let open = "# HELP asked Requests asked.\n# TYPE asked counter\nasked_total{a=\"b c\"} 3\n\
                    # HELP took_seconds Time.\n# TYPE took_seconds histogram\n# UNIT took_seconds seconds\ntook_seconds_sum 1.5\n\
                    # HELP other What.\n# TYPE other unknown\nother 1\n# EOF\n";
        let expected = "# HELP asked_total Requests asked.\n# TYPE asked_total counter\nasked_total{a=\"b c\"} 3\n\
                        # HELP took_seconds Time.\n# TYPE took_seconds histogram\ntook_seconds_sum 1.5\n\
                        # HELP other What.\n# TYPE other untyped\nother 1\n";
        assert_eq!(classic(open), expected);
    }
}
