//! Who is let in where: the admin key, and a socket of its own for who administers the server.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    net::{SocketAddr, TcpListener},
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use caudal_testkit::{
    Repo, Server,
    http::{self, Answer, Ask, Connection, get, post, tensor_request},
};

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");
const STRANGER: (&str, &str) = ("X-Forwarded-For", "10.0.0.7");

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
        let hidden = ask(public, path);
        assert_eq!(told(&hidden), (404, "not_found".to_owned()), "{path}");
        assert!(!hidden.text().contains(&admin.port().to_string()), "strangers are not told where: {}", hidden.text());
        assert_eq!(ask(admin, path).status, 200, "{path}");
    }
    let index = post("/v2/repository/index", &[], b"{}");
    assert_eq!(told(&http::once(public, &index).unwrap()), (404, "not_found".to_owned()));
    assert_eq!(http::once(admin, &index).unwrap().status, 200);
    let infer = tensor_request(&[[1.0; 4]], "");
    let infer = post("/v2/models/double/infer", &[], infer.as_bytes());
    assert_eq!(http::once(public, &infer).unwrap().status, 200);
    assert_eq!(told(&http::once(admin, &infer).unwrap()), (404, "not_found".to_owned()));
    let health = ask(public, "/health").text();
    assert!(health.contains("http_port") && !health.contains("admin_"), "strangers are not told that either: {health}");
    for path in ["/metrics", "/livez", "/readyz", "/health", "/status", "/v2/health/ready", "/api/kpis"] {
        assert_eq!((ask(public, path).status, ask(admin, path).status), (200, 200), "{path}");
    }
    let stranger = Ask { headers: &[STRANGER], ..get("/admin/memory") };
    assert_eq!(told(&http::once(admin, &stranger).unwrap()), (403, "forbidden".to_owned()), "the rule is the same");
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
            told(&http::once(address, &Ask { method: "OPTIONS", ..get(&named) }).unwrap()).1
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
fn without_the_key_it_is_401_and_where_there_is_none_403() {
    let keyed = start(&["--admin-key", "secret"]);
    let with = |server: &Server, headers: &[(&str, &str)]| server.ask(&Ask { headers, ..get("/admin/memory") });
    for headers in [
        &[STRANGER][..],
        &[STRANGER, ("Authorization", "Bearer wrong")],
        &[STRANGER, ("Authorization", "Basic secret")],
        &[STRANGER, ("X-Admin-Key", "")],
    ] {
        let refused = with(&keyed, headers);
        assert_eq!(told(&refused), (401, "unauthorized".to_owned()), "{headers:?}");
        assert_eq!(refused.header("www-authenticate"), "Bearer");
    }
    assert_eq!(with(&keyed, &[STRANGER, ("Authorization", "Bearer secret")]).status, 200);
    assert_eq!(with(&keyed, &[STRANGER, ("X-Admin-Key", "secret")]).status, 200);
    assert_eq!(with(&keyed, &[]).status, 200, "from the machine itself");
    let open = start(&[]);
    for headers in [&[STRANGER][..], &[STRANGER, ("Authorization", "Bearer secret")]] {
        let refused = with(&open, headers);
        assert_eq!(told(&refused), (403, "forbidden".to_owned()), "{headers:?}");
        assert_eq!(refused.header("www-authenticate"), "");
    }
    assert!(keyed.metric("http_requests_total", "status=\"401\"") > 0.0);
}

#[test]
fn who_administers_comes_in_though_all_other_places_are_taken() {
    let server = start(&["--admin-port", "0", "--max-connections", "1"]);
    let mut only = server.connect();
    assert_eq!(only.ask(&get("/livez")).unwrap().status, 200);
    let _waits = server.connect();
    assert_eq!(ask(admin(&server), "/admin/memory").status, 200);
}

#[test]
fn going_down_answers_whoever_asks_at_the_admin_port() {
    let repo = Repo::new().model("slow", "slow", "instances: 1\nthreads: 1\nbatching: {max_batch_size: 1}");
    let mut server = Server::start(CAUDAL, &repo, &["--admin-port", "0"]);
    let (public, admin) = (server.address(), admin(&server));
    let mut idle = Connection::open(admin).unwrap();
    assert_eq!(idle.ask(&get("/readyz")).unwrap().status, 200);
    let profile = thread::spawn(move || http::once(admin, &get("/debug/pprof/collapsed?seconds=300")));
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
fn an_admin_port_without_a_key_that_is_open_to_all_is_warned_of() {
    let server = start(&["--admin-port", "0", "--admin-host", "0.0.0.0"]);
    server.log_line("there is no admin_key");
    let keyed = start(&["--admin-port", "0", "--admin-host", "0.0.0.0", "--admin-key", "secret"]);
    keyed.log_line("administered on http://");
    assert!(!keyed.log().contains("there is no admin_key"), "{}", keyed.log());
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
