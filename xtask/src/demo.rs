//! `cargo xtask demo`: from nothing to boxes on a photograph.

use std::{fmt::Write as _, fs, path::Path};

use caudal_types::Stage;
use serde_json::Value;

use crate::{
    say::{self, Result, cargo, root, step},
    server::Server,
    setup,
};

const PHOTOGRAPH: &str = "fixtures/double_decker_bus.jpg";

struct Options {
    exit: bool,
    port: u16,
}

fn options(mut words: &[&str]) -> Result<Options> {
    let mut options = Options { exit: false, port: 8000 };
    while let [word, rest @ ..] = words {
        words = rest;
        match (*word, rest) {
            ("--exit", _) => options.exit = true,
            ("--port", [port, rest @ ..]) => {
                options.port = port.parse().map_err(|_| format!("--port takes a number, not {port:?}"))?;
                words = rest;
            }
            _ => return Err(format!("demo takes --exit and --port N, not {word:?}")),
        }
    }
    Ok(options)
}

pub(crate) fn run(words: &[&str]) -> Result {
    let options = options(words)?;
    let tools = setup::run()?;
    step("building caudal (release)");
    say::run(tools.equip(cargo().args(["build", "--release", "--package", "caudal"])))?;
    step("starting the server with the demo detector");
    let program = say::target().join("release/caudal");
    let mut server = Server::start(&program, options.port, |command| command)?;
    server.wait_until_ready()?;

    step(&format!("asking it what is in {PHOTOGRAPH}"));
    let picture = fs::read(root().join(PHOTOGRAPH)).map_err(|error| format!("{PHOTOGRAPH} cannot be read: {error}"))?;
    // The first request after a start pays for memory that later ones find warm.
    server.post("/predict/small", &picture)?;
    let answer = server.post("/predict/small", &picture)?;
    print!("{}", table(&answer)?);
    let drawn = root().join("out/demo.jpg");
    fs::create_dir_all(root().join("out")).map_err(|error| error.to_string())?;
    fs::write(&drawn, server.post("/predict/small?draw=true", &picture)?).map_err(|error| error.to_string())?;
    println!("\nwith the boxes on it: {}", drawn.display());

    if options.exit {
        println!("{}", next(&program));
        return server.stop();
    }
    let url = format!("http://127.0.0.1:{}", options.port);
    println!(
        "\nThe server is running:\n  {url}/docs     the API, to read and to try\n  {url}/health   its state\n  {url}/metrics  for Prometheus"
    );
    println!("\nTry it:\n  curl -F file=@{PHOTOGRAPH} {url}/predict/small\n\nStop it with Ctrl-C.");
    println!("\n{}", next(&program));
    server.wait()
}

/// Where the program is, and how it is run without this command.
fn next(program: &Path) -> String {
    format!(
        "The program is {program}; run it as\n  {program} serve\nor put `caudal` on your PATH with\n  cargo install --path crates/caudal",
        program = program.display()
    )
}

/// The boxes and the time of an answer, for people.
fn table(answer: &[u8]) -> Result<String> {
    let answer: Value = serde_json::from_slice(answer).map_err(|error| format!("the answer is no JSON: {error}"))?;
    let mut text = String::from("\n  class        conf      x1      y1      x2      y2\n");
    let number = |value: &Value, name: &str| value[name].as_f64().unwrap_or(f64::NAN);
    for found in answer["detections"].as_array().into_iter().flatten() {
        let [x1, y1, x2, y2] = ["x1", "y1", "x2", "y2"].map(|corner| number(found, corner));
        let (class, conf) = (found["class"].as_str().unwrap_or("?"), number(found, "confidence"));
        let _ = writeln!(text, "  {class:<12} {conf:.2}  {x1:6.1}  {y1:6.1}  {x2:6.1}  {y2:6.1}");
    }
    let timings = &answer["timings_ms"];
    let total = number(timings, "total");
    text.push('\n');
    for name in Stage::ALL.map(Stage::name).into_iter().chain(["total"]) {
        let spent = number(timings, name);
        if spent.is_finite() {
            let _ =
                writeln!(text, "  {name:<12} {spent:7.3} ms  {}", "▪".repeat((spent / total * 50.0).ceil() as usize));
        }
    }
    Ok(text)
}
