//! What a run that waits for somebody holds in this process.

use std::process::Command;

use caudal_flow::{Engine, Options, Outcome, Pipeline, RunOptions, Value};

/// Runs that wait.
const RUNS: usize = 10_000;

/// Says that this process is there for this alone.
pub(crate) const ALONE: &str = "--idle";

/// Bytes for each of them, in a process of its own: in this one there is memory that others have left.
pub(crate) fn alone() -> f64 {
    let program = std::env::current_exe().expect("this program");
    let said = Command::new(program).arg(ALONE).output().expect("a process");
    String::from_utf8_lossy(&said.stdout).trim().parse().expect("a number")
}

/// Bytes for each of them: what the process holds more, with the journals kept in memory.
pub(crate) fn bytes() -> f64 {
    let definition = Pipeline::<String, String>::new("idle")
        .step("before", |text: &String, _| Ok(text.to_uppercase()))
        .ask::<bool>("approve", |text: &String| format!("Is {text} right?"))
        .define();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let engine = Engine::new(Options::default());
        engine.run(&definition, Value::from("first"), RunOptions::default()).await;
        let before = held();
        for number in 0..RUNS {
            let ran = engine.run(&definition, Value::from(format!("text {number}")), RunOptions::default()).await;
            assert!(matches!(ran.outcome, Outcome::Paused(_)), "it waits");
        }
        (held() - before) / RUNS as f64
    })
}

/// Bytes of memory that the process holds.
fn held() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or_default() * 1024.0
}
