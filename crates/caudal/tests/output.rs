//! What commands do where their output is not read, or cannot be written.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    fs::File,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    process::{Command, Output, Stdio},
};

use caudal_testkit::{Repo, Server, find_program, fixture_path};

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");
const SIGPIPE: i32 = 13;

/// Commands that print without a server, each with enough arguments to succeed.
fn printing(small: &Repo, detector: &Repo) -> Vec<Vec<String>> {
    let picture = fixture_path("double_decker_bus.jpg").display().to_string();
    let with = |repo: &Repo, words: &[&str]| {
        let words = words.iter().map(|word| (*word).to_owned());
        words.chain(["--model-repository".to_owned(), repo.path("").display().to_string()]).collect()
    };
    let with_models = |words: &[&str]| with(small, words);
    let plain = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let hello = concat!(env!("CARGO_MANIFEST_DIR"), "/src/commands/flow/hello.yaml");
    let media: Vec<Vec<String>> = match find_program(&["ffprobe"]) {
        Some(_) => vec![plain(&["media", "probe", "silence.wav"]), plain(&["media", "probe", "--json", "silence.wav"])],
        None => Vec::new(),
    };
    let others = vec![
        with_models(&["config"]),
        with_models(&["config", "--json"]),
        plain(&["models", "schema"]),
        with_models(&["models", "list"]),
        with_models(&["models", "list", "--json"]),
        with_models(&["models", "show", "double"]),
        with_models(&["models", "show", "double", "--json"]),
        with_models(&["models", "doctor"]),
        with_models(&["models", "profile", "double", "--runs", "1"]),
        with(detector, &["detect", &picture]),
        with(detector, &["detect", "--json", &picture]),
        with_models(&["embed", "--model", "enc", "good news"]),
        plain(&["flow", "schema"]),
        plain(&["flow", "leaves"]),
        plain(&["flow", "validate", hello]),
        plain(&["flow", "validate", hello, "--json"]),
        plain(&["flow", "explain", hello]),
        plain(&["flow", "run", hello, "--ephemeral"]),
        plain(&["flow", "run", hello, "--ephemeral", "--json"]),
        plain(&["serve", "--help"]),
        plain(&["--version"]),
    ];
    others.into_iter().chain(media).collect()
}

/// A tenth of a second without a sound, as WAV.
fn silence() -> Vec<u8> {
    let (rate, samples) = (8000_u32, vec![0; 1600]);
    let mut wav = b"RIFF".to_vec();
    wav.extend((36 + samples.len() as u32).to_le_bytes());
    wav.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    wav.extend(rate.to_le_bytes());
    wav.extend((2 * rate).to_le_bytes());
    wav.extend(b"\x02\0\x10\0data");
    wav.extend((samples.len() as u32).to_le_bytes());
    wav.extend(samples);
    wav
}

fn small() -> Repo {
    Repo::new().model("double", "double", "").encoder("enc", "encoder", "embedding: {max_tokens: 64}")
}

/// Runs a command with `output` as its standard output.
fn run(words: &[String], output: impl Into<Stdio>) -> Output {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("silence.wav"), silence()).unwrap();
    let child = Command::new(CAUDAL).args(words).current_dir(home.path()).stdout(output).stderr(Stdio::piped()).spawn();
    child.unwrap().wait_with_output().unwrap()
}

/// A pipe that nobody reads.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn commands_end_quietly_when_nobody_reads() {
    for words in printing(&small(), &Repo::nanodet("")) {
        let output = run(&words, closed_pipe());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("panicked"), "{words:?}: {said}");
        let (signal, code) = (output.status.signal(), output.status.code());
        assert!(signal == Some(SIGPIPE) || code == Some(0), "{words:?}: {:?}: {said}", output.status);
    }
}

#[test]
fn commands_fail_when_the_disk_is_full() {
    for words in printing(&small(), &Repo::nanodet("")) {
        let output = run(&words, File::options().write(true).open("/dev/full").unwrap());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
        assert!(said.contains("standard output cannot be written: No space left on device"), "{words:?}: {said}");
    }
}

#[test]
fn a_closed_standard_error_is_no_failure() {
    let output = |words: &[&str]| {
        Command::new(CAUDAL).args(words).stdout(Stdio::null()).stderr(closed_pipe()).output().unwrap().status
    };
    assert_eq!(output(&["config", "--http-port", "many"]).code(), Some(2));
    assert_eq!(output(&["models", "show", "nobody"]).code(), Some(1));
}

/// A log that nobody reads any more, and clients that leave, do not end a server.
#[test]
fn a_server_outlives_the_readers_of_its_output() {
    let repo = Repo::new().model("double", "double", "");
    let mut command = Command::new(CAUDAL);
    command.args(["serve", "--http-port", "0", "--log-level", "debug", "--model-repository"]).arg(repo.path(""));
    let home = tempfile::tempdir().unwrap();
    let child = command.current_dir(home.path()).stdout(closed_pipe()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let address = loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "the server ended");
        if let Some(rest) = line.split("listening on http://").nth(1) {
            break rest.split_whitespace().next().unwrap().parse().unwrap();
        }
    };
    drop(log);
    for _ in 0..20 {
        let answer = caudal_testkit::http::once(address, &caudal_testkit::http::get("/health")).unwrap();
        assert_eq!(answer.status, 200);
    }
    assert!(child.try_wait().unwrap().is_none(), "it still runs");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_load_whose_report_nobody_reads_ends_quietly() {
    let server = Server::start(CAUDAL, &Repo::new().model("double", "double", ""), &[]);
    let url = format!("http://{}", server.address());
    let body = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
    std::fs::write(body.path(), caudal_testkit::http::tensor_request(&[[1.0; 4]], "")).unwrap();
    let words =
        ["bench", "run", "--model", "double", "--connections", "1", "--requests", "3", "--url", &url, "--input"];
    let mut words: Vec<String> = words.map(str::to_owned).into();
    words.push(body.path().display().to_string());
    let output = run(&words, closed_pipe());
    assert_eq!(output.status.signal(), Some(SIGPIPE), "{}", String::from_utf8_lossy(&output.stderr));
}
