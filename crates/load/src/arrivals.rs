//! Recorded arrivals, in the format of `GET /admin/requests/trace?format=arrivals`: one JSON object per line.

use std::{collections::BTreeMap, io::BufRead, time::Duration};

use serde::Deserialize;

use crate::{LoadError, schedule::MAX_DURATION};

/// Lines per trace.
const MAX_TRACE_LINES: usize = 1_000_000;
/// Requests per route that a server retains at least; a route with fewer is complete.
const MIN_RETAINED_PER_ROUTE: usize = 256;
/// Bytes per line.
const MAX_LINE_BYTES: u64 = 64 << 10;

/// One recorded request.
#[derive(Debug, Clone, Deserialize)]
pub struct Arrival {
    /// Milliseconds since the first arrival.
    pub at_ms: f64,
    /// Method and path, such as `POST /predict/{model}`.
    pub route: String,
    /// The requested model, if known.
    pub model: Option<String>,
    /// Content length of the body, if sent.
    pub received_bytes: Option<u64>,
    /// Status of the response.
    pub status: u16,
    /// Milliseconds within the server.
    pub total_ms: f64,
}

/// Arrivals in the order of their times; the first is at 0.
#[derive(Debug, Clone)]
pub struct ArrivalTrace {
    arrivals: Vec<Arrival>,
}

impl ArrivalTrace {
    /// Reads a trace; empty lines are skipped.
    pub fn read_lines(mut text: impl BufRead) -> Result<Self, LoadError> {
        let mut arrivals = Vec::new();
        let mut line = Vec::new();
        for number in 1.. {
            let wrong = |reason: String| LoadError::Line { line: number, reason };
            line.clear();
            let read = std::io::Read::take(&mut text, MAX_LINE_BYTES).read_until(b'\n', &mut line);
            if read.map_err(|error| wrong(format!("cannot read it: {error}")))? == 0 {
                break;
            }
            if line.len() as u64 == MAX_LINE_BYTES && line.last() != Some(&b'\n') {
                return Err(wrong(format!("the line is longer than {MAX_LINE_BYTES} bytes")));
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            if arrivals.len() == MAX_TRACE_LINES {
                return Err(wrong(format!("more than {MAX_TRACE_LINES} arrivals; shorten the trace")));
            }
            arrivals.push(parse_arrival(&line).map_err(wrong)?);
        }
        Self::new(arrivals)
    }

    fn new(mut arrivals: Vec<Arrival>) -> Result<Self, LoadError> {
        arrivals.sort_by(|a, b| a.at_ms.total_cmp(&b.at_ms));
        let first = arrivals.first().ok_or_else(|| LoadError::NothingToSend("the trace is empty".to_owned()))?.at_ms;
        arrivals.iter_mut().for_each(|arrival| arrival.at_ms -= first);
        Ok(Self { arrivals })
    }

    /// Only the last `time` of the trace.
    pub fn keep_last(self, time: Duration) -> Result<Self, LoadError> {
        let from = self.arrivals.last().map_or(0.0, |last| last.at_ms - time.as_secs_f64() * 1e3);
        Self::new(self.arrivals.into_iter().filter(|arrival| arrival.at_ms >= from).collect())
    }

    /// Returns the route that seems to begin latest, and its time, if the server has probably dropped its earlier
    /// requests: a server drops the requests of busy routes before those of others.
    pub(crate) fn truncated_route(&self) -> Option<(&str, Duration)> {
        let mut routes: BTreeMap<&str, (f64, usize)> = BTreeMap::new();
        for arrival in &self.arrivals {
            routes.entry(&arrival.route).or_insert((arrival.at_ms, 0)).1 += 1;
        }
        let full = routes.into_iter().filter(|(_, (_, count))| *count >= MIN_RETAINED_PER_ROUTE);
        let (route, (began, _)) = full.max_by(|a, b| a.1.0.total_cmp(&b.1.0))?;
        let began = Duration::from_secs_f64(began / 1e3);
        (began > self.duration() / 10).then_some((route, began))
    }

    /// The arrivals.
    pub fn arrivals(&self) -> &[Arrival] {
        &self.arrivals
    }

    /// Time from the first to the last arrival.
    pub fn duration(&self) -> Duration {
        self.arrivals.last().map_or(Duration::ZERO, |last| Duration::from_secs_f64(last.at_ms / 1e3))
    }
}

fn parse_arrival(line: &[u8]) -> Result<Arrival, String> {
    // The caller adds the number of the line, which serde_json does not know.
    let place = |error: serde_json::Error| error.to_string().replace(" at line 1 column", ", column");
    let arrival: Arrival = serde_json::from_slice(line).map_err(place)?;
    if !(0.0..=MAX_DURATION.as_secs_f64() * 1e3).contains(&arrival.at_ms) {
        return Err(format!("at_ms is {}; expected a value between 0 and a day", arrival.at_ms));
    }
    if !(0.0..=f64::MAX).contains(&arrival.total_ms) {
        return Err(format!("total_ms is {}; expected 0 or more", arrival.total_ms));
    }
    if !(100..600).contains(&arrival.status) {
        return Err(format!("status is {}; expected an HTTP status such as 200", arrival.status));
    }
    Ok(arrival)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str =
        r#"{"at_ms":5.5,"route":"GET /v1/models","model":null,"received_bytes":null,"status":200,"total_ms":0.1}"#;

    fn read(text: &str) -> Result<ArrivalTrace, LoadError> {
        ArrivalTrace::read_lines(text.as_bytes())
    }

    #[test]
    fn trace_sorts_arrivals_and_starts_at_zero() {
        let trace = read(&format!("{}\n\n{LINE}", LINE.replace("5.5", "7.5"))).unwrap();
        let times: Vec<f64> = trace.arrivals().iter().map(|arrival| arrival.at_ms).collect();
        assert_eq!(times, [0.0, 2.0]);
        assert_eq!(trace.duration(), Duration::from_millis(2));
    }

    #[test]
    fn truncated_route_is_found_and_can_be_cut_off() {
        let quiet = (0..10).map(|i| LINE.replace("5.5", &format!("{}", i * 1000)));
        let busy = |count: usize| {
            (0..count).map(|i| LINE.replace("5.5", &format!("{}", 8000 + i)).replace("/v1/models", "/v2"))
        };
        let trace = |count| read(&quiet.clone().chain(busy(count)).collect::<Vec<_>>().join("\n")).unwrap();
        assert_eq!(trace(255).truncated_route(), None, "the route has few requests");
        assert_eq!(trace(300).truncated_route(), Some(("GET /v2", Duration::from_secs(8))));
        let cut = trace(300).keep_last(Duration::from_secs(1)).unwrap();
        assert_eq!((cut.arrivals().len(), cut.truncated_route()), (302, None));
        assert_eq!(cut.duration(), Duration::from_secs(1));
    }

    #[test]
    fn trace_reports_the_line_of_an_invalid_arrival() {
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
            assert!(error.starts_with("invalid trace: line 3: ") && error.contains(words), "{error}");
            assert!(!error.contains("line 1"), "{error}");
        }
        assert!(read("\n").unwrap_err().to_string().contains("empty"));
    }
}
