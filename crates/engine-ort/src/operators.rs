//! ONNX Runtime's profile of a session's runs: a file in Chrome's trace format, parsed and deleted.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use caudal_engine::{Operator, OperatorProfile};
use serde::Deserialize;

/// The suffix that ONNX Runtime adds to a node's name for its execution.
const NODE_TIME_SUFFIX: &str = "_kernel_time";

/// The profile of a session, whose file ONNX Runtime creates.
pub(crate) struct ProfileFile {
    /// The file name's prefix, to which ONNX Runtime adds the time.
    pub(crate) prefix: PathBuf,
}

impl ProfileFile {
    pub(crate) fn new() -> Self {
        static PROFILE_COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("caudal-operators-{}-{}", process::id(), PROFILE_COUNT.fetch_add(1, Relaxed));
        Self { prefix: env::temp_dir().join(name) }
    }

    /// Parses `file`, which `library` has written, and deletes it; the first run is skipped.
    pub(crate) fn read_and_remove(&self, file: &Path, library: &Path) -> Result<OperatorProfile, String> {
        let text = fs::read_to_string(file);
        let _ = fs::remove_file(file);
        let text = text.map_err(|error| format!("the profile {} cannot be read: {error}", file.display()))?;
        parse_profile(&text, library)
    }
}

#[derive(Deserialize)]
struct TraceEvent {
    cat: String,
    name: String,
    ts: u64,
    #[serde(default)]
    dur: u64,
    #[serde(default)]
    args: EventArgs,
}

#[derive(Default, Deserialize)]
struct EventArgs {
    op_name: Option<String>,
    provider: Option<String>,
}

fn parse_profile(text: &str, library: &Path) -> Result<OperatorProfile, String> {
    let events: Vec<TraceEvent> =
        serde_json::from_str(text).map_err(|error| format!("ONNX Runtime's profile cannot be read: {error}"))?;
    let mut runs: Vec<&TraceEvent> = events.iter().filter(|event| event.name == "model_run").collect();
    runs.sort_by_key(|run| run.ts);
    let Some((first, rest)) = runs.split_first() else {
        return Err("ONNX Runtime's profile holds no run".to_owned());
    };
    let from = first.ts + first.dur;
    let mut found: BTreeMap<&str, Operator> = BTreeMap::new();
    for event in events.iter().filter(|event| event.cat == "Node" && event.ts >= from) {
        let Some(name) = event.name.strip_suffix(NODE_TIME_SUFFIX) else { continue };
        let operator = found.entry(name).or_insert_with(|| Operator {
            name: name.to_owned(),
            kind: event.args.op_name.clone().unwrap_or_default(),
            provider: event.args.provider.clone().unwrap_or_default(),
            calls: 0,
            total_us: 0,
        });
        operator.calls += 1;
        operator.total_us += event.dur;
    }
    let mut operators: Vec<Operator> = found.into_values().collect();
    operators.sort_by_key(|operator| std::cmp::Reverse(operator.total_us));
    let total_us = rest.iter().map(|run| run.dur).sum();
    Ok(OperatorProfile { library: library.to_owned(), runs: rest.len(), total_us, operators })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profile_skips_first_run_and_ranks_nodes() {
        let node = |name: &str, kind: &str, ts: u64, dur: u64| {
            format!(
                r#"{{"cat":"Node","name":"{name}_kernel_time","ts":{ts},"dur":{dur},"ph":"X","args":{{"op_name":"{kind}","provider":"CPU"}}}}"#
            )
        };
        let run =
            |ts: u64, dur: u64| format!(r#"{{"cat":"Session","name":"model_run","ts":{ts},"dur":{dur},"args":{{}}}}"#);
        let events = [
            node("a", "Conv", 10, 900),
            run(0, 1000),
            node("a", "Conv", 1010, 30),
            node("b", "Conv", 1050, 50),
            node("c", "Add", 1100, 10),
            run(1000, 150),
            node("a", "Conv", 1210, 40),
            run(1200, 100),
        ];
        let operators = |text: &str| parse_profile(text, Path::new("libonnxruntime.so"));
        let profile = operators(&format!("[{}]", events.join(","))).unwrap();
        assert_eq!((profile.runs, profile.total_us), (2, 250));
        let ranked: Vec<_> = profile.operators.iter().map(|op| (&*op.name, op.calls, op.total_us)).collect();
        assert_eq!(ranked, [("a", 2, 70), ("b", 1, 50), ("c", 1, 10)]);
        let kinds: Vec<_> = profile.by_kind().into_iter().map(|op| (op.kind, op.calls, op.total_us)).collect();
        assert_eq!(kinds, [("Conv".to_owned(), 3, 120), ("Add".to_owned(), 1, 10)]);
        assert!(operators("[]").is_err() && operators("{").is_err());
    }
}
