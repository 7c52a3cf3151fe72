//! What takes longer than the suite may: soak, benchmarks, a fresh reference.

use std::{fs, path::PathBuf, process::Command};

use crate::{
    say::{self, Result, cargo, root, step},
    setup,
};

/// The tests of overload, memory, expiry and shutdown, in full length and in release; they print their figures.
pub(crate) fn soak(filter: &[&str]) -> Result {
    let tools = setup::run()?;
    step("soak: about ten minutes");
    let mut command = cargo();
    command.args([
        "test",
        "--release",
        "--package",
        "caudal",
        "--test",
        "soak",
        "--test",
        "drain",
        "--test",
        "repository",
        "--test",
        "cpus",
        "--",
    ]);
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

/// Makes the reference anew, with a Python of its own, and holds the boxes against it; also that of the other kinds of
/// models, if `families`.
pub(crate) fn parity(families: bool) -> Result {
    let tools = setup::run()?;
    let folder = say::target().join("parity");
    let python = folder.join("bin/python");
    step("a Python with OpenCV and onnxruntime");
    say::run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
    say::run(pip.arg(root().join("benches/parity/requirements.txt")))?;
    step("the reference");
    let reference: PathBuf = folder.join("reference.json");
    let output = Command::new(&python).arg(root().join("benches/parity/reference.py")).output();
    let output = output.map_err(|error| format!("the reference cannot be made: {error}"))?;
    if !output.status.success() {
        return Err(format!("the reference failed: {}", String::from_utf8_lossy(&output.stderr)));
    }
    fs::write(&reference, output.stdout)
        .map_err(|error| format!("{} cannot be written: {error}", reference.display()))?;
    step("ours beside it");
    let mut command = cargo();
    command.args(["test", "--package", "caudal", "--test", "parity", "--", "--nocapture"]);
    say::run(tools.equip(command.env("CAUDAL_TEST_REFERENCE", &reference)))?;
    if !families {
        return Ok(());
    }
    step("models of every kind, and the reference beside them");
    let models = folder.join("families");
    say::run(Command::new(&python).arg(root().join("benches/parity/families.py")).arg(&models))?;
    let mut command = cargo();
    command.args(["test", "--package", "caudal", "--test", "parity", "every_kind", "--", "--ignored", "--nocapture"]);
    say::run(tools.equip(command.env("CAUDAL_TEST_FAMILIES", &models)))
}
