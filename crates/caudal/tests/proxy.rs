//! Reverse proxies as `docs/deploy.md` sets them up, and commands that ask through one over TLS. Needs `nginx` (Debian's
//! `nginx-light`), `haproxy` and `caddy`; a test of one that is missing is skipped, and says so.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use caudal_testkit::{
    Repo, Server, find_program,
    http::{self, Answer, Ask, Connection, get, post, tensor_request},
};

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");
const EVENT: &str = r#"{"event_type":"MESSAGE_RECEIVED","payload":{"message":"hola"},"user_id":"dr"}"#;
const NAME: &str = "ai.clinic.example";
const PATIENCE: Duration = Duration::from_secs(20);

/// A proxy that is ended when it is dropped.
struct Proxy {
    child: Child,
    address: SocketAddr,
    home: tempfile::TempDir,
}

impl Proxy {
    /// Runs `command` in `home` until it listens at `address`.
    fn start(mut command: Command, home: tempfile::TempDir, address: SocketAddr) -> Self {
        let log = fs::File::create(home.path().join("log")).unwrap();
        let child = command.current_dir(home.path()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut proxy = Self { child, address, home };
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            let ended = proxy.child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < end,
                "{}",
                fs::read_to_string(proxy.home.path().join("log")).unwrap()
            );
            thread::sleep(Duration::from_millis(10));
        }
        proxy
    }

    /// nginx with a server that `server` describes, which listens at `{listen}`.
    fn nginx(program: &Path, http: &str) -> Self {
        let (home, address) = (tempfile::tempdir().unwrap(), free());
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary: String = temporary.iter().map(|name| format!("{name}_temp_path {name};\n")).collect();
        let http = http.replace("{listen}", &address.to_string());
        let text = format!(
            "daemon off; master_process off; pid nginx.pid; error_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}{http}\n}}\n"
        );
        fs::write(home.path().join("nginx.conf"), text).unwrap();
        write_certificate(home.path());
        let mut command = Command::new(program);
        command.args(["-e", "stderr", "-c"]).arg(home.path().join("nginx.conf")).arg("-p").arg(home.path());
        Self::start(command, home, address)
    }

    fn ask(&self, ask: &Ask<'_>) -> Answer {
        http::once(self.address, ask).unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A certificate for this machine and its key, and both in one file as HAProxy has it.
fn write_certificate(folder: &Path) {
    let made =
        rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned(), NAME.to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    fs::write(folder.join("both.pem"), format!("{certificate}{key}")).unwrap();
    fs::write(folder.join("certificate.pem"), certificate).unwrap();
    fs::write(folder.join("key.pem"), key).unwrap();
}

/// The block of `docs/deploy.md` that is marked as `language`.
fn of_docs(language: &str) -> String {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/deploy.md")).unwrap();
    let block = text.split(&format!("```{language}\n")).nth(1).and_then(|rest| rest.split("```").next());
    block.unwrap_or_else(|| panic!("docs/deploy.md has no block of {language}")).to_owned()
}

fn start(arguments: &[&str]) -> Server {
    let repo = Repo::new().model("double", "double", "");
    Server::start(CAUDAL, &repo, &[&["--data-dir", "data"], arguments].concat())
}

fn infer(proxy: &Proxy) -> u16 {
    let body = tensor_request(&[[1.0; 4]], "");
    proxy.ask(&post("/v2/models/double/infer", &[], body.as_bytes())).status
}

#[test]
fn nginx_by_default_gives_its_visitors_no_admin_rights() {
    let Some(nginx) = find_program(&["nginx", "/usr/sbin/nginx"]) else {
        return eprintln!("skipped: nginx is not installed (Debian: nginx-light)");
    };
    for arguments in [&["--admin-key", "secret"][..], &[]] {
        let server = start(arguments);
        let proxy = Proxy::nginx(
            &nginx,
            &format!("server {{ listen {{listen}}; location / {{ proxy_pass http://{}; }} }}", server.address()),
        );
        assert_eq!(infer(&proxy), 200);
        for headers in
            [&[][..], &[("Authorization", "Bearer wrong")], &[("Authorization", "Basic c2VjcmV0OnNlY3JldHM=")]]
        {
            for path in ["/admin/memory", "/debug/pprof/heap", "/admin/requests", "/api/audit/logs"] {
                assert_eq!(proxy.ask(&Ask { headers, ..get(path) }).status, 401, "{path} {headers:?}");
            }
            let change = Ask { method: "PATCH", ..post("/admin/models/double", headers, br#"{"instances":2}"#) };
            assert_eq!(proxy.ask(&change).status, 401);
        }
        let credential = format!("Bearer {}", server.admin_credential().unwrap());
        let right = [("Authorization", &*credential)];
        assert_eq!(proxy.ask(&Ask { headers: &right, ..get("/admin/memory") }).status, 200);
    }
}

/// Follows events through `proxy`, and sends a stream of two: both are passed on as they come.
fn check_streams(proxy: &Proxy) {
    let made = proxy.ask(&post("/consultations", &[], br#"{"user_id":"dr"}"#));
    assert_eq!(made.status, 201, "{}", made.text());
    let id = made.json()["consultation_id"].as_str().unwrap().to_owned();
    let path = format!("/consultations/{id}/events/stream");
    let mut follower = Connection::open(proxy.address).unwrap();
    follower.send_head(&get(&path)).unwrap();
    let head = follower.read_head().unwrap();
    assert_eq!(head.status, 200);
    let mut sender = Connection::open(proxy.address).unwrap();
    let headers = [("Content-Type", "application/x-ndjson"), ("Transfer-Encoding", "chunked")];
    sender.send_head(&Ask { method: "POST", headers: &headers, ..get(&path) }).unwrap();
    for _ in 0..2 {
        // The second is sent when the first has come out at the other end: nothing waits for the end of the upload.
        sender.send_chunk(format!("{EVENT}\n").as_bytes()).unwrap();
        let mut heard = String::new();
        while !heard.contains("hola") {
            heard += &String::from_utf8_lossy(&follower.read_chunk().unwrap().expect("the answer continues"));
        }
    }
    sender.send_chunk(b"").unwrap();
    let sent = sender.read().unwrap();
    assert_eq!(sent.status / 100, 2, "{}", sent.text());
    // Larger than the megabyte that proxies allow by default.
    let large = vec![b' '; 3 << 20];
    let refused = proxy.ask(&post("/v2/models/double/infer", &[], &large));
    assert_eq!(refused.status, 400, "the server itself reads it: {}", refused.text());
}

/// `caudal` with the words of `line`, and trust in the certificate in `folder`.
fn caudal(folder: &Path, line: &str) -> Output {
    let mut command = Command::new(CAUDAL);
    command.args(line.split(' ')).arg("--cacert").arg(folder.join("certificate.pem"));
    command.env("CAUDAL_ADMIN_KEY", "secret").current_dir(folder).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The block of the documentation without TLS, in front of `server`.
fn nginx_of_docs(server: &Server) -> String {
    of_docs("nginx").replace("127.0.0.1:8000", &server.address().to_string())
}

#[test]
fn nginx_as_documented_passes_streams_on() {
    let Some(nginx) = find_program(&["nginx", "/usr/sbin/nginx"]) else {
        return eprintln!("skipped: nginx is not installed (Debian: nginx-light)");
    };
    let server = start(&["--admin-key", "secret", "--allowed-hosts", NAME]);
    let tls = ["    ssl_certificate ", "    ssl_certificate_key "];
    let plain: String = nginx_of_docs(&server)
        .lines()
        .filter(|line| !tls.iter().any(|tls| line.starts_with(tls)))
        .map(|line| format!("{line}\n"))
        .collect();
    let proxy = Proxy::nginx(&nginx, &plain.replace("listen 443 ssl", "listen {listen}"));
    assert_eq!(infer(&proxy), 200);
    check_streams(&proxy);
    // Its visitors reach no admin route at all.
    let keyed = [("Authorization", "Bearer secret")];
    assert_eq!(proxy.ask(&Ask { headers: &keyed, ..get("/admin/memory") }).status, 404);
    // A page of the proxied name is the server's own, one of another is not.
    let browser = |host: &str, origin: &str| {
        let mut connection = Connection::open(proxy.address).unwrap();
        let head =
            format!("POST /consultations HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nContent-Length: 16\r\n\r\n");
        connection.send(format!("{head}{{\"user_id\":\"dr\"}}").as_bytes()).unwrap();
        connection.read().unwrap().status
    };
    assert_eq!(browser(NAME, &format!("https://{NAME}")), 201);
    assert_eq!(browser(NAME, "https://evil.example"), 403);
    assert_eq!(browser("evil.example", "https://evil.example"), 421);
}

#[test]
fn commands_ask_through_tls_with_authorities_of_their_own() {
    let Some(nginx) = find_program(&["nginx", "/usr/sbin/nginx"]) else {
        return eprintln!("skipped: nginx is not installed (Debian: nginx-light)");
    };
    let server = start(&["--admin-key", "secret", "--allowed-hosts", NAME]);
    let text = nginx_of_docs(&server)
        .replace("listen 443 ssl", "listen {listen} ssl")
        .replace("/etc/ssl/ai.clinic.example.pem", "certificate.pem")
        .replace("/etc/ssl/private/ai.clinic.example.key", "key.pem");
    // Here admin routes are passed on.
    let text: String =
        text.lines().filter(|line| !line.contains("return 404")).map(|line| format!("{line}\n")).collect();
    let proxy = Proxy::nginx(&nginx, &text);
    let (folder, url) = (proxy.home.path(), format!("https://localhost:{}", proxy.address.port()));
    let explained = caudal(folder, &format!("explain --url {url} --seconds 1"));
    assert!(explained.status.success() && said(&explained).contains("Nothing limits it"), "{}", said(&explained));
    if cfg!(feature = "jemalloc") {
        let profiled = caudal(folder, &format!("profile --heap --url {url}"));
        assert!(profiled.status.success() && folder.join("heap.svg").exists(), "{}", said(&profiled));
    }
    fs::write(folder.join("in.json"), tensor_request(&[[1.0; 4]], "")).unwrap();
    let load = format!(
        "bench run --model double --input in.json --connections 2 --duration 500ms --warmup 0s --json --url {url}"
    );
    let report = caudal(folder, &load);
    let numbers: serde_json::Value =
        serde_json::from_slice(&report.stdout).unwrap_or_else(|_| panic!("{}", said(&report)));
    assert!(report.status.success() && numbers["statuses"]["200"].as_u64() > Some(5), "{}", said(&report));
    // No public authority signed it, and a file without a certificate is refused.
    let mut untrusting = Command::new(CAUDAL);
    let untrusting = untrusting.args(["explain", "--url", &url, "--seconds", "1", "--key", "secret"]).output().unwrap();
    assert!(!untrusting.status.success() && said(&untrusting).contains("certificate"), "{}", said(&untrusting));
    fs::write(folder.join("certificate.pem"), "none").unwrap();
    let wrong = caudal(folder, &format!("explain --url {url} --seconds 1"));
    assert!(
        wrong.status.code() == Some(2) && said(&wrong).contains("certificate.pem: it has no certificate"),
        "{}",
        said(&wrong)
    );
}

#[test]
fn haproxy_as_documented_passes_streams_on() {
    let Some(haproxy) = find_program(&["haproxy", "/usr/sbin/haproxy"]) else {
        return eprintln!("skipped: haproxy is not installed (Debian: haproxy)");
    };
    let server = start(&["--admin-key", "secret", "--allowed-hosts", NAME]);
    let (home, address) = (tempfile::tempdir().unwrap(), free());
    let text = of_docs("haproxy")
        .replace("127.0.0.1:8000", &server.address().to_string())
        .replace(":443 ssl crt /etc/haproxy/ai.clinic.example.pem", &address.to_string());
    fs::write(home.path().join("haproxy.cfg"), text).unwrap();
    let mut command = Command::new(&haproxy);
    command.args(["-db", "-f"]).arg(home.path().join("haproxy.cfg"));
    let proxy = Proxy::start(command, home, address);
    assert_eq!(infer(&proxy), 200);
    check_streams(&proxy);
    let keyed = [("Authorization", "Bearer secret")];
    assert_eq!(proxy.ask(&Ask { headers: &keyed, ..get("/admin/memory") }).status, 404);
}

#[test]
fn caddy_as_documented_passes_streams_on() {
    let Some(caddy) = find_program(&["caddy", "/usr/bin/caddy"]) else {
        return eprintln!("skipped: caddy is not installed (Debian: caddy)");
    };
    let server = start(&["--admin-key", "secret", "--allowed-hosts", NAME]);
    let (home, address) = (tempfile::tempdir().unwrap(), free());
    // The documented site without TLS, on a port of this test, without Caddy's own admin endpoint.
    let site = of_docs("caddy")
        .replace("127.0.0.1:8000", &server.address().to_string())
        .replace(&format!("{NAME} {{"), &format!("http://:{} {{\nbind 127.0.0.1", address.port()));
    fs::write(home.path().join("Caddyfile"), format!("{{\nadmin off\nauto_https off\n}}\n{site}")).unwrap();
    let mut command = Command::new(&caddy);
    command.env("HOME", home.path()).args(["run", "--adapter", "caddyfile", "--config"]);
    command.arg(home.path().join("Caddyfile"));
    let proxy = Proxy::start(command, home, address);
    assert_eq!(infer(&proxy), 200);
    check_streams(&proxy);
    let keyed = [("Authorization", "Bearer secret")];
    for path in ["/admin/memory", "/debug/pprof/heap", "/v2/repository/index", "/api/audit/logs"] {
        assert_eq!(proxy.ask(&Ask { headers: &keyed, ..get(path) }).status, 404, "{path}");
    }
}
