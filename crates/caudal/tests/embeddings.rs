//! Texts in, vectors out, over a real server: `POST /v1/embeddings` in OpenAI's form.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{fs, os::unix::fs::symlink, process::Command, thread, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use caudal_testkit::{Repo, Server, Shared, f32_values, http::Answer, model_file};
use serde_json::{Value, json};

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");

/// What a text's vector may differ by, whatever it ran with.
const CLOSE: f64 = 1e-5;

static SHARED: Shared = Shared::new(|| {
    let repo = Repo::new()
        .encoder(
            "encoder",
            "encoder",
            "aliases: [text-embedding-3-small]\nembedding: {max_tokens: 64, allow_token_ids: true}",
        )
        .encoder("first", "encoder", "embedding: {max_tokens: 8, pooling: cls, normalize: false, truncate: true}")
        .encoder("texts", "encoder", "embedding: {max_tokens: 64}")
        .encoder("vector", "vector", "embedding: {normalize: false}")
        .encoder("tensors", "encoder", "kind: tensors")
        .model("double", "double", "");
    Server::start(CAUDAL, &repo, &[])
});

fn post(server: &Server, body: &Value) -> Answer {
    server.post_json("/v1/embeddings", &body.to_string())
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap_or_else(|| panic!("{value}")).iter().map(|number| number.as_f64().unwrap()).collect()
}

/// The vectors of an answer, whose places must be in order.
fn vectors(answer: &Answer) -> Vec<Vec<f64>> {
    let json = answer.json();
    assert_eq!((answer.status, &json["object"]), (200, &json!("list")), "{json}");
    let data = json["data"].as_array().unwrap();
    for (index, each) in data.iter().enumerate() {
        assert_eq!((&each["object"], &each["index"]), (&json!("embedding"), &json!(index)));
    }
    data.iter().map(|each| numbers(&each["embedding"])).collect()
}

fn embed(server: &Server, model: &str, input: Value) -> Vec<Vec<f64>> {
    vectors(&post(server, &json!({ "model": model, "input": input })))
}

fn close(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < CLOSE)
}

/// What numpy says: `crates/testkit/models/make.py`.
fn expected() -> Vec<Value> {
    let file = fs::read(model_file("encoder").with_extension("expected.json")).unwrap();
    serde_json::from_slice(&file).unwrap()
}

#[test]
fn vectors_are_those_of_a_plain_reference_in_every_form_of_input() {
    let server = SHARED.get();
    let expected = expected();
    let texts: Vec<&Value> = expected.iter().map(|case| &case["text"]).collect();
    let ids: Vec<&Value> = expected.iter().map(|case| &case["ids"]).collect();
    for (from, input) in [("texts", json!(texts)), ("ids", json!(ids))] {
        for (vector, case) in embed(&server, "encoder", input).iter().zip(&expected) {
            assert!(close(vector, &numbers(&case["mean"])), "{from}: {vector:?}, not {case}");
        }
    }
    for case in &expected {
        assert!(
            close(&embed(&server, "encoder", case["text"].clone())[0], &numbers(&case["mean"])),
            "one text: {case}"
        );
        assert!(
            close(&embed(&server, "encoder", case["ids"].clone())[0], &numbers(&case["mean"])),
            "ids of one: {case}"
        );
    }
    let first = embed(&server, "first", json!(texts[0]));
    assert!(first[0].iter().zip(numbers(&expected[0]["cls"])).all(|(a, b)| (a - b).abs() < 2e-5), "{first:?}");
    assert_eq!(embed(&server, "vector", json!("abc")), [[5.0, (1 + 4 + 41 + 42 + 2) as f64]], "pooled in the graph");
}

#[test]
fn an_answer_names_its_model_counts_tokens_and_tells_its_stages() {
    let server = SHARED.get();
    let answer =
        post(&server, &json!({ "model": "text-embedding-3-small", "input": ["a", "cat"], "user": "somebody" }));
    let json = answer.json();
    assert_eq!(json["model"], "text-embedding-3-small");
    assert_eq!(json["usage"], json!({ "prompt_tokens": 3 + 5, "total_tokens": 3 + 5 }));
    for stage in ["decode", "infer", "encode", "total"] {
        assert!(answer.header("server-timing").contains(stage), "{}", answer.header("server-timing"));
    }
    assert!(!answer.header("x-request-id").is_empty());
}

#[test]
fn base64_holds_the_same_numbers() {
    let server = SHARED.get();
    let floats = embed(&server, "encoder", json!("a cat"));
    let coded = post(&server, &json!({ "model": "encoder", "input": "a cat", "encoding_format": "base64" })).json();
    let bytes = BASE64_STANDARD.decode(coded["data"][0]["embedding"].as_str().unwrap()).unwrap();
    let coded: Vec<f64> = f32_values(&bytes).into_iter().map(f64::from).collect();
    assert!(close(&coded, &floats[0]), "{coded:?}, {floats:?}");
}

#[test]
fn fewer_dimensions_are_the_first_ones_at_length_one() {
    let server = SHARED.get();
    let whole = embed(&server, "encoder", json!("a cat")).remove(0);
    let cut = vectors(&post(&server, &json!({ "model": "encoder", "input": "a cat", "dimensions": 4 }))).remove(0);
    let length = whole[..4].iter().map(|value| value * value).sum::<f64>().sqrt();
    let wanted: Vec<f64> = whole[..4].iter().map(|value| value / length).collect();
    assert!(close(&cut, &wanted), "{cut:?}, not {wanted:?}");
    for dimensions in [0, 17] {
        let answer = post(&server, &json!({ "model": "encoder", "input": "a", "dimensions": dimensions }));
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_parameter"), "{}", answer.text());
        assert!(answer.text().contains("from 1 to 16"), "{}", answer.text());
    }
}

#[test]
fn many_texts_of_mixed_lengths_equal_those_texts_one_by_one() {
    let server = SHARED.get();
    let text = |i: usize| "abcdefg hij ".repeat(4)[..1 + i * 11 % 48].to_owned();
    let texts: Vec<String> = (0..100).map(text).collect();
    let together = embed(&server, "encoder", json!(texts));
    for (text, vector) in texts.iter().zip(&together) {
        assert!(close(&embed(&server, "encoder", json!(text))[0], vector), "{text}");
    }
    assert!(server.metric("caudal_batch_tokens_sum", "model=\"encoder\"") > 0.0);
    let batches = server.metric("model_inference_batch_size_count", "model=\"encoder\"");
    let rows = server.metric("model_inference_batch_size_sum", "model=\"encoder\"");
    assert!(rows > batches, "texts share runs: {rows} in {batches}");
}

#[test]
fn texts_that_are_too_long_are_refused_or_cut_as_is_said() {
    let server = SHARED.get();
    let long = "a ".repeat(100);
    let answer = post(&server, &json!({ "model": "encoder", "input": ["a", long] }));
    assert_eq!((answer.status, answer.code().as_str()), (400, "text_too_long"), "{}", answer.text());
    assert!(answer.text().contains("input 1 has 102 tokens; the model accepts 64"));
    let cut = post(&server, &json!({ "model": "encoder", "input": long, "truncate": true }));
    assert_eq!(cut.json()["usage"]["prompt_tokens"], 64);
    assert!(close(&vectors(&cut)[0], &embed(&server, "encoder", json!("a ".repeat(62)))[0]));
    let endless = post(&server, &json!({ "model": "encoder", "input": "a ".repeat(1 << 19), "truncate": true }));
    assert_eq!(endless.json()["usage"]["prompt_tokens"], 64, "{}", endless.text());
    assert_eq!(post(&server, &json!({ "model": "encoder", "input": "a ".repeat(1 << 19) })).code(), "text_too_long");
    // Its settings say that texts are cut.
    let first = post(&server, &json!({ "model": "first", "input": long }));
    assert_eq!(first.json()["usage"]["prompt_tokens"], 8);
    assert_eq!(post(&server, &json!({ "model": "first", "input": long, "truncate": false })).code(), "text_too_long");
}

#[test]
fn what_cannot_be_is_said_and_the_server_lives() {
    let server = SHARED.get();
    let check = |body: Value, status: u16, code: &str, words: &str| {
        let answer = post(&server, &body);
        let told = answer.text();
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{told}");
        assert!(told.contains(words), "{told}");
    };
    let body = |input: Value| json!({ "model": "encoder", "input": input });
    check(body(json!("")), 400, "invalid_parameter", "input 0 is empty");
    check(body(json!([])), 400, "invalid_parameter", "input is empty");
    check(body(json!([[]])), 400, "invalid_parameter", "input 0 is empty");
    check(body(json!([["a"]])), 400, "invalid_request", "input is a text, a list of texts");
    check(
        body(json!([1, 76])),
        400,
        "invalid_parameter",
        "input 0 has the token 76, which is not in the model's vocabulary of 76",
    );
    check(body(json!([1, 4_294_967_295_u32])), 400, "invalid_parameter", "not in the model's vocabulary");
    check(body(json!(vec!["a"; 2049])), 400, "too_many_parts", "a request may bring 2048");
    check(json!({ "input": "a" }), 400, "invalid_request", "missing field `model`");
    check(json!({ "model": "encode", "input": "a" }), 404, "model_not_found", "did you mean");
    check(json!({ "model": "double", "input": "a" }), 400, "wrong_task", "does not make vectors of texts");
    check(json!({ "model": "tensors", "input": "a" }), 400, "wrong_task", "does not make vectors of texts");
    check(json!({ "model": "encoder", "input": "a", "dimension": 4 }), 400, "invalid_parameter", "dimensions");
    assert_eq!(server.post_json("/v1/embeddings", "{").code(), "invalid_request");
    assert_eq!(server.post_json("/v1/embeddings?colour=red", "{}").code(), "invalid_parameter");
    assert_eq!(server.post_picture("/predict/encoder", b"x").code(), "wrong_task");
    assert_eq!(embed(&server, "encoder", json!("a"))[0].len(), 16);
}

#[test]
fn token_ids_are_refused_unless_the_model_allows_them() {
    let server = SHARED.get();
    for ids in [json!([1, 4, 2]), json!([[1, 4, 2]]), json!([[32, 893], [374]])] {
        let answer = post(&server, &json!({ "model": "texts", "input": ids }));
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_parameter"), "{}", answer.text());
        for words in ["check_embedding_ctx_length=False", "embedding.allow_token_ids: true"] {
            assert!(answer.text().contains(words), "{}", answer.text());
        }
    }
    assert_eq!(post(&server, &json!({ "model": "encoder", "input": [1, 4, 2] })).status, 200);
}

#[test]
fn a_text_is_measured_in_tokens_and_not_in_bytes() {
    let server = SHARED.get();
    let plain = embed(&server, "texts", json!("a cat")).remove(0);
    for blank in [" ", "\n", "\t "] {
        let text = format!("{}a cat", blank.repeat(40_000));
        for truncate in [false, true] {
            let body = json!({ "model": "texts", "input": text, "truncate": truncate });
            let answer = post(&server, &body);
            assert!(close(&vectors(&answer)[0], &plain), "{blank:?} {truncate}");
            assert_eq!(answer.json()["usage"]["total_tokens"], 6, "{blank:?} {truncate}");
        }
    }
    let blob = post(&server, &json!({ "model": "texts", "input": "ä".repeat(100_000) }));
    assert_eq!(blob.json()["usage"]["total_tokens"], 3, "one word that is not known: {}", blob.text());
    let much = post(&server, &json!({ "model": "texts", "input": "cat ".repeat(1 << 20) }));
    assert_eq!((much.status, much.code().as_str()), (400, "text_too_long"));
    assert!(
        much.text().contains("has more than ") && much.text().contains("Set \\\"truncate\\\": true"),
        "{}",
        much.text()
    );
}

#[test]
fn members_of_other_servers_are_ignored_and_named() {
    let server = SHARED.get();
    let body =
        json!({ "model": "texts", "input": "a", "input_type": "query", "user": "u", "extra": {"a": [1]}, "n": null });
    let answer = post(&server, &body);
    let mut ignored: Vec<&str> = answer.header("x-ignored-fields").split(", ").collect();
    ignored.sort_unstable();
    assert_eq!((answer.status, &ignored[..]), (200, &["extra", "input_type", "user"][..]), "{}", answer.text());
    assert_eq!(post(&server, &json!({ "model": "texts", "input": "a" })).header("x-ignored-fields"), "");
    let typo = post(&server, &json!({ "model": "texts", "input": "a", "truncat": true }));
    assert!(typo.status == 400 && typo.text().contains("did you mean \\\"truncate\\\"?"), "{}", typo.text());
}

#[test]
fn tensors_of_a_text_model_run_as_they_are() {
    let server = SHARED.get();
    let tensor = |name: &str, data: Value| json!({ "name": name, "datatype": "INT64", "shape": [1, 3], "data": data });
    let inputs = [
        tensor("input_ids", json!([1, 4, 2])),
        tensor("attention_mask", json!([1, 1, 1])),
        tensor("token_type_ids", json!([0, 0, 0])),
    ];
    let answers = thread::scope(|scope| {
        let others = scope.spawn(|| (0..20).for_each(|_| drop(embed(&server, "encoder", json!(["a", "abc abc abc"])))));
        let ask = || server.post_json("/v2/models/encoder/infer", &json!({ "inputs": inputs }).to_string()).json();
        let answers: Vec<Value> = (0..20).map(|_| ask()).collect();
        others.join().unwrap();
        answers
    });
    for answer in answers {
        assert_eq!(answer["outputs"][0]["shape"], json!([1, 3, 16]), "{answer}");
    }
}

#[test]
fn a_small_request_does_not_wait_for_one_of_thousands_of_texts() {
    let settings = "embedding: {max_tokens: 64}\ninstances: 1\nbatching: {max_batch_tokens: 256, max_queue_size: 8}";
    let repo = Repo::new().encoder("encoder", "encoder", settings);
    let server = Server::start(CAUDAL, &repo, &[]);
    let large = json!({ "model": "encoder", "input": vec!["ab ".repeat(30); 2048] }).to_string();
    let small = json!({ "model": "encoder", "input": "a cat" }).to_string();
    thread::scope(|scope| {
        let crowd = scope.spawn(|| {
            let answer = server.post_json("/v1/embeddings", &large);
            assert_eq!(vectors(&answer).len(), 2048);
        });
        // The large one is under way, in more parts than may wait.
        while server.metric("caudal_queue_entries_total", "outcome=\"answered\"") < 8.0 {
            thread::sleep(Duration::from_millis(1));
        }
        let answered = (0..3).map(|_| server.post_json("/v1/embeddings", &small).status).collect::<Vec<_>>();
        assert_eq!(answered, [200; 3]);
        assert!(!crowd.is_finished(), "three small ones were answered, one after the other, before the large one");
        crowd.join().unwrap();
    });
    assert!(server.metric("model_inference_batch_size_count", "") >= 512.0, "no run had more than 256 tokens");
}

#[test]
fn models_are_listed_as_openai_lists_them() {
    let json = SHARED.get().get("/v1/models").json();
    let models = json["data"].as_array().unwrap();
    let names: Vec<&str> = models.iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(names, ["double", "encoder", "text-embedding-3-small", "first", "tensors", "texts", "vector"]);
    assert!(models.iter().all(|model| model["object"] == "model" && model["created"].as_u64() > Some(0)));
}

/// What `caudal models show odd` says of a model that does not load.
fn fault(repo: &Repo) -> String {
    let arguments = ["models", "show", "odd", "--model-repository"];
    let output = Command::new(CAUDAL).args(arguments).arg(repo.path("")).output().unwrap();
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_model_that_cannot_embed_says_why() {
    for (repo, words) in [
        (Repo::new().model("odd", "encoder", "kind: embed"), "there is no tokenizer.json"),
        (Repo::new().encoder("odd", "double", "kind: embed"), "it takes no texts"),
        (Repo::new().encoder("odd", "encoder", "embedding: {max_tokens: 100}"), "does not run with 100 tokens"),
        (Repo::new().encoder("odd", "encoder", "embedding: {max_tokens: 2}"), "each text gets 2 special tokens"),
        (Repo::new().encoder("odd", "vector", "embedding: {pooling: cls}"), "one vector a text"),
        (Repo::new().encoder("odd", "encoder", "embedding: {poolin: cls}"), "did you mean \"pooling\"?"),
        (
            Repo::new().model("odd", "encoder", "").file("odd/tokenizer.json", b"{\"model\": 1}"),
            "tokenizer.json is not a tokenizer",
        ),
        // Positions end at 64, and nothing says so.
        (Repo::new().encoder("odd", "encoder", ""), "does not run with 512 tokens"),
    ] {
        let said = fault(&repo);
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn a_tokenizer_elsewhere_is_not_read() {
    let repo = Repo::new().encoder("odd", "encoder", "").file("secret.json", b"{\"secret\": true}");
    fs::remove_file(repo.path("odd/tokenizer.json")).unwrap();
    symlink(repo.path("secret.json"), repo.path("odd/tokenizer.json")).unwrap();
    let said = fault(&repo);
    assert!(said.contains("it leads out of the model's folder") && !said.contains("secret\""), "{said}");
    let doctor = Command::new(CAUDAL).args(["models", "doctor", "--model-repository"]).arg(repo.path("")).output();
    let told = String::from_utf8(doctor.unwrap().stdout).unwrap();
    assert!(told.contains("copy the tokenizer.json of the model itself there"), "{told}");
}

#[test]
fn a_text_encoder_without_a_tokenizer_takes_tensors() {
    let repo = Repo::new().model("plain", "encoder", "");
    let arguments = ["models", "show", "plain", "--json", "--model-repository"];
    let output = Command::new(CAUDAL).args(arguments).arg(repo.path("")).output().unwrap();
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown["task"], "tensors", "{shown}");
}

#[test]
fn the_command_prints_a_vector_a_line() {
    let repo = Repo::new().encoder("encoder", "encoder", "embedding: {max_tokens: 64}");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(CAUDAL);
        command.arg("embed").args(arguments).arg("--model-repository").arg(repo.path("")).output().unwrap()
    };
    let output = run(&["Cat 7", "a"]);
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["text"]), (2, &json!("Cat 7")));
    assert!(close(&numbers(&lines[0]["embedding"]), &numbers(&expected()[0]["mean"])), "{lines:?}");
    assert_eq!(numbers(&lines[1]["embedding"]).len(), 16);
    assert_eq!(run(&["a", "--dimensions", "none"]).status.code(), Some(1));
}
