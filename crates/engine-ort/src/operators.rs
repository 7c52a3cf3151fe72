//! ONNX Runtime's own profile of a session's runs: a file in Chrome's trace format, read and forgotten.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use caudal_engine::{Operator, OperatorProfile};
use serde::Deserialize;

/// What ONNX Runtime puts behind a node's name where it has run.
const RAN: &str = "_kernel_time";

/// A file that goes when this does.
pub(crate) struct Profile {
    /// The beginning of its name: ONNX Runtime adds the time.
    pub(crate) prefix: PathBuf,
}

impl Profile {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("caudal-operators-{}-{}", process::id(), COUNT.fetch_add(1, Relaxed));
        Self { prefix: env::temp_dir().join(name) }
    }

    /// Reads what was written to `file` by `library`, and removes it; the first run is not counted.
    pub(crate) fn read(&self, file: &Path, library: &Path) -> Result<OperatorProfile, String> {
        let text = fs::read_to_string(file);
        let _ = fs::remove_file(file);
        let text = text.map_err(|error| format!("the profile {} cannot be read: {error}", file.display()))?;
        operators(&text, library)
    }
}

#[derive(Deserialize)]
struct Event {
    cat: String,
    name: String,
    ts: u64,
    #[serde(default)]
    dur: u64,
    #[serde(default)]
    args: Args,
}

#[derive(Default, Deserialize)]
struct Args {
    op_name: Option<String>,
    provider: Option<String>,
}

fn operators(text: &str, library: &Path) -> Result<OperatorProfile, String> {
    let events: Vec<Event> =
        serde_json::from_str(text).map_err(|error| format!("ONNX Runtime's profile cannot be read: {error}"))?;
    let mut runs: Vec<&Event> = events.iter().filter(|event| event.name == "model_run").collect();
    runs.sort_by_key(|run| run.ts);
    let Some((first, rest)) = runs.split_first() else {
        return Err("ONNX Runtime's profile holds no run".to_owned());
    };
    let from = first.ts + first.dur;
    let mut found: BTreeMap<&str, Operator> = BTreeMap::new();
    for event in events.iter().filter(|event| event.cat == "Node" && event.ts >= from) {
        let Some(name) = event.name.strip_suffix(RAN) else { continue };
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
    fn the_first_run_is_left_out_and_nodes_are_ranked() {
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
        let operators = |text: &str| operators(text, Path::new("libonnxruntime.so"));
        let profile = operators(&format!("[{}]", events.join(","))).unwrap();
        assert_eq!((profile.runs, profile.total_us), (2, 250));
        let ranked: Vec<_> = profile.operators.iter().map(|op| (&*op.name, op.calls, op.total_us)).collect();
        assert_eq!(ranked, [("a", 2, 70), ("b", 1, 50), ("c", 1, 10)]);
        let kinds: Vec<_> = profile.by_kind().into_iter().map(|op| (op.kind, op.calls, op.total_us)).collect();
        assert_eq!(kinds, [("Conv".to_owned(), 3, 120), ("Add".to_owned(), 1, 10)]);
        assert!(operators("[]").is_err() && operators("{").is_err());
    }
}
