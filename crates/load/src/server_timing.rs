//! Parser of the `Server-Timing` header (W3C Server Timing): `queue;dur=1.2, infer;dur=30.5;desc="cpu"`.

/// Metric names with their milliseconds; metrics without a duration are omitted.
pub(crate) fn parse_header(header: &str) -> impl Iterator<Item = (String, f64)> + '_ {
    header.split(',').filter_map(|metric| {
        let mut parts = metric.split(';').map(str::trim);
        let name = parts.next().filter(|name| !name.is_empty())?;
        let dur =
            parts.find_map(|part| part.split_once('=').filter(|(key, _)| key.trim().eq_ignore_ascii_case("dur")))?;
        let ms: f64 = dur.1.trim().trim_matches('"').parse().ok()?;
        (ms.is_finite() && ms >= 0.0).then(|| (name.to_owned(), ms))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_header_skips_invalid_metrics() {
        let read = |header: &str| parse_header(header).collect::<Vec<_>>();
        assert_eq!(
            read("receive;dur=0.012, total;dur=1.5"),
            [("receive".to_owned(), 0.012), ("total".to_owned(), 1.5)]
        );
        assert_eq!(read("db;desc=\"x\";dur=\"3\""), [("db".to_owned(), 3.0)]);
        assert_eq!(read("miss, a;dur=x, b;dur=-1, c;dur=NaN, ;dur=1"), []);
    }
}
