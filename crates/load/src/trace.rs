//! Recorded arrivals, as `GET /admin/requests/trace?format=arrivals` writes them: a JSON object a line.

use std::{collections::BTreeMap, io::BufRead, time::Duration};

use serde::Deserialize;

use crate::{LoadError, schedule::LONGEST};

/// Lines of one trace.
const MOST_LINES: usize = 1_000_000;
/// Requests of a route that a server remembers at least; of one with fewer it has forgotten none.
const REMEMBERED: usize = 256;
/// Bytes of one line.
const LONGEST_LINE: u64 = 64 << 10;

/// One request as it came.
#[derive(Debug, Clone, Deserialize)]
pub struct Arrival {
    /// Milliseconds since the first.
    pub at_ms: f64,
    /// Method and path, such as `POST /predict/{model}`.
    pub route: String,
    /// The model that it asked, if that became known.
    pub model: Option<String>,
    /// Bytes of its body, if it said so.
    pub received_bytes: Option<u64>,
    /// The status of its answer.
    pub status: u16,
    /// Milliseconds within the server.
    pub total_ms: f64,
}

/// Arrivals in the order of their times; the first is at 0.
#[derive(Debug, Clone)]
pub struct Trace {
    arrivals: Vec<Arrival>,
}

impl Trace {
    /// Reads a trace; an empty line is none.
    pub fn read(mut text: impl BufRead) -> Result<Self, LoadError> {
        let mut arrivals = Vec::new();
        let mut line = Vec::new();
        for number in 1.. {
            let wrong = |reason: String| LoadError::Line { line: number, reason };
            line.clear();
            let read = std::io::Read::take(&mut text, LONGEST_LINE).read_until(b'\n', &mut line);
            if read.map_err(|error| wrong(format!("it cannot be read: {error}")))? == 0 {
                break;
            }
            if line.len() as u64 == LONGEST_LINE && line.last() != Some(&b'\n') {
                return Err(wrong(format!("it is longer than {LONGEST_LINE} bytes")));
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            if arrivals.len() == MOST_LINES {
                return Err(wrong(format!("there are more than {MOST_LINES} arrivals; cut the trace")));
            }
            arrivals.push(arrival(&line).map_err(wrong)?);
        }
        Self::new(arrivals)
    }

    fn new(mut arrivals: Vec<Arrival>) -> Result<Self, LoadError> {
        arrivals.sort_by(|a, b| a.at_ms.total_cmp(&b.at_ms));
        let first = arrivals.first().ok_or_else(|| LoadError::NothingToSend("it is empty".to_owned()))?.at_ms;
        arrivals.iter_mut().for_each(|arrival| arrival.at_ms -= first);
        Ok(Self { arrivals })
    }

    /// Only the last `time` of it.
    pub fn last(self, time: Duration) -> Result<Self, LoadError> {
        let from = self.arrivals.last().map_or(0.0, |last| last.at_ms - time.as_secs_f64() * 1e3);
        Self::new(self.arrivals.into_iter().filter(|arrival| arrival.at_ms >= from).collect())
    }

    /// A server forgets the requests of a busy route before those of others. Which route seems to begin later for that,
    /// and when.
    pub(crate) fn forgotten(&self) -> Option<(&str, Duration)> {
        let mut routes: BTreeMap<&str, (f64, usize)> = BTreeMap::new();
        for arrival in &self.arrivals {
            routes.entry(&arrival.route).or_insert((arrival.at_ms, 0)).1 += 1;
        }
        let full = routes.into_iter().filter(|(_, (_, count))| *count >= REMEMBERED);
        let (route, (began, _)) = full.max_by(|a, b| a.1.0.total_cmp(&b.1.0))?;
        let began = Duration::from_secs_f64(began / 1e3);
        (began > self.length() / 10).then_some((route, began))
    }

    /// The arrivals.
    pub fn arrivals(&self) -> &[Arrival] {
        &self.arrivals
    }

    /// From the first to the last.
    pub fn length(&self) -> Duration {
        self.arrivals.last().map_or(Duration::ZERO, |last| Duration::from_secs_f64(last.at_ms / 1e3))
    }
}

fn arrival(line: &[u8]) -> Result<Arrival, String> {
    // Where in the line it is wrong stands in front of us; which line that is, is not known there.
    let place = |error: serde_json::Error| error.to_string().replace(" at line 1 column", ", column");
    let arrival: Arrival = serde_json::from_slice(line).map_err(place)?;
    if !(0.0..=LONGEST.as_secs_f64() * 1e3).contains(&arrival.at_ms) {
        return Err(format!("at_ms is {}; it is between 0 and a day", arrival.at_ms));
    }
    if !(0.0..=f64::MAX).contains(&arrival.total_ms) {
        return Err(format!("total_ms is {}; it is 0 or more", arrival.total_ms));
    }
    if !(100..600).contains(&arrival.status) {
        return Err(format!("status is {}; it is one such as 200", arrival.status));
    }
    Ok(arrival)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str =
        r#"{"at_ms":5.5,"route":"GET /v1/models","model":null,"received_bytes":null,"status":200,"total_ms":0.1}"#;

    fn read(text: &str) -> Result<Trace, LoadError> {
        Trace::read(text.as_bytes())
    }

    #[test]
    fn arrivals_are_put_in_order_and_begin_at_nought() {
        let trace = read(&format!("{}\n\n{LINE}", LINE.replace("5.5", "7.5"))).unwrap();
        let times: Vec<f64> = trace.arrivals().iter().map(|arrival| arrival.at_ms).collect();
        assert_eq!(times, [0.0, 2.0]);
        assert_eq!(trace.length(), Duration::from_millis(2));
    }

    #[test]
    fn a_route_that_begins_late_is_noticed_and_can_be_cut_to() {
        let quiet = (0..10).map(|i| LINE.replace("5.5", &format!("{}", i * 1000)));
        let busy = |count: usize| {
            (0..count).map(|i| LINE.replace("5.5", &format!("{}", 8000 + i)).replace("/v1/models", "/v2"))
        };
        let trace = |count| read(&quiet.clone().chain(busy(count)).collect::<Vec<_>>().join("\n")).unwrap();
        assert_eq!(trace(255).forgotten(), None, "it came late");
        assert_eq!(trace(300).forgotten(), Some(("GET /v2", Duration::from_secs(8))));
        let cut = trace(300).last(Duration::from_secs(1)).unwrap();
        assert_eq!((cut.arrivals().len(), cut.forgotten()), (302, None));
        assert_eq!(cut.length(), Duration::from_secs(1));
    }

    #[test]
    fn what_is_no_arrival_is_told_with_its_line() {
        for (bad, words) in [
            ("{}", "missing field `at_ms`"),
            ("hello", "expected value"),
            (&LINE.replace("5.5", "-1"), "at_ms is -1"),
            (&LINE.replace("5.5", "1e99"), "between 0 and a day"),
            (&LINE.replace("200", "20"), "status is 20"),
            (&LINE.replace("0.1", "-0.1"), "total_ms is -0.1"),
            (&"x".repeat(100_000), "longer than"),
        ] {
            let error = read(&format!("{LINE}\n\n{bad}\n{LINE}")).unwrap_err().to_string();
            assert!(error.starts_with("line 3 of the trace: ") && error.contains(words), "{error}");
            assert!(!error.contains("line 1"), "{error}");
        }
        assert!(read("\n").unwrap_err().to_string().contains("empty"));
    }
}
