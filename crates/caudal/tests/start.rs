//! What can go wrong before a server serves: each is one clear sentence and an exit code.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::fs::symlink,
    path::Path,
    process::{Child, Command, Output},
    thread,
    time::{Duration, Instant},
};

use caudal_testkit::{
    Repo, Server, fixture,
    http::{Ask, get, once},
};

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let home = tempfile::tempdir().unwrap();
    Command::new(CAUDAL).args(arguments).envs(variables.iter().copied()).current_dir(home.path()).output().unwrap()
}

/// Starts a server that must fail, with `code` and one sentence that holds all of `words`.
fn check(arguments: &[&str], variables: &[(&str, &str)], code: i32, words: &[&str]) {
    let output = run(&[&["serve", "--http-port", "0", "--log-level", "off"], arguments].concat(), variables);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(said.trim().lines().count(), 1, "one sentence: {said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {said:?}");
    }
}

#[test]
fn a_repository_that_is_missing_or_empty() {
    check(
        &["--model-repository", "/nowhere"],
        &[],
        1,
        &["the model repository /nowhere does not exist", "--model-repository"],
    );
    let empty = Repo::new();
    let path = empty.path("").display().to_string();
    check(&["--model-repository", &path], &[], 1, &["holds no model", "<name>/1/model.onnx"]);
}

#[test]
fn a_port_that_is_in_use() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port().to_string();
    let repo = Repo::new().model("double", "double", "");
    let path = repo.path("").display().to_string();
    let output = run(&["serve", "--http-port", &port, "--model-repository", &path, "--log-level", "off"], &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains(&format!("127.0.0.1:{port} is in use")) && said.contains("--http-port"), "{said}");
}

#[test]
fn a_library_that_is_missing_or_wrong() {
    let repo = Repo::new().model("double", "double", "");
    let path = repo.path("").display().to_string();
    let with = |arguments: &[&'static str], variables: &[(&str, &str)], words: &[&str]| {
        check(&[&["--model-repository", &path], arguments].concat(), variables, 1, words);
    };
    with(&["--onnxruntime-library", "/no/lib.so"], &[], &["/no/lib.so", "onnxruntime_library", "does not exist"]);
    with(&[], &[("ORT_DYLIB_PATH", "/no/lib.so")], &["/no/lib.so", "ORT_DYLIB_PATH"]);
    with(&[], &[("CAUDAL_CACHE_DIR", "/no/cache"), ("ORT_DYLIB_PATH", "")], &["was not found", "cargo xtask setup"]);
    let text = repo.path("double/model.yaml").display().to_string();
    check(
        &["--model-repository", &path, "--onnxruntime-library", &text],
        &[],
        1,
        &["is not a usable ONNX Runtime library"],
    );
}

#[test]
fn settings_that_cannot_be() {
    check(&["--http-port", "70000"], &[], 2, &["http_port", "--http-port", "0 to 65535"]);
    check(&[], &[("CAUDAL_MAX_FILE_SIZE_MB", "lots")], 2, &["max_file_size_mb", "$CAUDAL_MAX_FILE_SIZE_MB"]);
    check(&[], &[("CAUDAL_HTPP_PORT", "1")], 2, &["did you mean \"http_port\"?"]);
    check(&["--providers", "gpu"], &[], 2, &["there is no provider \"gpu\"", "there are cpu, openvino, cuda"]);
    check(&["--config", "/no/caudal.yaml"], &[], 2, &["/no/caudal.yaml cannot be read"]);
    check(&["--log-level", "loud=nonsense=1"], &[], 2, &["log_level"]);
}

#[test]
fn a_model_that_fails_does_not_keep_the_others_from_serving() {
    let repo = Repo::new()
        .model("double", "double", "")
        .file("text/1/model.onnx", b"this is no model")
        .file("photo/1/model.onnx", &fixture("double_decker_bus.jpg"))
        .file("empty/readme", b"")
        .model("typo", "double", "instnaces: 2")
        .model("blind", "double", "kind: detect")
        .model("stiff", "fixed", "batching: {max_batch_size: 4}");
    symlink("/etc/passwd", repo.path("text/passwd")).unwrap();
    fs::create_dir_all(repo.path("link/1")).unwrap();
    symlink(caudal_testkit::model_file("double"), repo.path("link/1/model.onnx")).unwrap();
    let server = Server::start(CAUDAL, &repo, &[]);
    let health = server.get("/health").json();
    assert_eq!((&health["status"], &health["ready"]), (&"degraded".into(), &true.into()));
    assert_eq!(
        health["failed_models"],
        serde_json::json!(["blind", "empty", "link", "photo", "stiff", "text", "typo"])
    );
    assert_eq!(health["models"]["text"]["ready"], false);
    assert_eq!(health["models"]["double"]["kind"], "tensors");
    let readyz = server.get("/readyz");
    let expected = "ready; failed to load: blind, empty, link, photo, stiff, text, typo\n";
    assert_eq!((readyz.status, &readyz.text()[..]), (200, expected), "what loaded serves");
    let reason = |name: &str| server.log_line(&format!("model={name:?}"));
    assert!(reason("text").contains("is not an ONNX file"), "{}", reason("text"));
    assert!(reason("photo").contains("is not an ONNX file"), "{}", reason("photo"));
    assert!(reason("empty").contains("no numbered folder"), "{}", reason("empty"));
    assert!(reason("typo").contains("did you mean \"instances\"?"), "{}", reason("typo"));
    assert!(reason("blind").contains("takes no pictures"), "{}", reason("blind"));
    assert!(reason("stiff").contains("cannot grow"), "{}", reason("stiff"));
    assert!(reason("link").contains("leads out of the model's folder"), "{}", reason("link"));
    assert_eq!(server.get("/v2/models/double/ready").status, 200);
    assert_eq!(server.get("/v2/models/text/ready").status, 503);
    let request = caudal_testkit::http::tensor_request(&[[1.0; 4]], "");
    assert_eq!(server.post_json("/v2/models/double/infer", &request).status, 200);
    assert_eq!(server.post_json("/v2/models/text/infer", &request).status, 503);
}

#[test]
fn one_model_that_fails_holds_readiness_only_where_that_is_asked_for() {
    let repo = Repo::new().model("double", "double", "").file("text/1/model.onnx", b"this is no model");
    let server = Server::start(CAUDAL, &repo, &["--strict-readiness", "true"]);
    assert_eq!(server.get("/readyz").status, 503);
    let accept = [("Accept", "application/json")];
    let ready = server.ask(&Ask { headers: &accept, ..get("/v2/health/ready") });
    let expected = serde_json::json!({ "ready": false, "status": "not ready", "failed_models": ["text"] });
    assert_eq!((ready.status, ready.json()), (503, expected));
    assert_eq!(server.get("/v2/models/double/ready").status, 200);
    let repo = Repo::new().file("text/1/model.onnx", b"this is no model");
    let server = Server::start(CAUDAL, &repo, &[]);
    let readyz = server.get("/readyz");
    assert_eq!((readyz.status, &readyz.text()[..]), (503, "not ready; failed to load: text\n"), "nothing serves");
}

/// A server that is started on a port of its own, and is not waited for.
struct Starting {
    child: Child,
    address: SocketAddr,
}

impl Starting {
    fn new(repo: &Repo, arguments: &[&str]) -> Self {
        // Free a moment ago, and free again.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(CAUDAL);
        command.args(["serve", "--log-level", "off", "--http-port", &address.port().to_string()]);
        command.arg("--model-repository").arg(repo.path("")).args(arguments).current_dir(repo.path(""));
        Self { child: command.spawn().unwrap(), address }
    }

    /// Waits until `path` is answered with `status`, and gives what it says.
    fn until(&self, path: &str, status: u16) -> String {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            match once(self.address, &get(path)) {
                Ok(answer) if answer.status == status => return answer.text(),
                other => assert!(Instant::now() < end, "{path} never said {status}: {other:?}"),
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn probes_are_answered_while_models_load() {
    let repo = Repo::new().model("forever", "forever", "").model("last", "double", "");
    let mut server = Starting::new(&repo, &["--request-timeout-ms", "2000"]);
    server.until("/livez", 200);
    assert_eq!(server.until("/readyz", 503), "loading\n");
    assert!(server.until("/v2/models/last", 503).contains("the server is starting"));
    assert_eq!(server.until("/readyz", 200), "ready; failed to load: forever\n");
    assert_eq!(once(server.address, &get("/v2/models/last/ready")).unwrap().status, 200);
    server.child.kill().unwrap();
}

#[test]
fn a_server_that_still_loads_stops_when_it_is_told_to() {
    let repo = Repo::new().model("forever", "forever", "");
    let mut server = Starting::new(&repo, &["--request-timeout-ms", "20000"]);
    server.until("/readyz", 503);
    Command::new("kill").arg(server.child.id().to_string()).status().unwrap();
    let told = Instant::now();
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
}

#[test]
fn versions_and_aliases() {
    let repo = Repo::new()
        .model("m", "double", "aliases: [small]")
        .file("m/2/model.onnx", &fs::read(caudal_testkit::model_file("double")).unwrap())
        .model("pinned", "double", "version: 1")
        .file("pinned/7/model.onnx", b"a newer one, and broken");
    let server = Server::start(CAUDAL, &repo, &[]);
    assert_eq!(server.get("/v2/models/small").json()["versions"][0], "2");
    assert_eq!(server.get("/v2/models/pinned").json()["versions"][0], "1");
    assert_eq!(server.get("/v2/models/m/versions/1").status, 404);
    assert_eq!(server.get("/readyz").status, 200);
}

#[test]
fn settings_come_from_the_file_in_the_working_folder() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("caudal.yaml"), "max_file_size_mb: 3\nkeep_alive_secs: 5\n").unwrap();
    let output = Command::new(CAUDAL)
        .args(["config", "--json"])
        .envs([("KEEP_ALIVE", "9"), ("WORKERS", "8")])
        .current_dir(home.path())
        .output()
        .unwrap();
    let settings: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(settings["max_file_size_mb"], serde_json::json!({ "value": "3", "from": "caudal.yaml" }));
    assert_eq!(settings["keep_alive_secs"], serde_json::json!({ "value": "9", "from": "$KEEP_ALIVE" }));
    assert_eq!(settings["http_port"], serde_json::json!({ "value": "8000", "from": "default" }));
}

#[test]
fn names_without_effect_are_explained() {
    let variables = [("WORKERS", "8"), ("REDIS_URL", "redis://:pa55@cache:6379/0"), ("MINIO_ENDPOINT", "minio:9000")];
    let said = String::from_utf8(run(&["config"], &variables).stdout).unwrap();
    let (_, section) = said.split_once("Environment variables of other systems:\n").unwrap();
    for words in
        ["$WORKERS has no effect", "$REDIS_URL has no effect: elsewhere it is the Redis server", "$MINIO_ENDPOINT"]
    {
        assert!(section.contains(words), "{section}");
    }
    assert!(!said.contains("pa55"), "{said}");
    let refused = run(&["config"], &[("USE_TENSORRT", "true")]);
    assert_eq!(refused.status.code(), Some(2));
    let quiet = String::from_utf8(run(&["config"], &[("REDIS_URL", ""), ("ENFORCE_HTTPS", "false")]).stdout).unwrap();
    assert!(!quiet.contains("of other systems"), "{quiet}");
}

#[test]
fn order_for_https_keeps_a_server_without_tls_from_starting() {
    let words = ["$ENFORCE_HTTPS is set and not supported", "TLS is not built in", "tls_terminated_by_proxy: true"];
    check(&[], &[("ENFORCE_HTTPS", "true")], 2, &words);
}

#[test]
fn database_address_is_used_or_refused_and_its_password_is_not_shown() {
    let url = "postgresql+asyncpg://nexus:pa55@db:5432/nexus";
    let said = String::from_utf8(run(&["config"], &[("DATABASE_URL", url)]).stdout).unwrap();
    assert!(said.contains("postgresql+asyncpg://nexus:***@db:5432/nexus") && !said.contains("pa55"), "{said}");
    assert!(said.contains("$DATABASE_URL is not used, and nothing is recorded: set data_dir too"), "{said}");
    check(&["--database-url", url], &[], 2, &["it needs data_dir too", "nexus:***@db"]);
    let form = "expected postgres://user:password@host:port/database";
    check(&["--database-url", "mysql+pymysql://u:pa55@db/x"], &[], 2, &["mysql+pymysql://u:***@db/x", form]);
    check(&["--data-dir", "data"], &[("DATABASE_URL", "postgres://u:pa55@db:port/x")], 2, &["u:***@db", form]);
    check(&["--database-url", "sqlite:///./a.db"], &[], 2, &["caudal.db in data_dir"]);
}

#[test]
fn variables_of_a_kubernetes_service_do_not_keep_a_server_from_starting() {
    let repo = Repo::new().model("double", "double", "");
    let variables = [
        ("CAUDAL_PORT", "tcp://10.0.0.1:8000"),
        ("CAUDAL_SERVICE_HOST", "10.0.0.1"),
        ("CAUDAL_SERVICE_PORT_HTTP", "8000"),
        ("CAUDAL_PORT_8000_TCP_PROTO", "tcp"),
        ("CAUDAL_ADMIN_PORT", "tcp://10.0.0.2:8001"),
        ("CAUDAL_TLS_TERMINATED_BY_PROXY", "1"),
        ("ENFORCE_HTTPS", "true"),
        ("METRICS_ENABLED", "0"),
        ("API_DOCS_ENABLED", "false"),
        ("ALLOWED_HOSTS", r#"["ai.example"]"#),
        ("DECODER_PORT", "tcp://10.0.0.3:8001"),
        ("REDIS_URL", "redis://:pa55@cache/0"),
    ];
    let server = Server::start_in(CAUDAL, &repo.path(""), &[], &variables);
    assert!(server.log_line("$CAUDAL_ADMIN_PORT was set by Kubernetes").contains("WARN"));
    let redis = server.log_line("$REDIS_URL has no effect");
    assert!(redis.contains("WARN") && !redis.contains("pa55"), "{redis}");
    for path in ["/metrics", "/api/kpis"] {
        let off = server.get(path);
        assert!(off.status == 404 && off.text().contains("metrics_enabled is false"), "{path}: {}", off.text());
    }
    assert!(!server.log().contains("DECODER_PORT"), "{}", server.log());
    for path in ["/docs", "/docs/", "/docs/index.html", "/openapi.json"] {
        let hidden = server.get(path);
        assert!(hidden.status == 404 && !hidden.text().contains("GET /docs"), "{path}: {}", hidden.text());
    }
    assert!(!server.get("/").text().contains("/docs>"));
    for (host, status) in [("ai.example", 200), ("other.example", 421)] {
        let mut connection = server.connect();
        connection.send(format!("GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(connection.read().unwrap().status, status, "{host}");
    }
    check(&[], &[("CAUDAL_PORT", "8000")], 2, &["the variable CAUDAL_PORT is not a setting"]);
}

/// Nothing is written where the server runs: a read-only root is enough.
#[test]
fn it_writes_nothing() {
    let repo = Repo::nanodet("");
    let before = listing(&repo.path(""));
    let mut server = Server::start(CAUDAL, &repo, &[]);
    assert_eq!(server.post_picture("/predict/nanodet?draw=true", &fixture("double_decker_bus.jpg")).status, 200);
    server.signal("TERM");
    server.wait(std::time::Duration::from_secs(10));
    assert_eq!(listing(&repo.path("")), before);
    assert_eq!(listing(server.home()), Vec::<String>::new(), "not even in its working folder");
}

fn listing(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        names.push(entry.path().display().to_string());
        if entry.path().is_dir() {
            names.extend(listing(&entry.path()));
        }
    }
    names.sort();
    names
}
