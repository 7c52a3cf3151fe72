//! Pipelines as people run them: the program on the command line and as a server, real processes throughout; what they
//! ask is asked of a server on this machine that counts.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod agents;
mod attacked;
mod checked;
mod cli;
mod examples;
mod kept;
mod killed;
mod local;
mod remembered;
mod server;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use caudal_testkit::{
    Server,
    http::{Answer, PATIENCE},
};
use serde_json::Value;

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");

/// A pipeline that greets.
const GREET: &str = "\
name: greet
steps:
  - name: words
    uses: template
    with: {template: 'Hello, {{ input }}!'}
";

/// A pipeline that asks somebody.
const ASK: &str = "\
name: ask
steps:
  - name: approve
    kind: hitl
    message: 'Is {{ previous_step }} good?'
    input_schema: {type: boolean}
  - name: told
    uses: template
    with: {template: {good: '{{ steps.approve }}'}}
";

/// A folder of pipelines, and one for what is kept of their runs.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.pipelines()).unwrap();
        place
    }

    /// A place with these pipelines, each under the name that its text begins with.
    fn with(texts: &[&str]) -> Self {
        let place = Self::new();
        for text in texts {
            let name = text.lines().next().unwrap().strip_prefix("name: ").unwrap();
            place.write(&format!("{name}.yaml"), text);
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn data(&self) -> PathBuf {
        self.path("data")
    }

    fn pipelines(&self) -> PathBuf {
        self.path("pipelines")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.pipelines().join(name), text).unwrap();
    }

    fn command(&self, words: &[&str]) -> Command {
        self.command_in(&self.pipelines(), words)
    }

    /// `caudal flow …` with the pipelines of `folder`.
    fn command_in(&self, folder: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(CAUDAL);
        command.arg("flow").args(words).current_dir(self.0.path()).stdin(Stdio::null()).env_remove("FLUJO_INPUT");
        command.env("CAUDAL_PIPELINES", folder).env("CAUDAL_DATA_DIR", self.data()).env("CAUDAL_LOG_LEVEL", "off");
        command.env("CAUDAL_MODEL_REPOSITORY", root("models"));
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// What a command prints that ends with 0.
    fn good(&self, words: &[&str]) -> String {
        good(&mut self.command(words))
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.good(words)).unwrap()
    }

    /// What a command says that ends with `code`.
    fn bad(&self, code: i32, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", said(&output));
        said(&output)
    }

    /// A server of these pipelines that keeps their runs here.
    fn serve(&self) -> Server {
        serve(&self.pipelines(), &self.data(), &[])
    }
}

/// A server of the pipelines in `folder`.
fn serve(folder: &Path, data: &Path, variables: &[(&str, &str)]) -> Server {
    let words = ["--pipelines", folder.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
    Server::start_in(CAUDAL, &root("models"), &words, variables)
}

/// A file or folder of the project.
fn root(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

fn good(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// All that a program has said.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// Runs a command that is told `words` on standard input.
fn told(command: &mut Command, words: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(words.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Waits until it is so.
#[track_caller]
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "it never came about: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// An answer that must have that status, as JSON.
#[track_caller]
fn answered(status: u16, answer: &Answer) -> Value {
    assert_eq!(answer.status, status, "{}", answer.text());
    answer.json()
}

/// An error: its status, its code, and words of its message or advice.
#[track_caller]
fn refused(status: u16, code: &str, words: &str, answer: &Answer) {
    let error = &answered(status, answer)["error"];
    assert_eq!(error["code"], code, "{error}");
    let all = format!("{} {}", error["message"], error["hint"]);
    assert!(all.contains(words), "{words:?} is not in {all}");
}
