//! What clients that others have written send, and what they can read: compressed bodies, `null` for what is left out,
//! numbers that JSON has none for, booleans of web frameworks.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    io::{Read, Write},
    time::{Duration, Instant},
};

use caudal_testkit::{
    Repo, Server, Shared, fixture,
    http::{Answer, Ask, form, get, post, tensor_request},
};
use flate2::{
    Compression,
    read::GzDecoder,
    write::{DeflateEncoder, GzEncoder, ZlibEncoder},
};
use serde_json::{Value, json};

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");

static SHARED: Shared = Shared::new(|| {
    let repo = Repo::nanodet("aliases: [small]").model("double", "double", "").encoder(
        "encoder",
        "encoder",
        "embedding: {max_tokens: 64}",
    );
    Server::start(CAUDAL, &repo, &["--max-file-size-mb", "1", "--header-timeout-secs", "1", "--data-dir", "data"])
});

fn bus() -> Vec<u8> {
    fixture("double_decker_bus.jpg")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn raw_deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Sends `body`, which is of `content_type`, as `encoding` says it is compressed.
fn send(path: &str, content_type: &str, encoding: &str, body: &[u8]) -> Answer {
    let headers = [("Content-Type", content_type), ("Content-Encoding", encoding)];
    SHARED.get().ask(&post(path, &headers, body))
}

fn refused(answer: &Answer, status: u16, code: &str, words: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{}", answer.text());
    let error = &answer.json()["error"];
    let said = format!("{}; {}", error["message"].as_str().unwrap(), error["hint"].as_str().unwrap());
    assert!(said.contains(words), "{said}");
}

/// What an answer below `/v2` says went wrong.
fn fault(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["error"].as_str().unwrap_or_default().to_owned())
}

fn infer(body: &str) -> Answer {
    SHARED.get().post_json("/v2/models/double/infer", body)
}

/// A request with one row of `data`, with more members beside it, of the input and of the request.
fn row(data: &str, of_input: &str, of_request: &str) -> String {
    format!(r#"{{"inputs":[{{"name":"x","shape":[1,4],"datatype":"FP32","data":{data}{of_input}}}]{of_request}}}"#)
}

#[test]
fn compressed_bodies_are_read_as_they_were_before() {
    let server = SHARED.get();
    let expected = server.post_picture("/predict/small", &bus()).json()["detections"].clone();
    let (content_type, multipart) = form(&[("file", Some("bus.jpg"), &bus())]);
    let tensor = tensor_request(&[[1.0, 2.0, 3.0, 4.0]], "");
    let text = r#"{"model": "encoder", "input": "a cat"}"#;
    type Packer = fn(&[u8]) -> Vec<u8>;
    let packers: [(&str, Packer); 4] = [("gzip", gzip), ("x-gzip", gzip), ("deflate", zlib), ("Deflate", raw_deflate)];
    for (encoding, pack) in packers {
        let raw = send("/predict/small", "image/jpeg", encoding, &pack(&bus()));
        assert_eq!(raw.json()["detections"], expected, "{encoding}: {}", raw.text());
        let sent = send("/predict/small", &content_type, encoding, &pack(&multipart));
        assert_eq!(sent.json()["detections"], expected, "{encoding}: {}", sent.text());
        let tensors = send("/v2/models/double/infer", "application/json", encoding, &pack(tensor.as_bytes()));
        assert_eq!(tensors.json()["outputs"][0]["data"], json!([2.0, 4.0, 6.0, 8.0]), "{encoding}");
        let vector = send("/v1/embeddings", "application/json", encoding, &pack(text.as_bytes()));
        assert_eq!(vector.status, 200, "{encoding}: {}", vector.text());
    }
}

#[test]
fn a_compressed_stream_of_events_is_read_as_it_comes() {
    let server = SHARED.get();
    let made = server.post_json("/consultations", r#"{"user_id": "ana", "patient_stub": null, "session_id": null}"#);
    let id = made.json()["consultation_id"].as_str().unwrap().to_owned();
    let event = r#"{"event_type": "MESSAGE_RECEIVED", "payload": {"message": "hello"}, "metadata": null}"#;
    let lines = format!("{event}\n").repeat(3000);
    let path = format!("/consultations/{id}/events/stream");
    let streamed = send(&path, "application/x-ndjson", "gzip", &gzip(lines.as_bytes()));
    assert_eq!((streamed.status, streamed.json()["appended"].as_u64()), (201, Some(3000)), "{}", streamed.text());
    let one = send(&format!("/consultations/{id}/events"), "application/json", "deflate", &zlib(event.as_bytes()));
    assert_eq!(one.status, 201, "{}", one.text());
    let cut = gzip(lines.as_bytes());
    let cut = send(&path, "application/x-ndjson", "gzip", &cut[..cut.len() - 9]);
    refused(&cut, 400, "invalid_request", "not valid gzip");
}

#[test]
fn an_encoding_that_is_not_supported_is_named_with_those_that_are() {
    for encoding in ["br", "zstd", "compress", "gzip, gzip", "gzip, br"] {
        for path in ["/predict/small", "/v1/embeddings", "/consultations"] {
            let answer = send(path, "application/json", encoding, b"whatever");
            refused(&answer, 415, "unsupported_encoding", &format!("Content-Encoding is {encoding:?}"));
            assert_eq!(answer.header("accept-encoding"), "gzip, deflate");
        }
    }
    let (status, words) = fault(&send("/v2/models/double/infer", "application/json", "br", b"x"));
    assert!(status == 415 && words.starts_with("unsupported_encoding: "), "{status} {words}");
    let plain = send("/predict/small", "image/jpeg", "gzip", &bus());
    refused(&plain, 400, "invalid_request", "not valid gzip: invalid gzip header");
    assert_eq!(send("/predict/small", "image/jpeg", "identity", &bus()).status, 200);
}

#[test]
fn a_body_that_unpacks_to_more_than_is_allowed_is_refused_early() {
    let server = SHARED.get();
    let bomb = gzip(&vec![0; 200 << 20]);
    assert!(bomb.len() < 1 << 20, "its length says nothing: {}", bomb.len());
    let before = server.peak();
    let began = Instant::now();
    for (path, media) in [("/predict/small", "image/jpeg"), ("/v1/embeddings", "application/json")] {
        let answer = send(path, media, "gzip", &bomb);
        refused(&answer, 413, "body_too_large", "larger than the 1 MiB allowed");
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(server.peak() < before + (64 << 20), "{} MiB more", (server.peak() - before) >> 20);
    assert_eq!(server.post_picture("/predict/small", &bus()).status, 200);
}

#[test]
fn a_limit_is_told_as_it_was_set() {
    let server = SHARED.get();
    let picture = vec![0; (1 << 20) + (100 << 10)];
    refused(&server.post_picture("/predict/small", &picture), 413, "body_too_large", "larger than the 1 MiB allowed");
    let sent = server.post_form("/predict/small", &[("file", Some("a.jpg"), &picture)]);
    refused(&sent, 413, "body_too_large", "larger than the 1 MiB allowed");
}

#[test]
fn long_answers_are_compressed_for_who_accepts_it() {
    let server = SHARED.get();
    let ask = |path: &str, accepts: &str| server.ask(&Ask { headers: &[("Accept-Encoding", accepts)], ..get(path) });
    let unpacked = |answer: &Answer| {
        let mut whole = String::new();
        GzDecoder::new(&answer.body[..]).read_to_string(&mut whole).unwrap();
        whole
    };
    for path in ["/metrics", "/openapi.json", "/docs/swagger-ui.css"] {
        let (plain, packed) = (ask(path, "identity"), ask(path, "gzip, deflate, br"));
        assert_eq!((plain.header("content-encoding"), packed.header("content-encoding")), ("", "gzip"), "{path}");
        assert_eq!(packed.header("vary"), "accept-encoding", "{path}");
        assert_eq!(plain.header("vary"), "accept-encoding", "{path}: caches must know");
        assert!(packed.body.len() * 2 < plain.body.len(), "{path}: {} of {}", packed.body.len(), plain.body.len());
        assert_eq!(unpacked(&packed).lines().next(), plain.text().lines().next(), "{path}");
    }
    let described: Value = serde_json::from_str(&unpacked(&ask("/openapi.json", "gzip"))).unwrap();
    assert_eq!(described, server.get("/openapi.json").json());
    assert_eq!(ask("/health", "gzip").header("content-encoding"), "gzip");
    for accepts in ["gzip;q=0", "identity, gzip;q=0.5", "br"] {
        assert_eq!(ask("/metrics", accepts).header("content-encoding"), "", "{accepts}");
    }
    assert_eq!(ask("/livez", "gzip").header("content-encoding"), "", "short");
    let headers = [("Accept-Encoding", "gzip"), ("Content-Type", "application/json")];
    let request = tensor_request(&[[1.0; 4]; 300], "");
    let packed = server.ask(&post("/v2/models/double/infer", &headers, request.as_bytes()));
    assert_eq!(packed.header("content-encoding"), "gzip", "a client that names gzip alone wants it");
    let tensors: Value = serde_json::from_str(&unpacked(&packed)).unwrap();
    assert_eq!(tensors["outputs"][0]["data"].as_array().unwrap().len(), 1200);
    let usual = [("Accept-Encoding", "gzip, deflate"), ("Content-Type", "application/json")];
    let plain = server.ask(&post("/v2/models/double/infer", &usual, request.as_bytes()));
    assert_eq!(plain.header("content-encoding"), "", "numbers, of which gzip makes little less");
    let drawn = server.ask(&post("/predict/small?draw=1", &[("Accept-Encoding", "gzip")], &bus()));
    assert_eq!((drawn.status, drawn.header("content-encoding")), (200, ""));
}

#[test]
fn null_is_as_good_as_absent() {
    let server = SHARED.get();
    let nulls = [
        row("[1,2,3,4]", r#","parameters":null"#, r#","id":null,"parameters":null,"outputs":null"#),
        row(
            "[1,2,3,4]",
            "",
            r#","parameters":{"priority":null,"timeout":null},"outputs":[{"name":"y","parameters":null}]"#,
        ),
    ];
    for body in nulls {
        assert_eq!(infer(&body).status, 200, "{body}: {}", infer(&body).text());
    }
    let members = r#"{"model": "encoder", "input": "a", "encoding_format": null, "dimensions": null, "user": null, "truncate": null}"#;
    assert_eq!(server.post_json("/v1/embeddings", members).status, 200);
}

#[test]
fn null_is_as_good_as_absent_for_who_administers_too() {
    let repo = Repo::new().model("double", "double", "");
    let server = Server::start(CAUDAL, &repo, &[]);
    for (path, body) in [
        ("/v2/repository/index", r#"{"ready": null}"#),
        ("/v2/repository/index", "null"),
        ("/admin/memory/cleanup", r#"{"idle_secs": null}"#),
    ] {
        let answer = server.post_json(path, body);
        assert_eq!(answer.status, 200, "{path} {body}: {}", answer.text());
        let packed = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")];
        assert_eq!(server.ask(&post(path, &packed, &gzip(body.as_bytes()))).status, 200, "{path} {body} compressed");
    }
    let change = Ask {
        method: "PATCH",
        path: "/admin/models/double",
        headers: &[],
        body: Some(br#"{"thresholds": null, "batching": {"max_queue_size": null}, "instances": null}"#),
    };
    let answer = server.ask(&change);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn floats_that_json_has_no_numbers_for_go_in_and_come_out() {
    let written = "[\"NaN\",\"Infinity\",\"-Infinity\",2.0]";
    for data in ["[NaN, Infinity, -Infinity, 1]", r#"["NaN", "Infinity", "-Infinity", 1.0]"#] {
        let answer = infer(&row(data, "", r#","id":"NaN""#));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.text().contains(written), "{}", answer.text());
        assert_eq!(answer.json()["id"], "NaN");
    }
    // Twice the largest number is infinite.
    let answer = infer(&row("[3e38, -3e38, 0, 0]", "", ""));
    assert_eq!(answer.json()["outputs"][0]["data"], json!(["Infinity", "-Infinity", 0.0, 0.0]));
    for (data, words) in [
        ("[1,2,3,null]", "input \"x\": element 3 is null, but the type is FP32"),
        ("[1,2,\"3\",4]", "element 2 is \"3\", but the type is FP32"),
        ("[1,2,3,1e39]", "element 3 is 1e39, but the type is FP32"),
        ("[nan,2,3,4]", "not an inference request"),
    ] {
        let (status, said) = fault(&infer(&row(data, "", "")));
        assert!(status == 400 && said.contains(words), "{data}: {said}");
    }
}

#[test]
fn whole_numbers_may_be_written_as_floats() {
    let ask = |first: &str| {
        let input =
            |name: &str, data: &str| format!(r#"{{"name":"{name}","shape":[1,3],"datatype":"INT64","data":{data}}}"#);
        let inputs = [
            input("input_ids", &format!("[{first},4.0,2]")),
            input("attention_mask", "[1.0,1.0,1.0]"),
            input("token_type_ids", "[0,0.0,-0.0]"),
        ];
        SHARED.get().post_json("/v2/models/encoder/infer", &format!(r#"{{"inputs":[{}]}}"#, inputs.join(",")))
    };
    assert_eq!(ask("1.0").json()["outputs"], ask("1").json()["outputs"]);
    assert_eq!(ask("1.0").status, 200);
    let (status, words) = fault(&ask("0.5"));
    assert!(status == 400 && words.contains("input \"input_ids\": element 0 is 0.5, but the type is INT64"), "{words}");
}

#[test]
fn what_tritons_clients_ask_for_and_would_not_get_is_refused_by_name() {
    for (of_input, of_request, words) in [
        ("", r#","parameters":{"sequence_id":7}"#, "\"sequence_id\""),
        ("", r#","parameters":{"sequence_start":true}"#, "\"sequence_start\""),
        ("", r#","parameters":{"my":1}"#, "\"my\", which is not supported"),
        (
            "",
            r#","outputs":[{"name":"y","parameters":{"classification":3}}]"#,
            "output \"y\" has the parameter \"classification\"",
        ),
        (r#","parameters":{"shared_memory_region":"r"}"#, "", "shared memory is not supported"),
    ] {
        let (status, said) = fault(&infer(&row("[1,2,3,4]", of_input, of_request)));
        assert!(status == 400 && said.contains(words), "{words}: {status} {said}");
    }
    let usual =
        r#","parameters":{"binary_data_output":false},"outputs":[{"name":"y","parameters":{"binary_data":true}}]"#;
    assert_eq!(infer(&row("[1,2,3,4]", "", usual)).status, 200);
}

#[test]
fn members_that_are_not_known_are_refused_with_the_one_that_may_be_meant() {
    for (of_input, of_request, words) in [
        ("", r#","output":[{"name":"y"}]"#, "\"output\", which is not known; did you mean \"outputs\"?"),
        ("", r#","paramters":{"timeout":1}"#, "did you mean \"parameters\"?"),
        (r#","dtype":"FP32""#, "", "an input has the member \"dtype\""),
        ("", r#","outputs":[{"name":"y","class_count":3}]"#, "an output has the member \"class_count\""),
        ("", r#","model_name":"encoder""#, "\"model_name\" is \"encoder\", and the path asks for \"double\""),
        ("", r#","model_version":"9""#, "\"model_version\" is \"9\""),
    ] {
        for data in ["[1,2,3,4]", "[NaN,2,3,4]"] {
            let (status, said) = fault(&infer(&row(data, of_input, of_request)));
            assert!(status == 400 && said.contains(words), "{words}: {status} {said}");
        }
    }
    // KServe's client names the model in the body too.
    let named = row("[1,2,3,4]", "", r#","model_name":"double","model_version":"1""#);
    assert_eq!(infer(&named).status, 200, "{}", infer(&named).text());
    let server = SHARED.get();
    for (path, body, words) in [
        ("/v2/repository/index", r#"{"redy": true}"#, "did you mean \"ready\"?"),
        ("/v2/repository/models/double/load", r#"{"config": "{}"}"#, "\"config\""),
        ("/v2/repository/models/double/unload", r#"{"paramters": {}}"#, "did you mean \"parameters\"?"),
        ("/v2/repository/index?conf=0.5", "{}", "the parameter \"conf\" has no effect on this route"),
        ("/v2/repository/models/double/load?model=x", "", "the parameter \"model\" has no effect"),
    ] {
        let (status, said) = fault(&server.post_json(path, body));
        assert!(status == 400 && said.contains(words), "{path} {body}: {status} {said}");
    }
    let answer = server.post_json("/admin/memory/cleanup?draw=true", "{}");
    refused(&answer, 400, "invalid_parameter", "the parameter \"draw\" has no effect");
}

#[test]
fn probes_answer_in_json_where_kserve_reads_it() {
    let server = SHARED.get();
    let ask = |path: &str, accept: &str| server.ask(&Ask { headers: &[("Accept", accept)], ..get(path) });
    for accept in ["*/*", "application/json"] {
        assert_eq!(ask("/v2/health/live", accept).json(), json!({"live": true}));
        assert_eq!(ask("/v2/health/ready", accept).json()["ready"], true);
        assert_eq!(ask("/v2/models/small/ready", accept).json()["ready"], true);
    }
    assert_eq!(ask("/livez", "application/json").json(), json!({"live": true}));
    assert_eq!(ask("/readyz", "application/json").json()["ready"], true);
    assert_eq!(
        (server.get("/livez").text(), server.get("/readyz").text()),
        ("live\n".to_owned(), "ready\n".to_owned())
    );
}

#[test]
fn models_are_told_one_by_one_and_there_is_no_chat() {
    let server = SHARED.get();
    assert_eq!(server.get("/v1/models/small").json()["id"], "small");
    assert_eq!(server.get("/v1/models/encoder").json()["object"], "model");
    refused(&server.get("/v1/models/openai/encodr"), 404, "model_not_found", "");
    refused(&server.get("/v1/models/encodr"), 404, "model_not_found", "did you mean");
    refused(&server.post_json("/v1/chat/completions", "{}"), 404, "not_found", "no chat models");
}

#[test]
fn fields_of_a_form_are_checked_as_the_query_is() {
    let server = SHARED.get();
    let bus = bus();
    let send = |query: &str, fields: &[(&str, Option<&str>, &[u8])]| {
        let parts = [&[("file", Some("bus.jpg"), &bus[..])], fields].concat();
        server.post_form(&format!("/predict/small{query}"), &parts)
    };
    let refuses = |query: &str, name: &str, value: &str, words: &str| {
        refused(&send(query, &[(name, None, value.as_bytes())]), 400, "invalid_parameter", words);
    };
    refuses("", "confidense", "0.5", "did you mean \"confidence\"?");
    refuses("", "flie", "x", "did you mean \"file\"?");
    refuses("?conf=0.9", "conf", "0.3", "given twice, as \"0.9\" and as \"0.3\"");
    refuses("?confidence=0.9", "conf", "0.3", "given twice");
    refuses("", "model", "double", "the path names the model \"small\"");
    refuses("", "timeout_ms", "0", "more than 0");
    let twice = send("?conf=0.8", &[("confidence", None, b"0.8"), ("resize", None, b"true")]);
    assert_eq!(twice.json()["detections"].as_array().unwrap().len(), 1, "{}", twice.text());
    assert_eq!(send("?model=nanodet", &[("model", None, b"nanodet")]).status, 200, "its own name and its alias");
    let other = server.post_picture("/predict/small?model=double", &bus);
    refused(&other, 400, "invalid_parameter", "leave the parameter model out");
}

#[test]
fn an_input_in_which_no_file_was_chosen_is_none() {
    let server = SHARED.get();
    let empty = ("images", Some(""), &b""[..]);
    let sent = server.post_form("/predict/small", &[("file", Some("bus.jpg"), &bus()), empty]);
    assert_eq!(sent.json()["status"], "success", "{}", sent.text());
    assert!(sent.json().get("detections").is_some(), "one picture, one answer");
    refused(&server.post_form("/predict/small", &[empty]), 400, "missing_file", "no file was chosen");
}

#[test]
fn booleans_are_read_as_web_frameworks_read_them() {
    let server = SHARED.get();
    for value in ["True", "on", "YES", "1", "t"] {
        let drawn = server.post_picture(&format!("/predict/small?draw={value}"), &bus());
        assert_eq!(drawn.header("content-type"), "image/jpeg", "{value}");
        assert_eq!(server.get(&format!("/admin/profiling/stats?recent={value}")).status, 200, "{value}");
    }
    for value in ["False", "off", "No", "0"] {
        let seen = server.post_picture(&format!("/predict/small?draw={value}"), &bus());
        assert_eq!(seen.header("content-type"), "application/json", "{value}");
    }
    refused(&server.get("/admin/profiling/stats?recent=maybe"), 400, "invalid_parameter", "true or false");
}

#[test]
fn a_wrong_method_is_told_the_right_one() {
    let server = SHARED.get();
    for (method, path, words) in [
        ("PUT", "/predict/small", "PUT is not allowed on /predict/small; use POST"),
        ("DELETE", "/consultations", "use POST or GET"),
        ("POST", "/metrics", "use GET"),
    ] {
        let answer = server.ask(&Ask { method, path, headers: &[], body: None });
        refused(&answer, 405, "method_not_allowed", words);
    }
}

#[test]
fn requests_that_cannot_be_read_get_an_answer_with_a_body() {
    let server = SHARED.get();
    let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(70_000));
    let headers = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X-A: b\r\n".repeat(200));
    let large = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Large: {}\r\n\r\n", "a".repeat(600 << 10));
    for (request, status, code) in [
        ("NONSENSE\r\n\r\n", 400, "invalid_request"),
        ("GET / HTTP/1.1\r\nHost : x\r\nbad header\r\n\r\n", 400, "invalid_request"),
        ("GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", 400, "invalid_request"),
        ("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: many\r\n\r\n", 400, "invalid_request"),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n", 400, "invalid_request"),
        (&long, 414, "uri_too_long"),
        (&headers, 431, "headers_too_large"),
        (&large, 431, "headers_too_large"),
    ] {
        // On a connection of its own, behind a request that is fine, and in one piece with such a one.
        let fine = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
        for (first, second) in [("", request), (fine, request), ("", &*format!("{fine}{request}"))] {
            let mut connection = server.connect();
            connection.send(first.as_bytes()).unwrap();
            if !first.is_empty() {
                assert_eq!(connection.read().unwrap().text(), "live\n");
            }
            let _ = connection.send(second.as_bytes());
            if second.len() > request.len() {
                assert_eq!(connection.read().unwrap().text(), "live\n");
            }
            let answer = connection.read().unwrap();
            // A path that is too long may fill what is read of a head first.
            let fills = answer.status == 431 && code == "uri_too_long";
            let (status, code) = if fills { (431, "headers_too_large") } else { (status, code) };
            refused(&answer, status, code, "");
            assert_eq!(answer.header("content-type"), "application/json");
            assert_eq!(answer.header("connection"), "close");
            assert_eq!(answer.header("x-request-id"), answer.json()["error"]["request_id"]);
        }
    }
    assert_eq!(server.get("/livez").status, 200);
}

#[test]
fn a_first_request_that_does_not_come_is_told_so() {
    let server = SHARED.get();
    let mut slow = server.connect();
    slow.send(b"POST /predict/small HTT").unwrap();
    refused(&slow.read().unwrap(), 408, "headers_timeout", "did not arrive within 1 s");
}

#[test]
fn a_client_of_http2_is_told_in_its_own_frames() {
    let server = SHARED.get();
    let mut connection = server.connect();
    connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut said = Vec::new();
    connection.stream().read_to_end(&mut said).unwrap();
    assert_eq!(said[..9], [0, 0, 0, 4, 0, 0, 0, 0, 0], "settings");
    assert_eq!((said[12], said[25]), (7, 13), "GOAWAY, HTTP_1_1_REQUIRED");
    assert!(String::from_utf8_lossy(&said).contains("HTTP/1.1"));
}
