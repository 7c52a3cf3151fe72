//! Which trace a request belongs to, by its headers.

use axum::http::{HeaderMap, HeaderName};
use caudal_telemetry::{TraceContext, TraceParent, Tracer};

static PARENT: HeaderName = HeaderName::from_static("traceparent");
static STATE: HeaderName = HeaderName::from_static("tracestate");

/// Longer paths are cut: no model has such a name, and what waits for a collector should be small.
const LONGEST_PATH: usize = 512;

/// The place in its trace of a request with `headers`, if it is told of. Only where work is done may a trace begin: who
/// asks for metrics every few seconds does not want to read of it.
pub(super) fn begin(tracer: &Tracer, headers: &HeaderMap, works: bool) -> Option<TraceContext> {
    let mut said = headers.get_all(&PARENT).iter();
    // Two of them are as good as none.
    let parent = said.next().filter(|_| said.next().is_none()).and_then(|said| TraceParent::parse(said.as_bytes()));
    tracer.sample_request(parent, works, || {
        let states = headers.get_all(&STATE).iter().filter_map(|state| state.to_str().ok());
        states.collect::<Vec<_>>().join(",")
    })
}

/// A path as it is told.
pub(super) fn path(path: String) -> String {
    match path.char_indices().nth(LONGEST_PATH) {
        None => path,
        Some((end, _)) => path[..end].to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_paths_are_cut_and_short_ones_are_not() {
        assert_eq!(path("/predict/m".to_owned()), "/predict/m");
        let cut = path("é".repeat(100_000));
        assert_eq!((cut.chars().count(), cut.capacity()), (LONGEST_PATH, cut.len()));
    }
}
