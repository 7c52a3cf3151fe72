//! Profiles of a server that works: what they show, who may take them, and that they harm nobody.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    fs,
    io::Write,
    net::TcpStream,
    path::Path,
    process::{Command, Output},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use caudal_profiler::{Profile, Stack};
use caudal_testkit::{
    Repo, Server, fixture,
    http::{self, Answer, Ask, get, post},
    load::{Load, Sample, quantile},
};

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");
const PICTURE: &[(&str, &str)] = &[("Content-Type", "image/jpeg")];
const LIBRARY: &str = "[libonnxruntime.so]";

fn start(arguments: &[&str]) -> Server {
    Server::start(CAUDAL, &Repo::nanodet(""), arguments)
}

/// Sends pictures until `work` is done; what `work` gave, and how many were answered.
fn under_load<T>(server: &Server, work: impl FnOnce() -> T) -> (T, usize) {
    under_load_on(server, "/predict/nanodet", work)
}

fn under_load_on<T>(server: &Server, path: &str, work: impl FnOnce() -> T) -> (T, usize) {
    let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let picture = fixture("double_decker_bus.jpg");
    let outcome = thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut connection = server.connect();
                while !done.load(Ordering::SeqCst) {
                    let answer = connection.ask(&post(path, PICTURE, &picture)).unwrap();
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let finish = Finish(&done);
        let outcome = work();
        drop(finish);
        outcome
    });
    (outcome, answered.into_inner())
}

/// Clients stop though `work` panics.
struct Finish<'a>(&'a AtomicBool);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn read(answer: &Answer) -> Profile {
    assert_eq!(answer.status, 200, "{}", answer.text());
    Profile::from_bytes(&answer.body).unwrap()
}

fn has(stack: &Stack, frame: &str) -> bool {
    stack.frames.iter().any(|name| name == frame)
}

/// CPU time of each thread so far, by the scheduler's count, with the thread's name.
fn thread_times(pid: u32) -> Vec<(String, f64)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let time = |task: &Path| -> Option<(String, f64)> {
        let name = fs::read_to_string(task.join("comm")).ok()?.trim_end().to_owned();
        let stat = fs::read_to_string(task.join("schedstat")).ok()?;
        Some((name, stat.split(' ').next()?.parse().ok()?))
    };
    tasks.flatten().filter_map(|task| time(&task.path())).collect()
}

#[test]
fn a_profile_shows_each_role_and_the_library_with_their_shares() {
    let server = start(&[]);
    let times = |part: &str| -> f64 {
        thread_times(server.pid()).iter().filter(|(name, _)| name.starts_with(part)).map(|(_, time)| time).sum()
    };
    let ((profile, truth), _) = under_load(&server, || {
        let roles = ["infer-", "decode-", "io-"];
        let before = roles.map(times);
        let profile = read(&server.get("/debug/pprof/profile?seconds=4&hz=1000"));
        let after = roles.map(times);
        let total: f64 = after.iter().zip(before).map(|(after, before)| after - before).sum();
        let share = |at: usize| (roles[at], (after[at] - before[at]) / total);
        (profile, [share(0), share(1), share(2)])
    });
    let known = |stack: &Stack| ["infer-", "decode-", "io-"].iter().any(|role| stack.frames[0].starts_with(role));
    let all = profile.share_where(known);
    for (role, truth) in truth {
        let found = profile.share_where(|stack| stack.frames[0].starts_with(role)) / all;
        println!("{role}: {:.1} % of CPU time, {:.1} % of samples", 100.0 * truth, 100.0 * found);
        assert!((truth - found).abs() < 0.03, "{role}: {truth:.3} of CPU time, {found:.3} of samples");
    }
    let infer = profile.share_where(|stack| stack.frames[0].starts_with("infer-"));
    let in_library = profile.share_where(|stack| stack.frames[0].starts_with("infer-") && has(stack, LIBRARY)) / infer;
    assert!(in_library > 0.8, "an instance does little but run its model: {in_library:.3}");
    // What called into the library is seen through it.
    let called = profile
        .share_where(|stack| has(stack, LIBRARY) && stack.frames.iter().any(|name| name.contains("caudal_engine_ort")));
    let of = profile.share_where(|stack| has(stack, LIBRARY));
    println!("{:.1} % of the library's stacks begin in our code", 100.0 * called / of);
    assert!(called / of > 0.7, "{called:.3} of {of:.3}");
}

#[test]
fn a_flame_graph_is_whole_and_shows_roles_and_the_library() {
    let server = start(&[]);
    let (answer, _) = under_load(&server, || server.get("/debug/pprof/flamegraph?seconds=1"));
    assert_eq!((answer.status, answer.header("content-type")), (200, "image/svg+xml"));
    let svg = answer.text();
    // Every element that is opened is closed.
    let mut reader = quick_xml::Reader::from_str(&svg);
    let mut open = 0i64;
    loop {
        match reader.read_event().unwrap() {
            quick_xml::events::Event::Start(_) => open += 1,
            quick_xml::events::Event::End(_) => open -= 1,
            quick_xml::events::Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!(open, 0);
    for part in ["infer-", "libonnxruntime", "<script", "samples"] {
        assert!(svg.contains(part), "{part} is missing");
    }
    let text = |path: &str| under_load(&server, || server.get(path)).0.text();
    assert!(text("/debug/pprof/collapsed?seconds=1").lines().all(|line| line.contains(';')));
    let json: serde_json::Value =
        serde_json::from_str(&text("/debug/pprof/profile?seconds=1&format=speedscope")).unwrap();
    assert!(json["profiles"].as_array().is_some_and(|profiles| !profiles.is_empty()));
}

#[test]
fn what_cannot_be_is_refused_with_its_bounds() {
    let server = start(&["--admin-key", "secret"]);
    for (query, words) in [
        ("seconds=0", "1 to 300"),
        ("seconds=301", "1 to 300"),
        ("hz=0", "1 to 1000"),
        ("hz=1001", "1 to 1000"),
        ("format=gif", "svg"),
    ] {
        let answer = server.get(&format!("/debug/pprof/profile?{query}"));
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_parameter"), "{query}");
        assert!(answer.text().contains(words), "{query}: {}", answer.text());
    }
    for path in ["profile", "flamegraph", "collapsed", "heap"] {
        let path = format!("/debug/pprof/{path}");
        let stranger = server.ask(&Ask { headers: &[("Authorization", "Bearer guess")], ..get(&path) });
        assert_eq!((stranger.status, stranger.code().as_str()), (401, "unauthorized"), "{path}");
    }
    let keyed = [("X-Forwarded-For", "10.0.0.7"), ("Authorization", "Bearer secret")];
    assert_eq!(server.ask(&Ask { headers: &keyed, ..get("/debug/pprof/heap") }).status, 200);
}

#[test]
fn idle_server_gives_an_empty_profile_that_says_so() {
    const WORDS: &str = "idle: no CPU samples. Send requests while profiling";
    let server = start(&[]);
    let profile = read(&server.get("/debug/pprof/profile?seconds=1&hz=1"));
    assert!(profile.is_idle(), "{}", profile.to_collapsed());
    for form in ["flamegraph?", "collapsed?", "profile?format=speedscope&"] {
        let answer = server.get(&format!("/debug/pprof/{form}seconds=1&hz=1"));
        assert_eq!(answer.status, 200, "{form}: {}", answer.text());
        assert!(answer.text().contains(WORDS) || answer.text() == "[idle] 0\n", "{form}: {}", answer.text());
    }
    let folder = tempfile::tempdir().unwrap();
    let url = format!("http://{}", server.address());
    let output = caudal(folder.path(), &["profile", "--url", &url, "--seconds", "1", "--hz", "1"]);
    assert!(output.status.success() && told(&output).contains("raise --seconds"), "{}", told(&output));
    assert!(folder.path().join("profile.svg").exists());
    let kpis = server.get("/api/kpis?window=1m&scope=service").json();
    assert_eq!(kpis["summary"]["server_errors"], 0, "{kpis}");
}

/// Where operators of `model` stand: in the title's own words.
fn of_operators<'a>(stack: &'a Stack, model: &str) -> Option<&'a [String]> {
    let title = format!("operators of {model}, each by its share of 20 other runs");
    let at = stack.frames.iter().position(|name| *name == title)?;
    assert_eq!(stack.frames[at - 1], LIBRARY, "{stack:?}");
    Some(&stack.frames[at + 1..])
}

#[test]
fn operators_stand_on_the_librarys_frames_by_their_share() {
    // The model's file is opened once more.
    let repo = Repo::nanodet("");
    let server = Server::start(CAUDAL, &repo, &[]);
    let told = server.get("/admin/models/nanodet/operators").json();
    let (profile, _) =
        under_load(&server, || read(&server.get("/debug/pprof/collapsed?seconds=2&hz=1000&operators=nanodet")));
    let operators = |stack: &Stack| of_operators(stack, "nanodet").is_some();
    let library = |stack: &Stack| operators(stack) || stack.frames.last().is_some_and(|name| name == LIBRARY);
    let all = profile.share_where(library);
    assert!(profile.share_where(operators) / all > 0.7, "{}", profile.to_collapsed());
    for kind in told["kinds"].as_array().unwrap().iter().take(3) {
        let (name, share) = (kind["kind"].as_str().unwrap(), kind["share"].as_f64().unwrap());
        let found =
            profile.share_where(|stack| of_operators(stack, "nanodet").is_some_and(|frames| frames[0] == name)) / all;
        println!("{name}: {:.1} % of a run, {:.1} % of the library's samples", 100.0 * share, 100.0 * found);
        // Two measurements on a busy machine; who gets what of one of them is tested beside the code.
        assert!((share - found).abs() < 0.2, "{name}: {share:.3} of a run, {found:.3} of samples");
    }
    let node = told["operators"][0]["name"].as_str().unwrap();
    let found =
        |stack: &Stack| of_operators(stack, "nanodet").is_some_and(|frames| frames.len() == 2 && frames[1] == node);
    assert!(profile.stacks.iter().any(found), "{node} is missing: {}", profile.to_collapsed());
    let missing = server.get("/debug/pprof/flamegraph?seconds=1&operators=nobody");
    assert_eq!((missing.status, missing.code().as_str()), (404, "model_not_found"));
}

#[test]
fn operators_stand_where_their_own_model_ran() {
    let nanodet = fs::read(Repo::nanodet("").path("nanodet/1/model.onnx")).unwrap();
    let repo = Repo::nanodet("").file("nanodet2/1/model.onnx", &nanodet).file("other/1/model.onnx", &nanodet);
    let server = Server::start(CAUDAL, &repo, &[]);
    let same = server.get("/debug/pprof/collapsed?seconds=1&operators=nanodet2");
    assert_eq!((same.status, same.code().as_str()), (400, "invalid_parameter"), "{}", same.text());
    assert!(
        same.text().contains("nanodet and nanodet2") || same.text().contains("nanodet2 and nanodet"),
        "{}",
        same.text()
    );
    let (profile, _) =
        under_load(&server, || read(&server.get("/debug/pprof/collapsed?seconds=1&hz=1000&operators=other")));
    assert!(profile.share_where(|stack| has(stack, LIBRARY)) > 0.5);
    assert!(profile.stacks.iter().all(|stack| of_operators(stack, "other").is_none()), "nobody asked it");
    let folder = tempfile::tempdir().unwrap();
    let url = format!("http://{}", server.address());
    let (output, _) = under_load_on(&server, "/predict/other", || {
        let arguments = ["profile", "--url", &url, "--seconds", "1", "--hz", "1000", "--operators", "other"];
        caudal(folder.path(), &[&arguments[..], &["--format", "collapsed", "-o", "other.txt"]].concat())
    });
    assert!(output.status.success(), "{}", told(&output));
    let profile = Profile::from_bytes(&fs::read(folder.path().join("other.txt")).unwrap()).unwrap();
    let named = |stack: &&Stack| of_operators(stack, "other").is_some();
    assert!(profile.stacks.iter().any(|stack| named(&stack)), "{}", profile.to_collapsed());
    assert!(profile.stacks.iter().filter(named).all(|stack| stack.frames[0].starts_with("infer-")));
}

#[test]
fn threads_of_the_librarys_own_are_named() {
    let server = Server::start(CAUDAL, &Repo::nanodet("instances: 1\nthreads: 2"), &[]);
    let (profile, _) = under_load(&server, || read(&server.get("/debug/pprof/collapsed?seconds=2&hz=1000")));
    assert!(profile.share_where(|stack| stack.frames[0] == "infer-pool") > 0.1, "{}", profile.to_collapsed());
    assert_eq!(profile.share_where(|stack| stack.frames[0] == "unnamed"), 0.0, "{}", profile.to_collapsed());
}

/// A connection that asks for a profile, which has begun, and does not wait for it.
fn ask_and_leave(server: &Server, seconds: u32) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let key = server.admin_credential().unwrap();
    let head =
        format!("GET /debug/pprof/profile?seconds={seconds} HTTP/1.1\r\nHost: localhost\r\nX-Admin-Key: {key}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    until("it samples", || samples(server));
    stream
}

/// Whether a profile is being taken.
fn samples(server: &Server) -> bool {
    thread_times(server.pid()).iter().any(|(name, _)| name == "profiler")
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + http::PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "it never came to this: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn there_is_one_profile_at_a_time_until_its_client_leaves() {
    let server = start(&[]);
    let first = ask_and_leave(&server, 300);
    let second = server.get("/debug/pprof/profile?seconds=1");
    assert_eq!((second.status, second.code().as_str()), (409, "profile_running"));
    assert_eq!(server.get("/debug/pprof/heap").status, 200, "a look at the heap needs no turn");
    drop(first);
    until("it samples no more", || !samples(&server));
    assert_eq!(server.get("/debug/pprof/profile?seconds=1&hz=1").status, 200);
}

#[test]
fn a_server_that_goes_down_ends_its_profile() {
    let mut server = start(&[]);
    let _profile = ask_and_leave(&server, 300);
    server.signal("TERM");
    assert!(server.wait(Duration::from_secs(20)).success(), "{}", server.log());
}

/// Whether this is the full run.
fn full() -> bool {
    std::env::var_os("CAUDAL_TEST_FULL").is_some()
}

#[test]
fn many_profiles_under_load_harm_nobody() {
    let count = if full() { 1000 } else { 50 };
    let server = start(&[]);
    let (seen, answered) = under_load(&server, || {
        // A profile that is given up after some milliseconds begins and ends as one of a minute does.
        let mut seen = 0;
        for round in 0..count {
            match round % 10 {
                0 => {
                    seen += read(&server.get("/debug/pprof/profile?seconds=1&hz=1000")).total_count();
                    continue;
                }
                5 if cfg!(feature = "jemalloc") => {
                    assert!(read(&server.get("/debug/pprof/heap")).total_amount() > 0);
                    continue;
                }
                _ => {}
            }
            let stream = ask_and_leave(&server, 300);
            thread::sleep(Duration::from_millis(20 + round % 7));
            drop(stream);
            until("it samples no more", || !samples(&server));
        }
        seen
    });
    println!("{count} profiles, {seen} samples, {answered} pictures answered");
    assert!(seen > 0 && answered > 0);
    assert_eq!(server.get("/livez").status, 200);
}

#[test]
fn latency_beside_a_profile() {
    let time = if full() { Duration::from_secs(20) } else { Duration::from_secs(1) };
    let rounds = if full() { 5 } else { 1 };
    let server = start(&[]);
    let picture = fixture("double_decker_bus.jpg");
    let load = || -> Vec<Sample> {
        let ask = post("/predict/nanodet", PICTURE, &picture);
        let samples = Load { connections: 4, duration: time, rate: None }.run(server.address(), &ask);
        assert!(samples.iter().all(|sample| sample.status == 200), "every request is answered");
        samples
    };
    let seconds = time.as_secs() + 1;
    let (mut off, mut on) = (Vec::new(), Vec::new());
    // Turn by turn: a machine's other work falls on both.
    for _ in 0..rounds {
        off.extend(load());
        thread::scope(|scope| {
            let profile = scope.spawn(|| server.get(&format!("/debug/pprof/profile?seconds={seconds}&hz=100")));
            on.extend(load());
            assert_eq!(profile.join().unwrap().status, 200);
        });
    }
    for (name, samples) in [("without", &off), ("with a profile at 100 Hz", &on)] {
        let times: Vec<f64> = samples.iter().map(|sample| sample.server_ms).collect();
        let rate = samples.len() as f64 / (time.as_secs_f64() * f64::from(rounds));
        println!(
            "{name}: {rate:.1} pictures/s, server p50 {:.1} ms, p99 {:.1} ms",
            quantile(&times, 0.5),
            quantile(&times, 0.99)
        );
    }
}

#[test]
#[cfg(feature = "jemalloc")]
fn the_heap_shows_our_memory_and_the_librarys() {
    let server = start(&[]);
    let heap = read(&server.get("/debug/pprof/heap"));
    assert_eq!(heap.kind, caudal_profiler::Kind::Heap);
    assert!(heap.stacks.iter().any(|stack| has(stack, LIBRARY)), "ONNX Runtime allocates by the same allocator");
    let ours = heap.stacks.iter().any(|stack| stack.frames.iter().any(|name| name.contains("caudal")));
    assert!(ours, "{}", heap.to_collapsed());
    let resident = server.resident();
    assert!(
        heap.total_amount() > resident / 10 && heap.total_amount() < 2 * resident,
        "{} of {resident}",
        heap.total_amount()
    );
    let svg = server.get("/debug/pprof/heap?format=svg").text();
    assert!(svg.contains("libonnxruntime") && svg.contains("bytes"));
    let long = server.get("/debug/pprof/heap?seconds=3");
    assert_eq!((long.status, long.code().as_str()), (400, "invalid_parameter"));
}

fn caudal(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(CAUDAL).args(arguments).current_dir(folder).output().unwrap()
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_command_asks_a_server_by_its_address_and_by_its_process() {
    let server = start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let (url, pid) = (format!("http://{}", server.address()), server.pid().to_string());
    under_load(&server, || {
        let by_url = caudal(folder.path(), &["profile", "--url", &url, "--seconds", "1"]);
        assert!(by_url.status.success() && told(&by_url).contains("written: profile.svg"), "{}", told(&by_url));
        let svg = fs::read_to_string(folder.path().join("profile.svg")).unwrap();
        assert!(svg.contains("libonnxruntime"));
        let arguments = ["profile", "--pid", &pid, "--seconds", "1", "--format", "pprof", "-o", "own.pb.gz"];
        let by_pid = caudal(folder.path(), &arguments);
        assert!(by_pid.status.success(), "{}", told(&by_pid));
        assert!(Profile::from_bytes(&fs::read(folder.path().join("own.pb.gz")).unwrap()).unwrap().total_count() > 0);
    });
}

#[test]
fn the_command_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("no.txt"), "nothing of a profile").unwrap();
    let own = std::process::id().to_string();
    let check = |arguments: &[&str], status: i32, words: &str| {
        let output = caudal(folder.path(), &[&["profile"], arguments].concat());
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {}", told(&output));
        assert!(told(&output).contains(words), "{arguments:?}: {}", told(&output));
    };
    check(&["--pid", &own], 1, "no Caudal server");
    check(&["--pid", "4194999"], 1, "there is no process");
    check(&["--url", "http://127.0.0.1:1"], 1, "cannot be asked");
    check(&["--url", "ftp://127.0.0.1"], 2, "begins with http://");
    check(&["--seconds", "301"], 2, "1..=300");
    check(&["--hz", "0"], 2, "1..=1000");
    check(&["--heap", "--operators", "m"], 2, "cannot be used with");
    check(&["--diff", "no.txt", "no.txt"], 1, "line 1 is not a stack and a number");
    check(&["--diff", "not-there", "no.txt"], 1, "not-there cannot be read");
    check(&["--", "profile"], 2, "name another command");
}

#[test]
fn a_whole_run_is_profiled_from_its_start_to_its_end() {
    let repo = Repo::nanodet("");
    let folder = tempfile::tempdir().unwrap();
    let repository = repo.path("");
    let picture = caudal_testkit::fixture_path("double_decker_bus.jpg");
    let (repository, picture) = (repository.to_str().unwrap(), picture.to_str().unwrap());
    let pictures = vec![picture; 20];
    let arguments = ["profile", "--hz", "1000", "--format", "collapsed", "-o", "run.txt", "--", "detect"];
    let arguments = [&arguments[..], &pictures, &["--model-repository", repository]].concat();
    let output = caudal(folder.path(), &arguments);
    assert!(output.status.success(), "{}", told(&output));
    let profile = Profile::from_bytes(&fs::read(folder.path().join("run.txt")).unwrap()).unwrap();
    let share = profile.share_where(|stack| has(stack, LIBRARY));
    assert!(share > 0.3, "{share}: {}", profile.to_collapsed());
    assert!(profile.stacks.iter().any(|stack| stack.frames[0] == "main"));
    let failed = caudal(folder.path(), &["profile", "-o", "x.svg", "--", "detect", "not-there.jpg"]);
    assert!(!failed.status.success(), "what went wrong is told: {}", told(&failed));
}

#[test]
fn what_grew_between_two_profiles_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "main;load 100\nmain;serve;answer 50\n").unwrap();
    fs::write(folder.path().join("b.txt"), "main;load 100\nmain;serve;answer 50\nmain;serve;keep_for_ever 500\n")
        .unwrap();
    let output = caudal(folder.path(), &["profile", "--diff", "a.txt", "b.txt", "-o", "diff.svg"]);
    assert!(output.status.success(), "{}", told(&output));
    let grown: Vec<String> = told(&output).lines().map(str::to_owned).collect();
    assert!(grown[1].contains("+500") && grown[1].contains("keep_for_ever"), "{grown:?}");
    let svg = fs::read_to_string(folder.path().join("diff.svg")).unwrap();
    assert!(svg.contains("keep_for_ever"));
}
