//! Pages in a browser on the same machine: pages of other sites reach nothing, those of allowed origins what they should.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::Command,
    thread,
};

use caudal_testkit::{
    Repo, Server, Shared, find_program,
    http::{self, Answer, Ask, form, get, post, tensor_request},
};

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");
const EVENT: &str = r#"{"event_type":"MESSAGE_RECEIVED","payload":{"message":"forged"},"user_id":"dr"}"#;
const INFER: &str = "/v2/models/double/infer";

static SHARED: Shared = Shared::new(|| start(&[]));

/// A server with a record and a model.
fn start(arguments: &[&str]) -> Server {
    let repo = Repo::new().model("double", "double", "");
    Server::start(CAUDAL, &repo, &[&["--data-dir", "data"], arguments].concat())
}

/// The request of a page of another site in mode no-cors.
fn evil<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&[("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors")], more]
        .concat()
}

fn refused(answer: &Answer, status: u16, code: &str, what: &str) {
    // KServe's routes say the code in front of their sentence.
    assert_eq!((answer.status, answer.text().contains(code)), (status, true), "{what}: {}", answer.text());
    assert_eq!(answer.header("access-control-allow-origin"), "", "{what}");
}

/// Sends a request line and headers as they are.
fn raw(server: &Server, head: &str) -> Answer {
    let mut connection = server.connect();
    connection.send(format!("{head}\r\n\r\n").as_bytes()).unwrap();
    connection.read().unwrap()
}

fn consultations(server: &Server) -> u64 {
    server.get("/consultations").json()["total"].as_u64().unwrap()
}

#[test]
fn page_of_other_site_changes_nothing() {
    let server = SHARED.get();
    let made = server.post_json("/consultations", r#"{"user_id":"dr"}"#).json();
    let id = made["consultation_id"].as_str().unwrap();
    let before = consultations(&server);
    let (kind, multipart) = form(&[("file", Some("a"), EVENT.as_bytes())]);
    let events = format!("/consultations/{id}/events");
    let stream = format!("{events}/stream");
    let (typed, text) = ([("Content-Type", &*kind)], [("Content-Type", "text/plain")]);
    for (path, headers, body) in [
        ("/consultations", evil(&[]), r#"{"user_id":"evil"}"#.as_bytes()),
        (&*events, evil(&[]), EVENT.as_bytes()),
        (&*stream, evil(&typed), &*multipart),
        ("/api/v1/pipelines/x/run", evil(&text), b"{}"),
        ("/api/v1/runs/x/resume", vec![("Origin", "null")], b"{}"),
        ("/api/exports", vec![("Sec-Fetch-Site", "same-site")], b"{}"),
        (INFER, vec![("Origin", "http://localhost:3000")], b"{}"),
    ] {
        refused(&server.ask(&post(path, &headers, body)), 403, "cross_origin_request", path);
    }
    // A browser too old to say where a request comes from has only this type to hide JSON in.
    refused(&server.ask(&post(&events, &text, EVENT.as_bytes())), 415, "unsupported_media_type", "text/plain");
    let hidden = [("Content-Type", "application/json"), ("Content-Type", "text/plain;application/json")];
    refused(&server.ask(&post(&events, &hidden, EVENT.as_bytes())), 415, "unsupported_media_type", "two types");
    for path in [INFER, "/v1/embeddings", "/admin/memory/cleanup", &events] {
        refused(&server.ask(&post(path, &typed, b"{}")), 415, "unsupported_media_type", path);
    }
    assert_eq!(consultations(&server), before);
    assert_eq!(server.get(&events).json()["event_count"], 0);
    // Programs and the server's own page are served as ever.
    assert_eq!(server.ask(&post(&events, &[], EVENT.as_bytes())).status, 201);
    let own = format!("http://{}", server.address());
    let own = [("Origin", &*own), ("Sec-Fetch-Site", "same-origin"), ("Content-Type", "application/json")];
    assert_eq!(server.ask(&post(&events, &own, EVENT.as_bytes())).status, 201);
}

#[test]
fn page_of_other_site_reads_nothing_and_links_open() {
    let server = SHARED.get();
    let fetch = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors"), ("Sec-Fetch-Dest", "image")];
    let link = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")];
    for path in ["/consultations", "/health", "/admin/memory", "/debug/pprof/profile?seconds=1", "/api/audit/logs"] {
        refused(&server.ask(&Ask { headers: &fetch, ..get(path) }), 403, "cross_origin_request", path);
    }
    assert_eq!(server.ask(&Ask { headers: &link, ..get("/health") }).status, 200);
    refused(&server.ask(&Ask { headers: &link, ..get("/admin/memory") }), 403, "cross_origin_request", "a link");
    let typed = [("Sec-Fetch-Site", "none"), link[1], link[2]];
    assert_eq!(server.ask(&Ask { headers: &typed, ..get("/admin/memory") }).status, 200, "an address that is entered");
}

#[test]
fn name_rebound_to_this_machine_is_refused() {
    let server = SHARED.get();
    let port = server.address().port();
    for path in ["/consultations", "/api/v1/runs", "/admin/memory", "/nothing"] {
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: rebound.example:{port}\r\nOrigin: http://rebound.example:{port}");
        let answer = raw(&server, &head);
        refused(&answer, 421, "misdirected_request", path);
        assert!(answer.text().contains("allowed_hosts"), "{}", answer.text());
    }
    for host in ["localhost", &format!("127.0.0.1:{port}"), "[::1]", "10.0.0.7", "LOCALHOST:1"] {
        assert_eq!(raw(&server, &format!("GET /consultations HTTP/1.1\r\nHost: {host}")).status, 200, "{host}");
    }
    let named = start(&["--allowed-hosts", "ai.example, *.clinic.example"]);
    for (host, status) in [("ai.example", 200), ("a.clinic.example", 200), ("evil.example", 421)] {
        assert_eq!(raw(&named, &format!("GET /consultations HTTP/1.1\r\nHost: {host}")).status, status, "{host}");
    }
    // Other machines have names of their own for it, such as that of a service in a cluster.
    let open = start(&["--host", "0.0.0.0"]);
    let head = "GET /health HTTP/1.1\r\nHost: caudal.prod.svc";
    let here = SocketAddr::from(([127, 0, 0, 1], open.address().port()));
    let mut connection = http::Connection::open(here).unwrap();
    connection.send(format!("{head}\r\n\r\n").as_bytes()).unwrap();
    assert_eq!(connection.read().unwrap().status, 200);
}

#[test]
fn host_that_is_none_is_refused() {
    let server = SHARED.get();
    for head in [
        "GET /health HTTP/1.1",
        "GET /health HTTP/1.1\r\nHost:",
        "GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost",
        "GET /health HTTP/1.1\r\nHost: [::1]evil.example",
        "GET /health HTTP/1.1\r\nHost: localhost:evil",
        "GET /health HTTP/1.1\r\nHost: user@localhost",
        "GET http://user@localhost/health HTTP/1.1\r\nHost: localhost",
    ] {
        refused(&raw(&server, head), 400, "invalid_request", head);
    }
    let absolute = "GET http://evil.example/health HTTP/1.1\r\nHost: localhost";
    refused(&raw(&server, absolute), 421, "misdirected_request", absolute);
    assert_eq!(raw(&server, "GET http://localhost/health HTTP/1.1\r\nHost: localhost").status, 200);
    assert_eq!(raw(&server, "GET /health HTTP/1.0").status, 200, "HTTP/1.0 knows no Host");
}

#[test]
fn origin_allowed_uses_the_server_but_no_admin_route() {
    const APP: (&str, &str) = ("Origin", "https://app.example");
    let server = start(&["--cors-allowed-origins", "https://app.example,http://localhost:3000"]);
    let wants = [
        APP,
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "authorization,content-type"),
    ];
    let preflight = |path, headers| server.ask(&Ask { method: "OPTIONS", headers, ..get(path) });
    let allowed = preflight(INFER, &wants);
    assert!((200..300).contains(&allowed.status), "{}", allowed.text());
    assert_eq!(allowed.header("access-control-allow-origin"), APP.1);
    assert!(allowed.header("access-control-allow-methods").contains("POST"));
    assert_eq!(allowed.header("access-control-allow-headers"), "authorization,content-type");
    assert_eq!(allowed.header("access-control-max-age"), "600");
    assert_eq!(allowed.header("access-control-allow-credentials"), "", "never with what the browser keeps");
    let body = tensor_request(&[[1.0; 4]], "");
    let headers = [APP, ("Sec-Fetch-Site", "cross-site"), ("Content-Type", "application/json")];
    let answer = server.ask(&post(INFER, &headers, body.as_bytes()));
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, APP.1));
    assert!(answer.header("vary").contains("origin"), "{answer:?}");
    assert!(answer.header("access-control-expose-headers").contains("x-request-id"), "{answer:?}");
    let wrong = server.ask(&post("/v2/models/nobody/infer", &headers, body.as_bytes()));
    assert_eq!((wrong.status, wrong.header("access-control-allow-origin")), (404, APP.1), "errors can be read too");
    let no_page = server.post_json(INFER, &body);
    assert!(no_page.header("vary").contains("origin"), "caches keep the two apart: {no_page:?}");
    for path in ["/admin/memory", "/v2/repository/index", "/api/audit/logs"] {
        refused(&preflight(path, &wants), 403, "cross_origin_request", path);
        refused(&server.ask(&Ask { headers: &[APP], ..get(path) }), 403, "cross_origin_request", path);
    }
    let other = [("Origin", "https://evil.example"), wants[1], wants[2]];
    refused(&preflight(INFER, &other), 403, "cross_origin_request", "another origin");
    assert_eq!(SHARED.get().ask(&Ask { method: "OPTIONS", headers: &[], ..get(INFER) }).status, 405);
}

/// Serves one page to a browser, on a port of its own: another origin.
fn page(html: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().take(20).flatten() {
            let mut stream = stream;
            let _ = stream.read(&mut [0; 4096]);
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                html.len()
            );
            let _ = stream.write_all((head + &html).as_bytes());
        }
    });
    address
}

/// What a browser makes of the page at `url` within some seconds.
fn opened(browser: &Path, url: &str) -> String {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "60"]).arg(browser);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
    command.args(["--virtual-time-budget=5000"]).arg(format!("--user-data-dir={}", home.path().display()));
    let output = command.args(["--dump-dom", url]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn browser_keeps_pages_of_other_origins_out_unless_allowed() {
    let Some(browser) = find_program(&["chromium", "chromium-browser", "google-chrome"]) else {
        return eprintln!("skipped: neither chromium nor google-chrome is installed");
    };
    let script = |server: SocketAddr| {
        format!(
            "<pre id=out></pre><script>
            const say = (name, text) => document.getElementById('out').append(name + '=' + text + ';');
            const make = (mode, type) => fetch('http://{server}/consultations', {{method: 'POST', mode,
                body: new Blob(['{{\"user_id\":\"page\"}}'], {{type}})}});
            make('no-cors', '').then(() => make('cors', 'application/json'))
                .then(answer => say('cors', answer.status), error => say('cors', 'failed'))
                .then(() => fetch('http://{server}/admin/memory'))
                .then(answer => say('admin', answer.status), error => say('admin', 'failed'));
            </script>"
        )
    };
    let closed = start(&[]);
    let dom = opened(&browser, &format!("http://{}/", page(script(closed.address()))));
    assert!(dom.contains("cors=failed;admin=failed;"), "{dom}");
    assert_eq!(consultations(&closed), 0, "nothing was recorded");
    let open = start(&["--cors-allowed-origins", "*"]);
    let dom = opened(&browser, &format!("http://{}/", page(script(open.address()))));
    assert!(dom.contains("cors=201;admin=failed;"), "{dom}");
    assert_eq!(consultations(&open), 2);
}
