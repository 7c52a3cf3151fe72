//! Memory that is short: told, given back, and new work refused before the kernel kills.
//!
//! Where control groups can be made (root, a writable `/sys/fs/cgroup`), a real limit is set around a real server; else
//! that part is skipped, and said so.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use caudal_testkit::{
    Repo, Server,
    http::{Answer, Ask, Connection, PATIENCE, get, post, tensor_request},
    model_file,
};
use serde_json::{Value, json};

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");
const MIB: u64 = 1 << 20;

/// `count` models of 8 MiB of weights each.
fn heavy(count: usize) -> Repo {
    let (model, weights) = (fs::read(model_file("heavy")).unwrap(), 1f32.to_le_bytes().repeat(4 << 19));
    (0..count).fold(Repo::new(), |repo, i| {
        repo.file(&format!("m{i}/1/model.onnx"), &model)
            .file(&format!("m{i}/1/weights.bin"), &weights)
            .file(&format!("m{i}/model.yaml"), b"instances: 1\nthreads: 1\nbatching: {max_batch_size: 4}")
    })
}

fn infer(server: &Server, model: &str) -> Answer {
    server.post_json(&format!("/v2/models/{model}/infer"), &tensor_request(&[[1.0; 4]], ""))
}

fn memory(server: &Server) -> Value {
    let answer = server.get("/admin/memory");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn until(server: &Server, what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what}: {}\n{}", memory(server), server.log());
        thread::sleep(Duration::from_millis(10));
    }
}

fn pressure(server: &Server) -> f64 {
    server.metric("caudal_memory_pressure", "")
}

fn check_refused(answer: &Answer) {
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(
        answer.text().contains("memory_pressure") && answer.text().contains("memory is short"),
        "{}",
        answer.text()
    );
    assert_eq!(answer.header("retry-after"), "2");
}

#[test]
fn what_is_known_of_memory_is_told_to_whoever_asks() {
    let server = Server::start(CAUDAL, &heavy(2), &[]);
    // Memory is read four times a second, and models are loaded meanwhile.
    let is_fresh = |told: &Value| {
        let resident = server.resident();
        told["readings"]["process_bytes"].as_u64().is_some_and(|bytes| bytes.abs_diff(resident) < resident / 4)
    };
    let began = Instant::now();
    let mut told = memory(&server);
    while !is_fresh(&told) {
        assert!(began.elapsed() < Duration::from_secs(5), "{told}");
        thread::sleep(Duration::from_millis(100));
        told = memory(&server);
    }
    let bytes = |path: &str| told.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path}: {told}"));
    assert!(bytes("/readings/system/used_bytes") < bytes("/readings/system/limit_bytes"));
    assert!(bytes("/models/m0/bytes") >= 8 * MIB && bytes("/models/m1/weights_bytes") >= 8 * MIB, "{told}");
    assert_eq!((&told["level"], &told["shedding"]), (&json!("normal"), &json!(false)));
    assert_eq!(told["thresholds"]["memory_shed_percent"], 95.0);
    let hooks: Vec<&str> =
        told["hooks"].as_array().unwrap().iter().map(|hook| hook["name"].as_str().unwrap()).collect();
    assert_eq!(hooks, ["idle_models", "run_arena", "allocator"]);
    assert_eq!((&told["last_cleanup"], told["history"].as_array().unwrap().len()), (&Value::Null, 1), "{told}");

    let status = server.get("/status").json();
    let figure = |name: &str| status["memory"][name].as_f64().unwrap_or_else(|| panic!("{name}: {status}"));
    assert!(figure("system_memory_percent") > 0.0 && figure("system_memory_percent") <= 100.0);
    assert!(figure("system_memory_used_gb") <= figure("system_memory_total_gb"));
    assert_eq!(status["memory"]["pressure"], "normal");
    let no_gpu = fs::metadata("/dev/nvidiactl").is_err();
    assert!(!no_gpu || status["memory"]["gpu_memory_percent"].is_null(), "no GPU, no figures: {status}");
    assert!(status["memory"].get("gpu_memory_total_gb").is_some(), "the name is there in any case: {status}");
    assert_eq!(server.get("/health").json()["performance"]["memory_pressure"], "normal");

    for (name, labels) in [
        ("caudal_memory_used_bytes", r#"scope="system""#),
        ("caudal_memory_used_bytes", r#"scope="process""#),
        ("caudal_memory_limit_bytes", r#"scope="system""#),
    ] {
        assert!(server.metric(name, labels) > 1e6, "{name}{{{labels}}}");
    }
    assert_eq!(pressure(&server), 0.0);
}

#[test]
fn cleaning_up_gives_back_what_idle_models_hold_and_they_come_when_they_are_asked_for() {
    let repo = heavy(4);
    let server = Server::start(CAUDAL, &repo, &[]);
    // What was asked for just now is not idle.
    assert_eq!(infer(&server, "m0").status, 200);
    let cleanup = |body: &str| server.post_json("/admin/memory/cleanup", body);
    let kept = cleanup("").json();
    assert!(kept["hooks"][0]["did"].as_str().unwrap().contains("no model has been idle for 60 s"), "{kept}");
    let before = server.resident();
    let answer = cleanup(r#"{"idle_secs": 0}"#);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let report = answer.json();
    let did = |hook: usize| report["hooks"][hook]["did"].as_str().unwrap().to_owned();
    for model in ["m0", "m1", "m2", "m3"] {
        assert!(did(0).contains(model), "{report}");
    }
    assert!(
        did(1).contains("what is kept for runs went from") && did(2).contains("went back to the system"),
        "{report}"
    );
    let freed = before.saturating_sub(server.resident());
    println!("cleanup of 4 models of 8 MiB: {} to {} MiB; {report}", before / MIB, server.resident() / MIB);
    // Of the weights, which lie in a mapped file, only what runs have touched is resident.
    assert!(freed >= 4 * MIB, "{freed}: {report}");
    assert!(report["freed_bytes"].as_u64().unwrap() >= 4 * MIB, "{report}");
    assert_eq!(server.metric("caudal_models", ""), 0.0);
    assert_eq!(server.metric("caudal_memory_cleanups_total", r#"hook="idle_models""#), 2.0);
    assert!(server.metric("caudal_memory_freed_bytes_total", "") > 0.0);
    assert_eq!(memory(&server)["last_cleanup"]["hooks"], report["hooks"]);
    assert_eq!(infer(&server, "m0").status, 200, "it comes back");
}

#[test]
fn memory_is_shown_and_cleaned_up_for_admins_alone() {
    let server = Server::start(CAUDAL, &heavy(1), &[]);
    let foreign: &[(&str, &str)] = &[("Authorization", "Bearer guess")];
    let told = server.ask(&Ask { headers: foreign, ..get("/admin/memory") });
    assert_eq!((told.status, told.code().as_str()), (401, "unauthorized"));
    let cleaned = server.ask(&post("/admin/memory/cleanup", foreign, br#"{"idle_secs": 0}"#));
    assert_eq!((cleaned.status, cleaned.code().as_str()), (401, "unauthorized"));
    assert_eq!(server.metric("caudal_models", ""), 1.0);
    for (body, code, words) in [
        ("{", "invalid_request", "the body"),
        (r#"{"idle": 0}"#, "invalid_request", "idle_secs"),
        (r#"{"idle_secs": -1}"#, "invalid_parameter", "between 0 and"),
    ] {
        let answer = server.post_json("/admin/memory/cleanup", body);
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{body}");
        assert!(answer.text().contains(words), "{body}: {}", answer.text());
    }
}

#[test]
fn settings_that_make_no_sense_are_refused_at_start() {
    let home = tempfile::tempdir().unwrap();
    for (arguments, words) in [
        (&["--memory-threshold-percent", "0"][..], "1 to 100"),
        (&["--memory-shed-percent", "101"], "1 to 100"),
        (&["--gpu-memory-threshold-percent", "many"], "1 to 100"),
        (&["--memory-monitoring", "perhaps"], "true or false"),
        (
            &["--memory-cleanup-threshold-percent", "90", "--memory-shed-percent", "85"],
            "above memory_shed_percent (85)",
        ),
        (&["--memory-webhook-url", "ftp://hooks.example"], "http:// or https://"),
    ] {
        let output = Command::new(CAUDAL).arg("serve").args(arguments).current_dir(home.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.contains(words)), (Some(2), true), "{arguments:?}: {said}");
    }
}

/// Takes what is posted to it, as JSON, and answers like any web server.
fn listen() -> (String, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/hook", listener.local_addr().unwrap());
    let (sender, received) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut text, mut chunk) = (Vec::new(), [0; 4096]);
            let body = loop {
                let read = stream.read(&mut chunk).unwrap();
                text.extend_from_slice(&chunk[..read]);
                let whole = String::from_utf8_lossy(&text).into_owned();
                let Some((head, body)) = whole.split_once("\r\n\r\n") else { continue };
                let length = head
                    .to_lowercase()
                    .split("content-length: ")
                    .nth(1)
                    .map(|rest| rest.split_whitespace().next().unwrap().parse::<usize>().unwrap());
                if read == 0 || length.is_some_and(|length| body.len() >= length) {
                    break body.to_owned();
                }
            };
            stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
            if sender.send(serde_json::from_str(&body).unwrap()).is_err() {
                return;
            }
        }
    });
    (address, received)
}

#[test]
fn memory_that_becomes_short_is_told_cleaned_up_and_new_work_refused_until_it_no_longer_is() {
    let (hook, alerts) = listen();
    let repo = heavy(2);
    let config = repo.path("caudal.yaml");
    // Whatever machine this is: more than 1 % of its memory is in use, and less than 95 %.
    let relaxed = format!("memory_webhook_url: {hook}\nmemory_rest_idle_secs: 0");
    let short = "memory_cleanup_threshold_percent: 1\nmemory_threshold_percent: 1\nmemory_shed_percent: 1";
    fs::write(&config, &relaxed).unwrap();
    let server = Server::start(
        CAUDAL,
        &repo,
        &["--config", config.to_str().unwrap(), "--model-control-mode", "explicit", "--load-model", "*"],
    );
    assert_eq!((pressure(&server), server.metric("caudal_models", "")), (0.0, 2.0));
    assert_eq!(infer(&server, "m0").status, 200);

    fs::write(&config, format!("{relaxed}\n{short}")).unwrap();
    server.signal("HUP");
    until(&server, "memory is short", || pressure(&server) == 3.0);
    check_refused(&infer(&server, "m0"));
    check_refused(&server.post_json("/v2/repository/models/m0/load", ""));
    let alert = alerts.recv_timeout(PATIENCE).unwrap();
    assert_eq!(
        (&alert["level"], &alert["was"], &alert["resolved"]),
        (&json!("critical"), &json!("normal"), &json!(false))
    );
    assert!(alert["percent"].as_f64().unwrap() > 1.0 && alert["used_bytes"].is_u64(), "{alert}");
    assert!(alert["text"].as_str().unwrap().contains("is critical"), "{alert}");
    assert!(!alert["recommendations"].as_array().unwrap().is_empty(), "{alert}");
    let line = server.log_line("memory is critical, new work is refused");
    assert!(line.contains("MiB are used"), "{line}");
    until(&server, "idle models rest by themselves", || server.metric("caudal_models", "") == 0.0);
    server.log_line("memory is short");

    // Whoever only asks is answered, and who looks after the server may act.
    for path in ["/health", "/readyz", "/status", "/metrics", "/v2/models/m0/ready", "/v1/models", "/admin/memory"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    assert_eq!(server.get("/health").json()["performance"]["memory_pressure"], "critical");
    assert_eq!(server.post_json("/v2/repository/index", "").status, 200);
    assert_eq!(server.post_json("/v2/repository/models/m1/unload", "").status, 200);
    assert_eq!(server.post_json("/admin/memory/cleanup", "").status, 200);
    let told = memory(&server);
    assert_eq!(
        (&told["level"], &told["shedding"], &told["alerts"]["critical"]),
        (&json!("critical"), &json!(true), &json!(1))
    );
    assert!(!told["recommendations"].as_array().unwrap().is_empty(), "{told}");
    assert_eq!(server.metric("caudal_memory_alerts_total", r#"level="critical""#), 1.0);
    assert!(server.metric("caudal_errors_total", r#"code="memory_pressure""#) >= 2.0);

    fs::write(&config, &relaxed).unwrap();
    server.signal("HUP");
    until(&server, "memory is no longer short", || pressure(&server) == 0.0);
    assert_eq!(infer(&server, "m0").status, 200, "{}", server.log());
    let resolved = alerts.recv_timeout(PATIENCE).unwrap();
    assert_eq!((&resolved["level"], &resolved["resolved"]), (&json!("normal"), &json!(true)));
    assert!(alerts.try_recv().is_err(), "one for each change");
}

#[test]
fn who_watches_nothing_refuses_nothing() {
    let low = ["--memory-cleanup-threshold-percent", "1", "--memory-shed-percent", "1", "--memory-monitoring", "false"];
    let server = Server::start(CAUDAL, &heavy(1), &low);
    thread::sleep(Duration::from_millis(600));
    assert_eq!((pressure(&server), infer(&server, "m0").status), (0.0, 200));
    assert!(memory(&server)["readings"]["system"]["used_bytes"].as_u64().unwrap() > 0, "it tells nevertheless");
}

/// A control group with a limit on memory; gone when dropped.
struct Limited {
    folder: PathBuf,
    /// Of usage and of the limit, as this version names them.
    files: (&'static str, &'static str),
}

impl Limited {
    /// One without a limit yet, in version 1 or 2, if this machine lets us.
    fn new(name: &str) -> Option<Self> {
        let make = |parent: &str, files: (&'static str, &'static str)| {
            let folder = Path::new(parent).join(format!("caudal-test-{}-{name}", std::process::id()));
            fs::create_dir(&folder).ok()?;
            let made = Self { folder, files };
            made.folder.join(files.1).exists().then_some(made)
        };
        make("/sys/fs/cgroup/memory", ("memory.usage_in_bytes", "memory.limit_in_bytes"))
            .or_else(|| make("/sys/fs/cgroup", ("memory.current", "memory.max")))
    }

    fn usage(&self) -> u64 {
        fs::read_to_string(self.folder.join(self.files.0)).unwrap().trim().parse().unwrap()
    }

    fn limit(&self, bytes: u64) {
        fs::write(self.folder.join(self.files.1), bytes.to_string()).unwrap();
    }

    /// A server within it.
    fn server(&self, home: &Path, repo: &Repo, arguments: &[&str]) -> Server {
        let script = home.join("within");
        let join = format!("#!/bin/sh\necho $$ > {}/cgroup.procs\nexec {CAUDAL} \"$@\"\n", self.folder.display());
        fs::write(&script, join).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        Server::start(script.to_str().unwrap(), repo, arguments)
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        // The processes in it are gone, or soon.
        let end = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.folder).is_err() && Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// An upload that never ends, and holds what it has sent.
struct Upload {
    connection: Connection,
    left: usize,
}

const UPLOAD: usize = 120 << 20;

impl Upload {
    fn begin(server: &Server) -> Self {
        let mut connection = server.connect();
        let head = format!(
            "POST /v2/models/m0/infer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {UPLOAD}\r\n\r\n"
        );
        connection.send(head.as_bytes()).unwrap();
        Self { connection, left: UPLOAD }
    }

    fn send(&mut self, bytes: usize) -> std::io::Result<()> {
        let bytes = bytes.min(self.left);
        self.left -= bytes;
        self.connection.send(&vec![b' '; bytes])
    }

    /// Sends until memory is critical, the slower the nearer that is.
    fn fill(&mut self, server: &Server) {
        while pressure(server) < 3.0 {
            assert!(self.left > 0, "it is full: {}", memory(server));
            let step = if cgroup_percent(server).unwrap() < 90.0 { 3 << 20 } else { 512 << 10 };
            self.send(step).unwrap();
            // The watch looks four times a second.
            thread::sleep(Duration::from_millis(260));
        }
    }
}

fn cgroup_percent(server: &Server) -> Option<f64> {
    memory(server)["readings"]["cgroup"]["percent"].as_f64()
}

/// A server in a control group that lets it take a quarter more than it holds, and a little; and an upload that was let in
/// while it might take far more.
fn in_a_small_box(name: &str, arguments: &[&str]) -> Option<(tempfile::TempDir, Repo, Limited, Server, Upload)> {
    let Some(group) = Limited::new(name) else {
        eprintln!("skipped: no control group can be made here (that takes root and a writable /sys/fs/cgroup)");
        return None;
    };
    let (home, repo) = (tempfile::tempdir().unwrap(), heavy(4));
    group.limit(1 << 30);
    let server = group.server(home.path(), &repo, &[&["--max-file-size-mb", "128"], arguments].concat());
    assert_eq!(infer(&server, "m0").status, 200);
    until(&server, "the limit is seen", || cgroup_percent(&server).is_some());
    let upload = Upload::begin(&server);
    until(&server, "the upload is let in", || server.metric("caudal_body_memory_bytes", "") >= UPLOAD as f64);
    // Pages of files come and go: what counts is what the kernel cannot take back at once.
    let used = memory(&server)["readings"]["cgroup"]["used_bytes"].as_u64().unwrap();
    group.limit((used as f64 / 0.8) as u64 + (8 << 20));
    until(&server, "the new limit is seen", || cgroup_percent(&server).unwrap() > 30.0);
    Some((home, repo, group, server, upload))
}

#[test]
fn work_is_refused_before_the_kernel_kills_and_taken_again_when_memory_has_come_back() {
    let idle = ["--memory-rest-idle-secs", "86400"];
    let Some((_home, _repo, group, mut server, mut upload)) = in_a_small_box("shed", &idle) else { return };
    upload.fill(&server);
    let told = memory(&server);
    println!("critical after {} KiB of uploads: {}", (UPLOAD - upload.left) >> 10, told["readings"]);
    assert!(told["readings"]["cgroup"]["name"].as_str().unwrap().contains("caudal-test"), "{told}");
    assert!(told["recommendations"][0].as_str().unwrap().contains("the control group"), "{told}");
    for _ in 0..20 {
        check_refused(&infer(&server, "m1"));
    }
    assert_eq!(server.get("/readyz").status, 200);
    drop(upload);
    until(&server, "memory comes back", || pressure(&server) < 3.0);
    assert_eq!(infer(&server, "m1").status, 200);
    assert!(server.is_alive());
    println!("and came back: {} of {} KiB in use", group.usage() >> 10, memory(&server)["readings"]["cgroup"]);
}

#[test]
fn a_request_that_was_let_in_is_finished_while_new_ones_are_refused() {
    let Some((_home, _repo, _group, server, mut upload)) = in_a_small_box("finish", &[]) else { return };
    let body = tensor_request(&[[1.0; 4]], "");
    let mut early = server.connect();
    early
        .send(
            format!(
                "POST /v2/models/m0/infer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{}",
                body.len(),
                &body[..10]
            )
            .as_bytes(),
        )
        .unwrap();
    upload.fill(&server);
    check_refused(&infer(&server, "m0"));
    early.send(&body.as_bytes()[10..]).unwrap();
    let answer = early.read().unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn a_burst_of_uploads_that_would_not_fit_is_refused_before_it_comes() {
    let Some((_home, _repo, group, mut server, upload)) = in_a_small_box("burst", &[]) else { return };
    drop(upload);
    group.limit(group.usage() + (64 << 20));
    until(&server, "there is room for some", || {
        memory(&server)["readings"]["cgroup"]["limit_bytes"].as_u64().unwrap() >= 64 * MIB
    });
    // Far more than fits, all at once: no look comes between.
    let body = vec![b' '; 12 << 20];
    let address = server.address();
    let send = || {
        let answer = caudal_testkit::http::once(address, &post("/v2/models/m0/infer", &[], &body));
        answer.map(|answer| answer.status)
    };
    let counts = thread::scope(|scope| {
        let clients: Vec<_> = (0..16).map(|_| scope.spawn(|| (0..5).map(|_| send()).collect::<Vec<_>>())).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(server.is_alive(), "{counts:?}");
    let count = |status: u16| counts.iter().filter(|count| matches!(count, Ok(own) if *own == status)).count();
    println!(
        "a burst of 80 uploads of 12 MiB: {} refused, {} read (no JSON); {} KiB in use",
        count(503),
        count(400),
        group.usage() >> 10
    );
    // Who is refused early and goes on sending may see its connection reset.
    assert!(count(503) > 0 && count(400) > 0, "{counts:?}");
    until(&server, "memory comes back", || pressure(&server) < 3.0);
    assert_eq!(infer(&server, "m0").status, 200);
}

#[test]
fn without_the_watch_the_kernel_kills() {
    let unwatched = ["--memory-monitoring", "false"];
    let Some((_home, _repo, _group, mut server, mut upload)) = in_a_small_box("kill", &unwatched) else { return };
    while upload.left > 0 && upload.send(1 << 20).is_ok() {}
    assert_eq!(server.wait(PATIENCE).signal(), Some(9), "this is what the others are about");
}
