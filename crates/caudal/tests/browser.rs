//! A flame graph in the browser that people open it with: its frames are there, and its script searches and zooms.
//! Needs `chromium` (Debian's package of that name) or `google-chrome`; where there is none it is skipped, and said so.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{fs, path::Path, process::Command, thread};

use caudal_testkit::{Repo, Server, find_program, fixture};

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");

/// What a browser makes of the page at `url`, its scripts run.
fn opened(browser: &Path, url: &str) -> String {
    let home = tempfile::tempdir().unwrap();
    // A browser that hangs should not hang the suite.
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "120"]).arg(browser);
    // Tests may run as root in a container, where its sandbox does not.
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
    command.arg(format!("--user-data-dir={}", home.path().display())).args(["--dump-dom", url]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Frames of a flame graph: what each is called and whether it is shown.
fn frames(dom: &str) -> Vec<(&str, bool)> {
    let frame = |part: &'_ str| part.starts_with("<title>") || part.starts_with(" class=");
    dom.split("<g")
        .filter(|part| frame(part.trim_start_matches('>')))
        .map(|part| {
            let (head, rest) = part.split_once("<title>").unwrap();
            (rest.split("</title>").next().unwrap(), !head.contains("hide"))
        })
        .collect()
}

/// The attribute `name` of the first frame called `title`.
fn attribute<'a>(svg: &'a str, title: &str, name: &str) -> &'a str {
    let frame = svg.split("<g>").find(|part| part.starts_with(&format!("<title>{title} ("))).unwrap();
    frame.split(&format!(" {name}=\"")).nth(1).unwrap().split('"').next().unwrap()
}

#[test]
fn a_flame_graph_opens_in_a_browser_and_can_be_searched_and_zoomed() {
    let Some(browser) = find_program(&["chromium", "chromium-browser", "google-chrome"]) else {
        return eprintln!("skipped: neither chromium nor google-chrome is installed");
    };
    let repo = Repo::nanodet("");
    let server = Server::start(CAUDAL, &repo, &[]);
    let address = server.address();
    let picture = fixture("double_decker_bus.jpg");
    // The address of a search, as the picture's own script writes it.
    // The address carries what a person would enter when the browser asks for a password.
    let token = server.admin_credential().unwrap();
    let url =
        format!("http://admin:{token}@{address}/debug/pprof/flamegraph?seconds=2&hz=1000&operators=nanodet&s=%5EConv");
    let dom = thread::scope(|scope| {
        let dom = scope.spawn(|| opened(&browser, &url));
        while !dom.is_finished() {
            assert_eq!(server.post_picture("/predict/nanodet", &picture).status, 200);
        }
        dom.join().unwrap()
    });
    for name in ["infer-", "[libonnxruntime.so]", "operators of nanodet", "Conv ("] {
        assert!(frames(&dom).iter().any(|(title, _)| title.starts_with(name)), "{name} is no frame: {dom}");
    }
    let found = dom.split(">Matched: ").nth(1).and_then(|rest| rest.split('%').next()?.parse::<f64>().ok());
    assert!(found.is_some_and(|share| share > 10.0), "the search has not run: {found:?}");
    assert!(dom.contains("fg:orig_fill="), "what was found has a colour of its own: {dom}");

    // As it is when somebody has saved it, zoomed into one of its frames.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("profile.svg");
    let svg = thread::scope(|scope| {
        let svg = scope.spawn(|| server.get("/debug/pprof/flamegraph?seconds=2&hz=1000&operators=nanodet").text());
        while !svg.is_finished() {
            assert_eq!(server.post_picture("/predict/nanodet", &picture).status, 200);
        }
        svg.join().unwrap()
    });
    fs::write(&file, &svg).unwrap();
    let (x, y) = (attribute(&svg, "Conv", "fg:x"), attribute(&svg, "Conv", "y"));
    let zoomed = opened(&browser, &format!("file://{}?x={x}&y={y}", file.display()));
    let shown = |name: &str| frames(&zoomed).iter().any(|(title, shown)| *shown && title.starts_with(name));
    let hidden = |name: &str| frames(&zoomed).iter().any(|(title, shown)| !shown && title.starts_with(name));
    assert!(shown("Conv (") && shown("operators of nanodet"), "what is zoomed into, on what it stands on: {zoomed}");
    assert!(hidden("decode-"), "what stands beside it: {zoomed}");
}
