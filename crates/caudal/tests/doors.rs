//! Admin routes: the credential that they need, and a socket of their own.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::fs::MetadataExt,
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use caudal_testkit::{
    Repo, Server,
    http::{self, Answer, Ask, Connection, get, post, tensor_request},
};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");

fn start(arguments: &[&str]) -> Server {
    Server::start(CAUDAL, &Repo::new().model("double", "double", ""), arguments)
}

/// Where `server` is administered.
fn admin(server: &Server) -> SocketAddr {
    let line = server.log_line("administered on http://");
    let address = line.split("administered on http://").nth(1).unwrap().split_whitespace().next().unwrap();
    address.parse().unwrap()
}

fn ask(address: SocketAddr, path: &str) -> Answer {
    http::once(address, &get(path)).unwrap()
}

/// Status and, in our own form or KServe's, code.
fn told(answer: &Answer) -> (u16, String) {
    let error = answer.json()["error"].clone();
    let code = error.as_str().map(|text| text.split(':').next().unwrap().to_owned());
    (answer.status, code.unwrap_or_else(|| answer.code()))
}

#[test]
fn on_a_port_of_its_own_the_server_is_administered_and_nowhere_else() {
    // The repository is looked into.
    let repo = Repo::new().model("double", "double", "");
    let server = Server::start(CAUDAL, &repo, &["--admin-port", "0"]);
    let (public, admin) = (server.address(), admin(&server));
    assert!(admin.ip().is_loopback());
    for path in ["/admin/memory", "/admin/models/double", "/admin/profiling/stats", "/debug/pprof/heap"] {
        let hidden = server.get(path);
        assert_eq!(told(&hidden), (404, "not_found".to_owned()), "{path}");
        assert!(!hidden.text().contains(&admin.port().to_string()), "strangers are not told where: {}", hidden.text());
        assert_eq!(server.ask_at(admin, &get(path)).status, 200, "{path}");
        assert_eq!(ask(admin, path).status, 401, "the credential is needed there too: {path}");
    }
    let index = post("/v2/repository/index", &[], b"{}");
    assert_eq!(told(&http::once(public, &index).unwrap()), (404, "not_found".to_owned()));
    assert_eq!(server.ask_at(admin, &index).status, 200);
    let infer = tensor_request(&[[1.0; 4]], "");
    let infer = post("/v2/models/double/infer", &[], infer.as_bytes());
    assert_eq!(http::once(public, &infer).unwrap().status, 200);
    assert_eq!(told(&http::once(admin, &infer).unwrap()), (404, "not_found".to_owned()));
    let health = ask(public, "/health").text();
    assert!(health.contains("http_port") && !health.contains("admin_"), "strangers are not told that either: {health}");
    for path in ["/metrics", "/livez", "/readyz", "/health", "/status", "/v2/health/ready", "/api/kpis"] {
        assert_eq!((ask(public, path).status, ask(admin, path).status), (200, 200), "{path}");
    }
}

#[test]
fn each_port_describes_what_it_answers() {
    let apart = start(&["--admin-port", "0"]);
    let (public, administered) = (apart.address(), admin(&apart));
    let together = start(&[]);
    let paths = |address: SocketAddr| -> Vec<String> {
        let described = ask(address, "/openapi.json").json();
        described["paths"].as_object().unwrap().keys().cloned().collect()
    };
    let all = paths(together.address());
    let (of_public, of_admin) = (paths(public), paths(administered));
    for path in &all {
        // What needs time or a body is refused for that, and by a method that no route has.
        let at = |address: SocketAddr| {
            let named = path.replace("{model}", "double").replace("{version}", "1").replace("{id}", "x");
            let server = if address == together.address() { &together } else { &apart };
            told(&server.ask_at(address, &Ask { method: "OPTIONS", ..get(&named) })).1
        };
        for (described, address) in [(&all, together.address()), (&of_public, public), (&of_admin, administered)] {
            let expected = if described.contains(path) { "method_not_allowed" } else { "not_found" };
            assert_eq!(at(address), expected, "{path}");
        }
        assert!(of_public.contains(path) || of_admin.contains(path), "{path} is nowhere");
    }
    assert!(of_public.iter().all(|path| !path.starts_with("/admin") && !path.starts_with("/debug")));
}

#[test]
fn admin_routes_need_the_key_wherever_the_caller_is() {
    let server = start(&["--admin-key", "secret"]);
    let with =
        |headers: &[(&str, &str)]| http::once(server.address(), &Ask { headers, ..get("/admin/memory") }).unwrap();
    for headers in [
        &[][..],
        &[("Authorization", "Bearer wrong")],
        &[("Authorization", "Basic secret")],
        &[("X-Admin-Key", "")],
        &[("X-Forwarded-For", "127.0.0.1")],
    ] {
        let refused = with(headers);
        assert_eq!(told(&refused), (401, "unauthorized".to_owned()), "{headers:?}");
        assert_eq!(refused.header("www-authenticate"), "Bearer");
        assert!(!refused.text().contains("secret") && !refused.text().contains("/tmp"), "{}", refused.text());
    }
    assert_eq!(with(&[("Authorization", "Bearer secret")]).status, 200);
    assert_eq!(with(&[("X-Admin-Key", "secret")]).status, 200);
    // A browser asks its user for the key, and sends it as a password: "admin:secret".
    assert_eq!(with(&[("Authorization", "Basic YWRtaW46c2VjcmV0")]).status, 200);
    let page = with(&[("Accept", "text/html,application/xhtml+xml")]);
    let asks = page.headers.iter().filter(|(name, _)| name == "www-authenticate").map(|(_, value)| &**value);
    assert!(
        asks.clone().any(|way| way == "Bearer") && asks.clone().any(|way| way.starts_with("Basic realm=")),
        "{page:?}"
    );
    assert_eq!(server.metric("http_requests_total", "route=\"/admin/memory\",status=\"401\""), 6.0);
    assert_eq!(server.token_file(), None, "the key is the only credential");
}

#[test]
fn every_admin_route_is_closed_without_credential() {
    let server = start(&[]);
    let described = server.get("/openapi.json").json();
    let mut closed = 0;
    for (path, methods) in described["paths"].as_object().unwrap() {
        for (method, route) in methods.as_object().unwrap() {
            let is_admin = route["tags"].as_array().is_some_and(|tags| tags.contains(&"admin".into()));
            let (method, path) = (method.to_uppercase(), path.replace(['{', '}'], ""));
            let answer = http::once(server.address(), &Ask { method: &method, ..get(&path) });
            // Others may stream, or wait for a body: what matters is that they do not ask for the credential.
            let asks = answer.is_ok_and(|answer| answer.status == 401);
            assert_eq!(asks, is_admin, "{method} {path}");
            closed += usize::from(asks);
        }
    }
    assert!(closed > 20, "{closed}");
    for path in ["/admin/none", "/admin", "/debug/none", "/v2/repository/none", "/api/audit/none"] {
        assert_eq!(ask(server.address(), path).status, 401, "also where there is no route: {path}");
    }
}

#[test]
fn token_made_at_start_opens_admin_routes_and_lasts_with_the_data_folder() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("data").display().to_string();
    let first = start(&["--data-dir", &folder]);
    let token = first.admin_credential().unwrap();
    assert_eq!(first.get("/admin/memory").status, 200);
    for file in [first.token_file().unwrap(), &data.path().join("data/admin.token")] {
        assert_eq!(fs::metadata(file).unwrap().mode() & 0o777, 0o600, "{}", file.display());
        assert_eq!(fs::read_to_string(file).unwrap().trim(), token);
    }
    assert!(!first.log().contains(&token), "{}", first.log());
    drop(first);
    let second = start(&["--data-dir", &folder]);
    assert_eq!(second.admin_credential().unwrap(), token);
    assert_ne!(start(&[]).admin_credential().unwrap(), token, "another server has another");
    let mut second = second;
    second.signal("TERM");
    assert!(second.wait(Duration::from_secs(20)).success());
    assert!(!second.token_file().unwrap().exists(), "it goes with the server");
}

#[test]
fn admin_insecure_opens_admin_routes_and_is_warned_of() {
    let server = start(&["--admin-insecure", "true"]);
    server.log_line("admin_insecure is on");
    assert_eq!(ask(server.address(), "/admin/memory").status, 200);
    let page = [("Origin", "https://evil.example")];
    let refused = http::once(server.address(), &Ask { headers: &page, ..get("/admin/memory") }).unwrap();
    assert_eq!(refused.status, 403, "pages of other sites are refused all the same");
    let both = run(&["serve", "--admin-insecure", "true", "--admin-key", "secret"]);
    assert_eq!(both.status.code(), Some(2));
}

#[test]
fn who_administers_comes_in_though_all_other_places_are_taken() {
    let server = start(&["--admin-port", "0", "--max-connections", "1"]);
    let mut only = server.connect();
    assert_eq!(only.ask(&get("/livez")).unwrap().status, 200);
    let _waits = server.connect();
    assert_eq!(server.ask_at(admin(&server), &get("/admin/memory")).status, 200);
}

#[test]
fn files_that_run_out_are_logged_once_and_connections_accepted_again() {
    let server = start(&[]);
    let pid = Pid::from_raw(server.pid().cast_signed()).unwrap();
    let open = fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count() as u64;
    prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(open + 5), maximum: Some(1024) }).unwrap();
    let held: Vec<_> = (0..20).map(|_| Connection::open(server.address()).unwrap()).collect();
    server.log_line("cannot accept connections");
    // It tries again ten times a second.
    thread::sleep(Duration::from_millis(400));
    assert_eq!(server.log().matches("cannot accept connections").count(), 1, "{}", server.log());
    drop(held);
    assert_eq!(server.get("/livez").status, 200);
}

#[test]
fn going_down_answers_whoever_asks_at_the_admin_port() {
    let repo = Repo::new().model("slow", "slow", "instances: 1\nthreads: 1\nbatching: {max_batch_size: 1}");
    let mut server = Server::start(CAUDAL, &repo, &["--admin-port", "0"]);
    let (public, admin) = (server.address(), admin(&server));
    let mut idle = Connection::open(admin).unwrap();
    assert_eq!(idle.ask(&get("/readyz")).unwrap().status, 200);
    let mut watching = Connection::open(admin).unwrap().with_admin(server.admin_credential());
    let profile = thread::spawn(move || watching.ask(&get("/debug/pprof/collapsed?seconds=300")));
    let work = thread::spawn(move || {
        let body = tensor_request(&[[1.0; 4]; 1], "");
        http::once(public, &post("/v2/models/slow/infer", &[], body.as_bytes()))
    });
    let until = |what: &str, condition: &dyn Fn() -> bool| {
        let end = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(Instant::now() < end, "it never came to this: {what}");
            thread::sleep(Duration::from_millis(2));
        }
    };
    until("it runs", &|| ask(admin, "/health").json()["models"]["slow"]["busy_instances"] == 1);
    server.signal("TERM");
    until("it is not ready any more", &|| ask(admin, "/readyz").status == 503);
    assert_eq!(idle.ask(&get("/livez")).unwrap().header("connection"), "close");
    assert_eq!(work.join().unwrap().unwrap().status, 200);
    // It ends with what it has, or has seen nothing.
    assert!([200, 503].contains(&profile.join().unwrap().unwrap().status));
    assert!(server.wait(Duration::from_secs(10)).success(), "{}", server.log());
}

fn run(arguments: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    Command::new(CAUDAL).args(arguments).current_dir(home.path()).output().unwrap()
}

#[test]
fn a_port_that_is_in_use_is_named_by_its_flag() {
    let repo = Repo::new().model("double", "double", "");
    let path = repo.path("").display().to_string();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port().to_string();
    let serve = ["serve", "--http-port", "0", "--log-level", "off", "--model-repository", &path];
    let output = run(&[&serve[..], &["--admin-port", &port]].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("127.0.0.1:{port} is in use")) && said.contains("--admin-port"), "{said}");
}

#[test]
#[cfg(feature = "jemalloc")]
fn the_command_finds_the_admin_port_of_a_process() {
    let server = start(&["--admin-port", "0"]);
    let (pid, url) = (server.pid().to_string(), format!("http://{}", admin(&server)));
    for arguments in [["--pid", &pid], ["--url", &url]] {
        let output = run(&[&["profile", "--heap"], &arguments[..]].concat());
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && said.contains("written: heap.svg"), "{said}");
    }
    let output = run(&["profile", "--heap", "--url", &format!("http://{}", server.address())]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("not_found"), "{said}");
}
