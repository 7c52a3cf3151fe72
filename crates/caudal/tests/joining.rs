//! Rows of several requests share a run only where no answer depends on its neighbours.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    process::Command,
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use caudal_testkit::{
    Repo, Server, Shared,
    http::{Ask, Connection, post},
};
use serde_json::{Value, json};

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");

/// Settings under which requests that come together would meet in one run.
const MEET: &str = "instances: 1\nthreads: 1\nbatching: {max_batch_size: 8, max_queue_delay_ms: 20}";

/// Models whose answers depend on the rows beside them; the last is a text encoder.
const DEPENDENT: [&str; 6] = ["centred", "running", "sorted", "int8", "towers", "careless"];

static SHARED: Shared = Shared::new(|| {
    // Brought to length 1, the vectors of the encoder would be the same with and without padding.
    let yaml = format!("{MEET}\nembedding: {{normalize: false}}");
    let yaml_of = |name: &str| if name == "careless" { yaml.as_str() } else { MEET };
    let repo = DEPENDENT.iter().fold(Repo::new(), |repo, name| repo.encoder(name, name, yaml_of(name)));
    let repo = repo
        .model("double", "double", MEET)
        .model("half", "half", MEET)
        .encoder("encoder", "encoder", "embedding: {max_tokens: 64}")
        .model("single", "double", "batching: {max_batch_size: 1}")
        .model("alone", "centred", "batching: {max_batch_size: 1}");
    Server::start(CAUDAL, &repo, &[])
});

fn tensor(name: &str, shape: [usize; 2], data: &[f64]) -> Value {
    json!({ "name": name, "shape": shape, "datatype": "FP32", "data": data })
}

fn body(inputs: &[Value]) -> String {
    json!({ "inputs": inputs }).to_string()
}

/// The shape and the numbers of the first output.
fn read(answer: &Value) -> (Value, Vec<f64>) {
    let output = &answer["outputs"][0];
    let data = output["data"].as_array().unwrap_or_else(|| panic!("{answer}"));
    (output["shape"].clone(), data.iter().map(|number| number.as_f64().unwrap()).collect())
}

fn infer(model: &str, inputs: &[Value]) -> (Value, Vec<f64>) {
    read(&SHARED.get().post_json(&format!("/v2/models/{model}/infer"), &body(inputs)).json())
}

/// The request of client `k`, whose values are like those of nobody else.
fn own_request(model: &str, k: usize) -> Vec<Value> {
    let own = (k * k + 1) as f64;
    match model {
        "towers" => vec![tensor("pictures", [1, 2], &[own, 2.0]), tensor("texts", [1, 2], &[1.0, own])],
        _ => vec![tensor("x", [1, 4], &[own, -own, 0.37 * own, 7.0 - own])],
    }
}

/// Asks `model` from six clients at once, several times; each answer must be what its request gets alone.
fn check_together(model: &str) {
    let alone: Vec<_> = (0..6).map(|k| infer(model, &own_request(model, k))).collect();
    let (start, asked) = (Barrier::new(6), AtomicUsize::new(0));
    thread::scope(|scope| {
        for (k, alone) in alone.iter().enumerate() {
            let (start, asked) = (&start, &asked);
            scope.spawn(move || {
                let mut connection = Connection::open(SHARED.get().address()).unwrap();
                let (path, body) = (format!("/v2/models/{model}/infer"), body(&own_request(model, k)));
                for _ in 0..5 {
                    start.wait();
                    let answer = connection.ask(&post(&path, &[], body.as_bytes())).unwrap().json();
                    assert_eq!(read(&answer), *alone, "{model}, client {k}");
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(asked.into_inner(), 30);
}

#[test]
fn answers_do_not_depend_on_who_else_asks() {
    let _server = SHARED.get();
    DEPENDENT.iter().filter(|name| **name != "careless").for_each(|name| check_together(name));
    check_together("double");
}

#[test]
fn a_request_of_several_rows_runs_whole_where_rows_are_not_joined() {
    let _server = SHARED.get();
    let rows = |data: &[f64]| infer_rows("centred", data);
    assert_eq!(rows(&[1.0, 2.0, 3.0, 4.0, 3.0, 4.0, 5.0, 6.0]), (json!([2, 4]), [[-1.0; 4], [1.0; 4]].concat()));
    let (shape, sorted) = infer_rows("sorted", &[1.0, 1.0, 0.0, 0.0, 5.0, 5.0, 0.0, 0.0]);
    assert_eq!((shape, sorted[0]), (json!([2, 4]), 5.0));
    let picture = tensor("pictures", [1, 2], &[3.0, 2.0]);
    let texts = tensor("texts", [3, 2], &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
    assert_eq!(infer("towers", &[picture, texts]), (json!([1, 3]), vec![3.0, 2.0, 5.0]));
    // What settings declare holds all the same.
    let nine = body(&[tensor("x", [9, 4], &[0.0; 36])]);
    let refused = SHARED.get().post_json("/v2/models/centred/infer", &nine);
    assert_eq!((refused.status, refused.text().contains("1 to 8 rows")), (400, true), "{}", refused.text());
}

fn infer_rows(model: &str, data: &[f64]) -> (Value, Vec<f64>) {
    infer(model, &[tensor("x", [data.len() / 4, 4], data)])
}

fn batching(model: &str) -> Value {
    SHARED.get().get(&format!("/admin/models/{model}")).json()["batching"].clone()
}

#[test]
fn a_model_says_whether_its_rows_are_joined_and_why_not() {
    let _server = SHARED.get();
    for name in ["double", "half", "encoder"] {
        assert_eq!(batching(name)["rows_joined"], true, "{name}: {}", batching(name));
    }
    let reason = |name: &str| batching(name)["rows_apart_because"].as_str().unwrap_or_default().to_owned();
    assert!(
        reason("towers").contains("\"batch\" counts rows and is also a later axis of scores"),
        "{}",
        reason("towers")
    );
    for name in ["centred", "running", "sorted", "int8"] {
        assert!(reason(name).contains("\"y\" of a row depends on the rows beside it"), "{name}: {}", reason(name));
    }
    assert!(reason("careless").contains("a text depends on the texts beside it"), "{}", reason("careless"));
    let line = SHARED.get().log_line("rows of several requests are not joined");
    assert!(line.contains("WARN") && line.contains("batching.max_batch_size is 8"), "{line}");
}

#[test]
fn texts_keep_their_vectors_whatever_is_asked_beside_them() {
    let _server = SHARED.get();
    let embed = |model: &str, texts: &[&str]| -> Vec<Vec<f64>> {
        let body = json!({ "model": model, "input": texts }).to_string();
        let answer = SHARED.get().post_json("/v1/embeddings", &body).json();
        let each = answer["data"].as_array().unwrap_or_else(|| panic!("{answer}")).iter();
        each.map(|one| one["embedding"].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect()).collect()
    };
    let texts = ["a", "cat 7 and more than that", "abc"];
    for model in ["encoder", "careless"] {
        let together = embed(model, &texts);
        for (text, vector) in texts.iter().zip(&together) {
            let alone = &embed(model, &[text])[0];
            let off = alone.iter().zip(vector).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(off < 1e-5, "{model}, {text:?}: {off}");
        }
    }
}

#[test]
fn rows_are_tried_before_a_change_joins_them() {
    let server = SHARED.get();
    let patch = |model: &str, body: &str| {
        let path = format!("/admin/models/{model}");
        server.ask(&Ask { method: "PATCH", ..post(&path, &[], body.as_bytes()) })
    };
    let change = |model: &str| patch(model, r#"{"batching": {"max_batch_size": 4}}"#);
    assert_eq!((&batching("single")["rows_joined"], &batching("alone")["rows_joined"]), (&json!(false), &json!(false)));
    let changed = change("single");
    assert_eq!((changed.status, batching("single")["rows_joined"].clone()), (200, json!(true)), "{}", changed.text());
    let refused = change("alone");
    assert_eq!(
        (refused.status, refused.text().contains("depends on the rows beside it")),
        (400, true),
        "{}",
        refused.text()
    );
    let odd = patch("single", r#"{"batching": {"join_rows": true}}"#);
    assert_eq!((odd.status, odd.text().contains("from the load on")), (400, true), "{}", odd.text());
}

fn caudal(arguments: &[&str], repo: &Repo) -> String {
    let output = Command::new(CAUDAL).args(arguments).arg("--model-repository").arg(repo.path("")).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn show_and_doctor_say_why_rows_are_not_joined() {
    let repo = Repo::new()
        .model("centred", "centred", "")
        .model("trusted", "centred", "batching: {join_rows: true}")
        .model("double", "double", "");
    let shown: Value = serde_json::from_str(&caudal(&["models", "show", "centred", "--json"], &repo)).unwrap();
    assert_eq!(shown["rows_joined"], false, "{shown}");
    assert!(shown["rows_apart_because"].as_str().unwrap().contains("depends on the rows beside it"), "{shown}");
    assert!(caudal(&["models", "show", "double"], &repo).contains("share a run, up to 32: trial runs"));
    assert!(caudal(&["models", "show", "trusted"], &repo).contains("as batching.join_rows says"));
    let doctor = caudal(&["models", "doctor"], &repo);
    assert!(doctor.contains("/centred") && doctor.contains("rows of several requests do not share a run"), "{doctor}");
    assert!(!doctor.contains("/trusted") && !doctor.contains("/double"), "{doctor}");
}
