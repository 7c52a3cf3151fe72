//! Models that come and go while the server serves, and who may make them.
//!
//! The swaps under load have two lengths: some in the suite, a thousand behind `cargo xtask soak`.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use caudal_testkit::{
    Graph, Numbers, Repo, Server,
    http::{Answer, Ask, Connection, once, post, tensor_request},
    model_file,
};
use serde_json::{Value, json};

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");
const EXPLICIT: &[&str] = &["--model-control-mode", "explicit"];
const INFER: &str = "/v2/models/m/infer";

fn full() -> bool {
    std::env::var_os("CAUDAL_TEST_FULL").is_some()
}

/// A model of two versions: the first doubles, the second triples; `version` serves.
fn two_versions(version: u64) -> Repo {
    Repo::new()
        .file("m/1/model.onnx", &fs::read(model_file("double")).unwrap())
        .file("m/2/model.onnx", &fs::read(model_file("triple")).unwrap())
        .file("m/model.yaml", format!("version: {version}").as_bytes())
}

fn change(server: &Server, model: &str, what: &str) -> Answer {
    server.post_json(&format!("/v2/repository/models/{model}/{what}"), "")
}

fn infer(server: &Server) -> Answer {
    server.post_json(INFER, &tensor_request(&[[1.0; 4]], ""))
}

fn first(answer: &Answer) -> Value {
    answer.json()["outputs"][0]["data"][0].clone()
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "it never came to this: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn models_come_and_go_when_they_are_told_to() {
    let repo = two_versions(1).file("broken/1/model.onnx", b"no model");
    let server = Server::start(CAUDAL, &repo, EXPLICIT);
    assert_eq!((server.get("/readyz").status, infer(&server).status), (200, 404), "nothing is loaded at start");
    let index = |body: &str| server.post_json("/v2/repository/index", body).json();
    let unloaded = |name: &str| json!({ "name": name, "version": "1", "state": "UNAVAILABLE", "reason": "unloaded" });
    assert_eq!(index(""), json!([unloaded("broken"), unloaded("m")]));
    assert!(infer(&server).text().contains("\\\"m\\\" is not loaded"), "{}", infer(&server).text());

    assert_eq!(change(&server, "m", "load").status, 200);
    assert_eq!(first(&infer(&server)), 2.0);
    assert_eq!(index(r#"{"ready": true}"#), json!([{ "name": "m", "version": "1", "state": "READY", "reason": "" }]));

    // What is in the folder now is what a load brings.
    fs::write(repo.path("m/model.yaml"), "version: 2\naliases: [other]").unwrap();
    assert_eq!(first(&infer(&server)), 2.0);
    assert_eq!(change(&server, "m", "load").status, 200);
    assert_eq!(first(&infer(&server)), 3.0);
    assert_eq!(server.get("/v2/models/other/ready").status, 200);

    assert_eq!(change(&server, "m", "unload").status, 200);
    assert_eq!((infer(&server).status, server.get("/v2/models/other/ready").status), (404, 404));
    assert_eq!(index("")[1], json!({ "name": "m", "version": "2", "state": "UNAVAILABLE", "reason": "unloaded" }));
    assert_eq!(change(&server, "m", "unload").status, 200, "it is unloaded, as it should be");
    assert!(infer(&server).text().contains("POST /v2/repository/models/{model}/load"), "{}", infer(&server).text());
    assert_eq!((change(&server, "nobody", "load").status, change(&server, "nobody", "unload").status), (404, 404));
    assert!(server.get("/v2/models/nobody").text().contains("there is no model"));

    let broken = change(&server, "broken", "load");
    assert_eq!((broken.status, broken.text().contains("load_failed: ")), (400, true), "{}", broken.text());
    assert_eq!(index("")[0]["state"], "UNAVAILABLE");
    assert_ne!(index("")[0]["reason"], "unloaded");
    assert_eq!(index("")[0]["version"], "1");
    let odd = server.post_json("/v2/repository/models/m/load", r#"{"parameters": {"config": "{}"}}"#);
    assert_eq!((odd.status, odd.text().contains("\\\"config\\\" is not supported")), (400, true), "{}", odd.text());
}

#[test]
fn a_load_has_an_end_and_the_next_one_goes_on() {
    let repo = Repo::new().model("forever", "forever", "").model("m", "double", "");
    let server = Server::start(CAUDAL, &repo, &[EXPLICIT, &["--request-timeout-ms", "2500"]].concat());
    // The request's deadline and the limit of the run are the same: one of them comes first.
    let refused = change(&server, "forever", "load");
    assert!(matches!(refused.status, 400 | 504), "{}", refused.text());
    assert_eq!((change(&server, "m", "load").status, infer(&server).status), (200, 200));
    let line = server.log_line("model not loaded");
    assert!(line.contains("a run of one row was stopped after 2.5 s"), "{line}");
}

/// A model whose output is x and the sum of all that `nodes` make as `big`.
fn summing(nodes: impl Fn(Graph) -> Graph) -> Vec<u8> {
    let graph = Graph::default().input("x", Numbers::F32, &[1]).output("y", Numbers::F32, &[1]);
    nodes(graph)
        .node("ReduceSum", &["big"], &["sum"], &[("keepdims", 0)])
        .node("Add", &["x", "sum"], &["y"], &[])
        .bytes()
}

#[test]
fn load_that_takes_too_much_memory_is_refused_and_loaded_models_keep_serving() {
    let constant =
        summing(|graph| graph.integers("size", &[1], &[600_000_000]).node("ConstantOfShape", &["size"], &["big"], &[]));
    // The same in a run: the size follows from an input, so it is no constant.
    let warm_up = summing(|graph| {
        let graph = graph.integers("most", &[1], &[600_000_000]).node("Cast", &["x"], &["whole"], &[("to", 7)]);
        graph.node("Add", &["whole", "most"], &["size"], &[]).node("ConstantOfShape", &["size"], &["big"], &[])
    });
    let repo = Repo::new().model("m", "double", "").file("constant/1/model.onnx", &constant);
    let repo = repo.file("warm_up/1/model.onnx", &warm_up);
    let bounds = ["--load-model", "m", "--model-load-memory-mb", "100"];
    let server = Server::start(CAUDAL, &repo, &[EXPLICIT, &bounds].concat());
    let before = server.peak();
    for model in ["constant", "warm_up"] {
        let refused = change(&server, model, "load");
        assert_eq!(refused.status, 400, "{}", refused.text());
        let said = refused.text();
        assert!(said.contains("takes more than 164 MiB of memory") && said.contains("model_load_memory_mb"), "{said}");
        assert_eq!(infer(&server).status, 200, "beside {model}");
    }
    assert!(server.peak() < before + (100 << 20), "none of it in the server: {} and {before}", server.peak());
    assert_eq!((change(&server, "m", "unload").status, change(&server, "m", "load").status), (200, 200));
}

#[test]
fn models_follow_the_repository_where_it_is_polled() {
    let repo = Repo::new();
    let server = Server::start(CAUDAL, &repo, &["--model-control-mode", "poll", "--repository-poll-secs", "0.1"]);
    assert_eq!(infer(&server).status, 404, "there is nothing yet");
    let repo = repo
        .file("m/1/model.onnx", &fs::read(model_file("double")).unwrap())
        .file("m/2/model.onnx", &fs::read(model_file("triple")).unwrap())
        .file("m/model.yaml", b"version: 1");
    until("it serves", || infer(&server).status == 200);
    assert_eq!(first(&infer(&server)), 2.0);
    fs::write(repo.path("m/model.yaml"), "version: 2").unwrap();
    until("the new version serves", || first(&infer(&server)) == 3.0);
    let repo = repo.model("late", "double", "");
    until("what was added serves", || server.get("/v2/models/late/ready").status == 200);
    fs::write(repo.path("m/2/model.onnx"), b"broken").unwrap();
    server.log_line("model not loaded");
    assert_eq!(first(&infer(&server)), 3.0, "what served goes on");
    fs::remove_dir_all(repo.path("late")).unwrap();
    until("what was removed is gone", || server.get("/v2/models/late/ready").status == 404);
    assert_eq!(change(&server, "m", "unload").status, 403);
}

#[test]
fn some_are_loaded_at_start() {
    let repo = two_versions(2).model("free", "free", "").model("double", "double", "");
    let server = Server::start(CAUDAL, &repo, &[EXPLICIT, &["--load-model", "m, double"]].concat());
    assert_eq!((infer(&server).status, server.get("/v2/models/double/ready").status), (200, 200));
    assert_eq!(server.get("/v2/models/free/ready").status, 404);
}

#[test]
fn what_serves_goes_on_when_its_successor_is_broken() {
    let repo = two_versions(1);
    let server = Server::start(CAUDAL, &repo, &[EXPLICIT, &["--load-model", "*"]].concat());
    fs::write(repo.path("m/model.yaml"), "version: 3").unwrap();
    let failed = change(&server, "m", "load");
    assert_eq!((failed.status, failed.text().contains("still serves")), (400, true), "{}", failed.text());
    assert_eq!((first(&infer(&server)), server.get("/readyz").status), (json!(2.0), 200));
}

#[test]
fn who_waits_for_a_model_that_goes_is_answered() {
    let repo = Repo::new().model("m", "slow", "instances: 1\nthreads: 1\nbatching: {max_batch_size: 1}");
    let server = Server::start(CAUDAL, &repo, &[EXPLICIT, &["--load-model", "m"]].concat());
    let address = server.address();
    let body = tensor_request(&[[1.0; 4]], "");
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let body = body.clone();
            thread::spawn(move || once(address, &post(INFER, &[], body.as_bytes())).unwrap())
        })
        .collect();
    until("all are there", || {
        let health = server.get("/health").json();
        health["models"]["m"]["queue_depth"].as_u64().unwrap()
            + health["models"]["m"]["busy_instances"].as_u64().unwrap()
            == 4
    });
    assert_eq!(change(&server, "m", "unload").status, 200);
    for answer in waiting {
        assert_eq!(answer.join().unwrap().status, 200);
    }
    assert_eq!(infer(&server).status, 404);
}

#[test]
fn two_loads_at_once_both_come_true() {
    let repo = two_versions(1);
    let server = Server::start(CAUDAL, &repo, EXPLICIT);
    thread::scope(|scope| {
        let loads: Vec<_> = (0..4).map(|_| scope.spawn(|| change(&server, "m", "load").status)).collect();
        loads.into_iter().for_each(|load| assert_eq!(load.join().unwrap(), 200));
    });
    assert_eq!(first(&infer(&server)), 2.0);
}

#[test]
fn loading_needs_the_admin_key() {
    let repo = two_versions(1);
    let server = Server::start(CAUDAL, &repo, &[EXPLICIT, &["--admin-key", "secret"]].concat());
    let ask = |headers: &[(&str, &str)]| {
        server.ask(&Ask { headers, ..post("/v2/repository/models/m/load", &[], b"") }).status
    };
    assert_eq!(ask(&[("Authorization", "")]), 401, "from the machine itself");
    let page = [("Origin", "https://example.com"), ("Authorization", "Bearer secret")];
    assert_eq!(ask(&page), 403, "from a page in a browser");
    assert_eq!(ask(&[("X-Forwarded-For", "10.0.0.7"), ("Authorization", "Bearer secret")]), 200);
    assert_eq!(ask(&[("X-Forwarded-For", "10.0.0.7"), ("Authorization", "Bearer guess")]), 401);
    let told = server.get("/health").text();
    assert!(!told.contains("secret"), "the key is nobody's business: {told}");
    // A server that was not told so keeps its models.
    let server = Server::start(CAUDAL, &repo, &[]);
    assert_eq!(change(&server, "m", "unload").status, 403);
    assert_eq!(infer(&server).status, 200);
}

/// A model whose second version is `second`, and must prove itself.
fn proving(second: &str, bounds: &str) -> Repo {
    Repo::new()
        .file("m/1/model.onnx", &fs::read(model_file("double")).unwrap())
        .file("m/2/model.onnx", &fs::read(model_file(second)).unwrap())
        .file("m/model.yaml", format!("version: 1\nprove: {bounds}").as_bytes())
}

#[test]
fn a_new_version_goes_live_when_it_has_proved_itself() {
    let try_second = |second: &str, bounds: &str, requests: usize| {
        let repo = proving(second, bounds);
        let server = Server::start(CAUDAL, &repo, &[EXPLICIT, &["--load-model", "*"]].concat());
        (0..requests).for_each(|_| assert_eq!(infer(&server).status, 200));
        fs::write(repo.path("m/model.yaml"), format!("version: 2\nprove: {bounds}")).unwrap();
        let answer = change(&server, "m", "load");
        let serves = infer(&server).json()["model_version"].as_str().unwrap().to_owned();
        (answer.status, answer.text(), serves)
    };
    let check = |second: &str, bounds: &str, requests: usize, words: &str| {
        let (status, text, serves) = try_second(second, bounds, requests);
        assert_eq!((status, text.contains(words), &serves[..]), (400, true, "1"), "{text}");
    };
    let (status, text, serves) = try_second("double", "{inputs: 4, max_slowdown: 100}", 6);
    assert_eq!((status, &serves[..]), (200, "2"), "{text}");
    check("triple", "{inputs: 4, max_slowdown: 100}", 6, "deviate by 5.00e-1 in 4 runs");
    let (status, text, _) = try_second("triple", "{tolerance: 1, max_slowdown: 100}", 6);
    assert_eq!(status, 200, "who allows it gets it: {text}");
    check("slow", "{tolerance: 1}", 3, "times as long");
    check("double", "{}", 0, "nothing to prove itself on");
    check("free", "{inputs: 4}", 1, "other tensors");
}

/// Every answer under load comes, and is wholly that of the version it names.
#[test]
fn swaps_under_load_lose_and_mix_nothing() {
    let swaps = if full() { 1000 } else { 20 };
    let repo = two_versions(1);
    let server = Server::start(CAUDAL, &repo, &[EXPLICIT, &["--load-model", "*"]].concat());
    let (done, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    let body = tensor_request(&[[1.0; 4]; 3], "");
    let mut resident = 0.0;
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut connection = Connection::open(server.address()).unwrap();
                while !done.load(Ordering::SeqCst) {
                    let answer = connection.ask(&post(INFER, &[], body.as_bytes())).unwrap();
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    let json = answer.json();
                    let factor = if json["model_version"] == "1" { 2.0 } else { 3.0 };
                    assert_eq!(json["outputs"][0]["data"], Value::from(vec![factor; 12]));
                    answers.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for swap in 0..swaps {
            fs::write(repo.path("m/model.yaml"), format!("version: {}", 2 - swap % 2)).unwrap();
            let answer = change(&server, "m", "load");
            if answer.status != 200 {
                done.store(true, Ordering::SeqCst);
            }
            assert_eq!(answer.status, 200, "{}", answer.text());
            if swap == swaps / 10 {
                resident = server.resident() as f64;
            }
        }
        done.store(true, Ordering::SeqCst);
    });
    let grown = (server.resident() as f64 / resident - 1.0) * 100.0;
    println!(
        "{swaps} swaps, {} answers, memory after all over that after a tenth: {grown:+.2} %",
        answers.into_inner()
    );
    assert!(!full() || grown <= 2.0, "{grown} %");
}

/// What fails to load leaves nothing behind.
#[test]
fn failed_loads_cost_nothing() {
    let loads: usize = if full() { 1000 } else { 30 };
    let repo = two_versions(1).file("broken/1/model.onnx", &fs::read(model_file("double")).unwrap()[..90]);
    let server = Server::start(CAUDAL, &repo, EXPLICIT);
    let fail = || assert_eq!(change(&server, "broken", "load").status, 400);
    // At once, so that all threads are there that ever will be.
    thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(|| (0..loads.div_ceil(40)).for_each(|_| fail())))));
    let resident = server.resident() as f64;
    (loads / 10..loads).for_each(|_| fail());
    let grown = (server.resident() as f64 / resident - 1.0) * 100.0;
    println!("{loads} failed loads, memory after all over that after a tenth: {grown:+.2} %");
    assert!(!full() || grown <= 1.0, "{grown} %");
}
