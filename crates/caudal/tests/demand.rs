//! Models that rest until they are asked for, within a limit on the memory of all.
//!
//! Traffic has two lengths: some hundred requests in the suite, twenty thousand behind `cargo xtask soak`.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    collections::BTreeSet,
    fs,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use caudal_testkit::{
    Repo, Server,
    http::{Ask, Connection, post, tensor_request},
    model_file,
};
use serde_json::Value;

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");

fn full() -> bool {
    std::env::var_os("CAUDAL_TEST_FULL").is_some()
}

/// `count` models of 8 MiB of weights each.
fn heavy(count: usize) -> Repo {
    let (model, weights) = (fs::read(model_file("heavy")).unwrap(), 1f32.to_le_bytes().repeat(4 << 19));
    (0..count).fold(Repo::new(), |repo, i| {
        repo.file(&format!("m{i:02}/1/model.onnx"), &model)
            .file(&format!("m{i:02}/1/weights.bin"), &weights)
            .file(&format!("m{i:02}/model.yaml"), b"instances: 1\nthreads: 1\nbatching: {max_batch_size: 4}")
    })
}

fn infer(model: usize) -> String {
    format!("/v2/models/m{model:02}/infer")
}

fn ask(server: &Server, model: usize) -> u16 {
    let answer = server.post_json(&infer(model), &tensor_request(&[[1.0; 4]], ""));
    if answer.status == 200 {
        assert_eq!(answer.json()["outputs"][0]["data"][0], 4.0);
    }
    answer.status
}

/// A server whose models may hold as much as `room` of `count` need: half a model more, for what is kept for runs.
fn with_room(count: usize, room: usize) -> (Repo, Server) {
    let (repo, limit) = (heavy(count), (8 * room + 6).to_string());
    let server = Server::start(CAUDAL, &repo, &["--model-memory-mb", &limit]);
    (repo, server)
}

#[test]
fn what_a_model_holds_is_told() {
    let server = Server::start(CAUDAL, &heavy(1), &[]);
    let by = |measure: &str| server.metric("caudal_model_memory_bytes", &format!(r#"model="m00",measure="{measure}""#));
    assert!(by("weights") >= f64::from(8 << 20), "what lies beside the model counts: {}", by("weights"));
    assert!(by("arena") > 0.0, "the backend tells what it keeps for runs");
    assert!(by("resident") > 0.0);
    let state = server.get("/admin/models/m00").json();
    assert!(state["memory"]["bytes"].as_u64().unwrap() >= 8 << 20, "{state}");
    assert_eq!(server.get("/health").json()["models"]["m00"]["memory_mb"].as_f64().unwrap().floor(), 8.0);
}

fn loads(server: &Server) -> f64 {
    server.metric("caudal_model_changes_total", r#"change="loaded""#)
}

fn in_memory(server: &Server) -> f64 {
    server.metric("caudal_models", "")
}

#[test]
fn models_for_which_there_is_no_room_come_when_they_are_asked_for() {
    let (_repo, server) = with_room(4, 2);
    assert_eq!(server.get("/readyz").status, 200);
    assert_eq!(in_memory(&server), 2.0);
    let index = server.post_json("/v2/repository/index", "").json();
    assert_eq!((&index[0]["state"], &index[3]["state"]), (&"READY".into(), &"UNAVAILABLE".into()), "{index}");
    assert!(index[3]["reason"].as_str().unwrap().contains("resting"), "{index}");
    assert_eq!(server.get("/v2/models/m03/ready").status, 200, "it would serve");
    for model in [3, 0, 1, 2, 3] {
        assert_eq!(ask(&server, model), 200);
        assert!(in_memory(&server) <= 2.0);
    }
    assert_eq!(server.get("/v2/models/m00").json()["outputs"][0]["name"], "y", "to be asked for is enough");
    let health = server.get("/health").json();
    let resting = |name: &str| health["models"][name]["resting"] == Value::Bool(true);
    assert_eq!(["m00", "m01", "m02", "m03"].into_iter().filter(|name| resting(name)).count(), 2, "{health}");
}

#[test]
fn however_many_ask_for_it_a_model_is_loaded_once() {
    let (_repo, server) = with_room(3, 1);
    let before = loads(&server);
    thread::scope(|scope| {
        let asked: Vec<_> = (0..16).map(|_| scope.spawn(|| ask(&server, 2))).collect();
        asked.into_iter().for_each(|asked| assert_eq!(asked.join().unwrap(), 200));
    });
    assert_eq!(loads(&server) - before, 1.0);
}

#[test]
fn what_fits_into_no_memory_is_refused_in_words_and_hurts_nobody() {
    let repo = heavy(2);
    let server = Server::start(CAUDAL, &repo, &["--model-memory-mb", "5"]);
    assert_eq!(server.get("/readyz").status, 503);
    server.log_line("there is room for");
    assert_eq!(ask(&server, 0), 503);
    let repo = repo.model("double", "double", "");
    let arguments = ["--model-memory-mb", "5", "--model-control-mode", "explicit", "--load-model", "double"];
    let server = Server::start(CAUDAL, &repo, &arguments);
    let refused = server.post_json("/v2/repository/models/m00/load", "");
    assert_eq!((refused.status, refused.text().contains("there is room for")), (400, true), "{}", refused.text());
    assert_eq!(server.get("/v2/models/double/ready").status, 200, "nobody had to go for it");
    assert_eq!(in_memory(&server), 1.0);
}

#[test]
fn who_is_not_asked_rests() {
    let repo = heavy(2);
    let server = Server::start(CAUDAL, &repo, &["--idle-unload-secs", "0.4"]);
    let end = Instant::now() + Duration::from_secs(10);
    while in_memory(&server) > 1.0 {
        assert_eq!(ask(&server, 0), 200);
        assert!(Instant::now() < end, "nobody rests");
        thread::sleep(Duration::from_millis(20));
    }
    let health = server.get("/health").json();
    assert_eq!(health["models"]["m01"]["resting"], true, "{health}");
    assert_eq!(health["models"]["m00"].get("resting"), None, "it is asked for: {health}");
    assert_eq!(ask(&server, 1), 200);
}

/// The thresholds and the batch size of the model `m` as they are now.
fn settings(server: &Server) -> (f64, u64) {
    let now = server.get("/admin/models/m").json();
    (now["thresholds"]["conf"].as_f64().unwrap(), now["batching"]["max_queue_size"].as_u64().unwrap())
}

fn unload_all(server: &Server) {
    let cleaned = server.post_json("/admin/memory/cleanup", r#"{"idle_secs": 0}"#);
    assert_eq!(cleaned.status, 200, "{}", cleaned.text());
    assert_eq!(in_memory(server), 0.0);
}

#[test]
fn a_changed_setting_survives_a_rest() {
    let repo = Repo::new().model("m", "yolox", "labels: [left, right]");
    let server = Server::start(CAUDAL, &repo, &["--model-control-mode", "explicit", "--load-model", "*"]);
    let patch = |body: &str| {
        let changed = server.ask(&Ask { method: "PATCH", ..post("/admin/models/m", &[], body.as_bytes()) });
        assert_eq!(changed.status, 200, "{}", changed.text());
    };
    let round = |value: (f64, u64)| ((value.0 * 100.0).round() / 100.0, value.1);
    let wake = || assert_eq!(server.get("/v2/models/m").status, 200);
    patch(r#"{"thresholds": {"conf": 0.9}, "batching": {"max_queue_size": 7}}"#);
    patch(r#"{"thresholds": {"conf": 0.4}}"#);
    unload_all(&server);
    let line = server.log_line("model put to rest");
    assert!(line.contains("an operator asked for a cleanup of memory"), "the reason is the true one: {line}");
    assert_eq!(server.get("/health").json()["models"]["m"]["kind"], "detect");
    wake();
    assert_eq!(round(settings(&server)), (0.4, 7), "both changes hold, the later one where they differ");
    // Told to load it takes what its folder says.
    assert_eq!(server.post_json("/v2/repository/models/m/load", "").status, 200);
    assert_eq!(round(settings(&server)), (0.25, 128));
    patch(r#"{"thresholds": {"conf": 0.4}}"#);
    unload_all(&server);
    fs::write(repo.path("m/model.yaml"), "labels: [left, right]\nthresholds: {conf: 0.6}").unwrap();
    wake();
    assert_eq!(round(settings(&server)), (0.6, 128), "what was written since holds");
    server.log_line("no longer holds");
}

/// A sequence of models whose popularity falls as one over their rank, the same every time.
fn zipf(models: usize, length: usize) -> Vec<usize> {
    let weights: Vec<f64> = (1..=models).map(|rank| 1.0 / rank as f64).collect();
    let sum: f64 = weights.iter().sum();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut one = || {
        let mut left = random() * sum;
        weights.iter().position(|weight| {
            left -= weight;
            left < 0.0
        })
    };
    // Popular ones are not those that are loaded first.
    (0..length).map(|_| models - 1 - one().unwrap_or(0)).collect()
}

/// How many loads whoever knows the future needs for `asked` with room for `room` models, those in `at_first` loaded:
/// the one that is needed latest goes (L. A. Belady, 1966).
fn optimum(asked: &[usize], room: usize, at_first: BTreeSet<usize>) -> usize {
    let next = |model: usize, from: usize| asked[from..].iter().position(|other| *other == model).unwrap_or(usize::MAX);
    let (mut held, mut loads) = (at_first, 0);
    for (i, model) in asked.iter().enumerate() {
        if held.contains(model) {
            continue;
        }
        loads += 1;
        if held.len() == room {
            let latest = held.iter().copied().max_by_key(|held| next(*held, i)).unwrap();
            held.remove(&latest);
        }
        held.insert(*model);
    }
    loads
}

/// How many loads there would be if the one that was asked for longest ago went, as in other servers.
fn least_recent(asked: &[usize], room: usize, at_first: &BTreeSet<usize>) -> usize {
    let (mut held, mut loads) = (at_first.iter().copied().collect::<Vec<_>>(), 0);
    for model in asked {
        match held.iter().position(|held| held == model) {
            Some(place) => drop(held.remove(place)),
            None => {
                loads += 1;
                if held.len() == room {
                    held.remove(0);
                }
            }
        }
        held.push(*model);
    }
    loads
}

/// The short form may take three turns: while other programs hold the cores, loads take so long that the requests of all
/// clients overlap, and 400 of them are too few to even that out. The full form has one.
#[test]
fn popular_models_stay_and_no_memory_is_thrashed() {
    let (length, turns) = if full() { (20_000, 1) } else { (400, 3) };
    let mut ratios = Vec::new();
    while ratios.len() < turns && ratios.last().is_none_or(|ratio| *ratio > MOST_LOADS) {
        ratios.push(loads_beside_the_optimum(length));
    }
    assert!(ratios.last().is_some_and(|ratio| *ratio <= MOST_LOADS), "loads beside the optimum: {ratios:?}");
}

/// Loads, as a multiple of those of the optimum.
const MOST_LOADS: f64 = 1.2;

/// Loads of a server that is asked `length` times for popular and rare models, beside those of the optimum.
fn loads_beside_the_optimum(length: usize) -> f64 {
    let (models, room, clients) = (12, 4, 8);
    let (_repo, server) = with_room(models, room);
    let at_first: BTreeSet<usize> = (0..in_memory(&server) as usize).collect();
    assert_eq!(at_first.len(), room, "three times as much as there is room for");
    let (planned, next, asked) = (zipf(models, length), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let (before, limit) = (loads(&server), server.resident());
    let body = tensor_request(&[[1.0; 4]], "");
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let mut connection = Connection::open(server.address()).unwrap();
                loop {
                    let model = {
                        let mut asked = asked.lock().unwrap();
                        let Some(model) = planned.get(next.fetch_add(1, Ordering::SeqCst)) else { break };
                        asked.push(*model);
                        *model
                    };
                    let answer = connection.ask(&post(&infer(model), &[], body.as_bytes())).unwrap();
                    assert_eq!(answer.status, 200, "{}", answer.text());
                }
            });
        }
    });
    let (ours, asked) = (loads(&server) - before, asked.into_inner().unwrap());
    let recent = least_recent(&asked, room, &at_first);
    let best = optimum(&asked, room, at_first) as f64;
    let grown = server.resident() as f64 / limit as f64;
    println!(
        "{length} requests for {models} models with room for {room}: {ours} loads, {best} by one that knows the future ({:.2}), {recent} by the least recently used ({:.2}); memory {grown:.2} of that at start",
        ours / best,
        recent as f64 / best
    );
    ours / best
}
