//! Whatever comes in, the answer is clear, and the server lives as before.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    io::Write,
    thread,
    time::{Duration, Instant},
};

use caudal_testkit::{
    Graph, Numbers, Repo, Server, Shared, fixture,
    http::{Answer, Ask, Connection, form, get, post, tensor_request},
};

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");

static SHARED: Shared = Shared::new(|| {
    let repo =
        Repo::nanodet("aliases: [small]").model("double", "double", "").model("broken", "double", "kind: detect");
    let table = Graph::default()
        .input("id", Numbers::I64, &[1])
        .floats("rows", &[3], &[0.0; 3])
        .node("Gather", &["rows", "id"], &["row"], &[])
        .output("row", Numbers::F32, &[1]);
    let zeros = Graph::default()
        .input("size", Numbers::I64, &[1])
        .node("ConstantOfShape", &["size"], &["zeros"], &[])
        .node("ReduceSum", &["zeros"], &["sum"], &[])
        .output("sum", Numbers::F32, &[1]);
    let repo = repo.file("table/1/model.onnx", &table.bytes()).file("zeros/1/model.onnx", &zeros.bytes());
    let limits = ["--body-timeout-secs", "1", "--header-timeout-secs", "1", "--model-run-memory-mb", "512"];
    Server::start(CAUDAL, &repo, &limits)
});

fn check(answer: &Answer, status: u16, code: &str) {
    let server = SHARED.get();
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{}", answer.text());
    let error = &answer.json()["error"];
    assert!(!error["message"].as_str().unwrap().is_empty());
    assert!(!error["hint"].as_str().unwrap().is_empty());
    assert_eq!(error["request_id"], answer.header("x-request-id"));
    let well = server.post_picture("/predict/small", &fixture("double_decker_bus.jpg"));
    assert_eq!(well.status, 200, "the server serves as before");
}

fn check_picture(picture: &[u8], status: u16, code: &str) {
    let server = SHARED.get();
    check(&server.post_picture("/predict/small", picture), status, code);
}

#[test]
fn bodies_without_a_picture() {
    let server = SHARED.get();
    check_picture(b"", 400, "empty_body");
    check(&server.post_form("/predict/small", &[("file", Some("empty.jpg"), b"")]), 400, "empty_body");
    check(&server.post_form("/predict/small", &[("photo", Some("a.jpg"), b"x")]), 400, "missing_file");
    check(&server.post_form("/predict/small", &[]), 400, "missing_file");
    let get = Ask { method: "GET", path: "/predict/small", headers: &[], body: None };
    check(&server.ask(&get), 405, "method_not_allowed");
    check(&server.post_json("/predict/small", "{}"), 415, "unsupported_media_type");
}

#[test]
fn pictures_that_are_none() {
    check_picture(b"this is only called .jpg", 415, "unsupported_image");
    let bus = fixture("double_decker_bus.jpg");
    check_picture(&bus[..bus.len() / 2], 400, "invalid_image");
    check_picture(&bus[..bus.len() - 2], 400, "invalid_image");
    check_picture(&bus[..30], 400, "invalid_image");
    let png = fixture("chelsea.png");
    check_picture(&png[..png.len() / 2], 400, "invalid_image");
    let mut flipped = png.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    check_picture(&flipped, 400, "invalid_image");
    let webp = fixture("odd/plain.webp");
    check_picture(&webp[..webp.len() / 2], 400, "invalid_image");
}

#[test]
fn pictures_that_are_too_large_are_refused_by_their_header() {
    let server = SHARED.get();
    let before = server.peak();
    check_picture(&fixture("odd/huge.png"), 413, "image_too_large");
    // The same in a JPEG: the frame header says 20,000 by 20,000, the rest is an ordinary picture.
    let mut jpeg = fixture("double_decker_bus.jpg");
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0x4e, 0x20, 0x4e, 0x20]);
    check_picture(&jpeg, 413, "image_too_large");
    assert!(server.peak() < before + (96 << 20), "no memory was taken for their pixels");
}

/// A PNG with a compressed text of a gigabyte before its pixels.
fn text_bomb() -> Vec<u8> {
    let mut text = b"Comment\0\0".to_vec();
    let mut encoder = flate2::write::ZlibEncoder::new(&mut text, flate2::Compression::fast());
    let zeros = vec![0; 1 << 20];
    (0..1024).for_each(|_| encoder.write_all(&zeros).unwrap());
    encoder.finish().unwrap();
    let mut chunk = b"zTXt".to_vec();
    chunk.extend(&text);
    let mut crc = flate2::Crc::new();
    crc.update(&chunk);
    let png = fixture("odd/one_pixel.png");
    let header_end = 8 + 4 + 4 + 13 + 4;
    [&png[..header_end], &(text.len() as u32).to_be_bytes(), &chunk, &crc.sum().to_be_bytes(), &png[header_end..]]
        .concat()
}

#[test]
fn a_text_of_a_gigabyte_is_never_unpacked() {
    let server = SHARED.get();
    let before = server.peak();
    let bomb = text_bomb();
    let began = Instant::now();
    let answer = server.post_picture("/predict/small", &bomb);
    assert_eq!(answer.status, 200, "the picture in it is fine: {}", answer.text());
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(server.peak() < before + (96 << 20));
}

#[test]
fn forms_that_are_none() {
    let server = SHARED.get();
    let (_, body) = form(&[("file", Some("a.jpg"), b"x")]);
    let wrong = [("Content-Type", "multipart/form-data; boundary=another")];
    check(&server.ask(&post("/predict/small", &wrong, &body)), 400, "invalid_request");
    let none = [("Content-Type", "multipart/form-data")];
    check(&server.ask(&post("/predict/small", &none, &body)), 400, "invalid_request");
    let right = [("Content-Type", "multipart/form-data; boundary=caudal-test-boundary")];
    check(&server.ask(&post("/predict/small", &right, &body[..body.len() - 10])), 400, "invalid_request");
    let parts = vec![("x", None, &b"1"[..]); 100_000];
    check(&server.post_form("/predict/small", &parts), 400, "too_many_parts");
    let pictures = vec![("images", None, &b"1"[..]); 65];
    check(&server.post_form("/predict/small", &pictures), 400, "too_many_parts");
}

#[test]
fn uploads_that_are_too_large_get_to_read_their_answer() {
    let server = SHARED.get();
    let body = vec![0; 51 << 20];
    let refused = server.ask(&post("/predict/small", &[("Content-Type", "image/jpeg")], &body));
    check(&refused, 413, "body_too_large");

    // Without a length, chunk by chunk, and read only at the end.
    let mut connection = server.connect();
    let chunked = [("Transfer-Encoding", "chunked")];
    connection.send_head(&Ask { method: "POST", path: "/predict/small", headers: &chunked, body: None }).unwrap();
    let chunk = [b"100000\r\n", &vec![0; 1 << 20][..], b"\r\n"].concat();
    let sent = (0..51).try_for_each(|_| connection.send(&chunk)).and_then(|()| connection.send(b"0\r\n\r\n"));
    sent.expect("the server reads on while it refuses");
    check(&connection.read().unwrap(), 413, "body_too_large");

    // curl asks first for anything that large.
    let mut polite = server.connect();
    polite
        .send_head(&Ask {
            method: "POST",
            path: "/predict/small",
            headers: &[("Expect", "100-continue"), ("Content-Length", "53477376")],
            body: None,
        })
        .unwrap();
    check(&polite.read().unwrap(), 413, "body_too_large");
}

#[test]
fn rest_of_a_refused_body_is_no_slow_head() {
    let server = SHARED.get();
    let mut connection = server.connect();
    let length = [("Content-Length", "80")];
    connection.send_head(&Ask { method: "POST", path: "/predict/none", headers: &length, body: None }).unwrap();
    check(&connection.read().unwrap(), 404, "model_not_found");
    // Longer than a head may take, and never silent.
    for _ in 0..8 {
        thread::sleep(Duration::from_millis(300));
        connection.send(&[0; 10]).unwrap();
    }
    assert_eq!(connection.ask(&get("/livez")).unwrap().status, 200, "the connection is as good as before");
}

#[test]
fn names_and_values_that_are_wrong() {
    let server = SHARED.get();
    let bus = fixture("double_decker_bus.jpg");
    let unknown = server.post_picture("/predict/smoll", &bus);
    check(&unknown, 404, "model_not_found");
    assert!(unknown.text().contains("did you mean \\\"small\\\"?"), "{}", unknown.text());
    check(&server.post_picture("/predict/broken", &bus), 503, "model_not_ready");
    check(&server.post_picture("/predict/double", &bus), 400, "wrong_task");
    check(&server.get("/no/such/path"), 404, "not_found");
    for query in [
        "conf=2",
        "conf=x",
        "conf=NaN",
        "iou=-1",
        "max_det=0",
        "max_det=1.5",
        "classes=unicorn",
        "classes=80",
        "draw=maybe",
        "timeout_ms=soon",
        "priority=urgent",
        "cnof=0.5",
        "conf=0.1&conf=0.2",
    ] {
        check(&server.post_picture(&format!("/predict/small?{query}"), &bus), 400, "invalid_parameter");
    }
}

#[test]
fn a_deadline_that_passes_at_once() {
    let server = SHARED.get();
    let bus = fixture("double_decker_bus.jpg");
    check(&server.post_picture("/predict/small?timeout_ms=0.001", &bus), 504, "deadline_exceeded");
    for query in ["timeout_ms=0", "timeout_ms=0.001&conf=null", "conf=null&timeout_ms=0"] {
        check(&server.post_picture(&format!("/predict/small?{query}"), &bus), 400, "invalid_parameter");
    }
}

#[test]
fn tensors_that_do_not_fit() {
    let server = SHARED.get();
    let check = |request: &str, status: u16, words: &str| {
        let answer = server.post_json("/v2/models/double/infer", request);
        let error = answer.json()["error"].as_str().unwrap_or_default().to_owned();
        assert_eq!(answer.status, status, "{error}");
        assert!(error.contains(words), "{error}");
    };
    let input = |name: &str, shape: &str, datatype: &str, data: &str| {
        format!(r#"{{"inputs":[{{"name":"{name}","shape":{shape},"datatype":"{datatype}","data":{data}}}]}}"#)
    };
    check("", 400, "empty_body");
    check("{", 400, "not an inference request");
    check("{}", 400, "inputs");
    check(&input("z", "[1,4]", "FP32", "[1,2,3,4]"), 400, "no input \"z\"; it takes x FP32 [n, 4]");
    check(r#"{"inputs":[]}"#, 400, "x FP32 [n, 4] is missing");
    check(&input("x", "[1,5]", "FP32", "[1,2,3,4,5]"), 400, "cannot have the shape [1, 5]");
    check(&input("x", "[1,4]", "FP32", "[1,2,3]"), 400, "12 bytes of data, its shape says 16");
    check(&input("x", "[1,4]", "INT64", "[1,2,3,4]"), 400, "is FP32, not INT64");
    check(&input("x", "[1,4]", "float", "[1,2,3,4]"), 400, "datatype is one of");
    check(&input("x", "[1,4]", "FP32", "[1,2,3,null]"), 400, "element 3 is null");
    check(&input("x", "[1,-4]", "FP32", "[1,2,3,4]"), 400, "not an inference request");
    check(&input("x", "[4611686018427387904,4]", "FP32", "[1,2,3,4]"), 400, "cannot have the shape");
    check(&input("x", "[0,4]", "FP32", "[]"), 400, "rows");
    check(&input("x", "[1,4]", "BYTES", r#"["a","b","c","d"]"#), 400, "is FP32, not BYTES");
    check(&tensor_request(&[[1.0; 4]; 1025], ""), 400, "1 to 1024 rows");
    let deep = format!("{{\"inputs\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    check(&deep, 400, "not an inference request");
    let deep_data = input("x", "[1,4]", "FP32", &format!("{}1,2,3,4{}", "[".repeat(10_000), "]".repeat(10_000)));
    check(&deep_data, 200, "");
    let binary = [("Inference-Header-Content-Length", "10")];
    assert_eq!(server.ask(&post("/v2/models/double/infer", &binary, b"0123456789")).status, 415);
    assert_eq!(server.post_json("/v2/models/none/infer", "{}").status, 404);
}

#[test]
fn values_on_which_a_model_fails_are_told_and_not_logged() {
    let server = SHARED.get();
    let body = r#"{"inputs": [{"name": "id", "shape": [1], "datatype": "INT64", "data": [19700101]}]}"#;
    let failed = server.post_json("/v2/models/table/infer", body);
    assert_eq!((failed.status, failed.text().contains("19700101")), (500, true), "{}", failed.text());
    let line = server.log_line("/v2/models/table/infer failed");
    assert!(line.contains("Gather"), "the log says where: {line}");
    assert!(!server.log().contains("19700101"), "{}", server.log());
}

#[test]
fn memory_of_a_run_that_follows_from_values_has_a_limit() {
    let server = SHARED.get();
    let ask = |size: u64| {
        let tensor = format!(r#"{{"name": "size", "shape": [1], "datatype": "INT64", "data": [{size}]}}"#);
        server.post_json("/v2/models/zeros/infer", &format!(r#"{{"inputs": [{tensor}]}}"#))
    };
    let failed = ask(1 << 30);
    assert_eq!((failed.status, failed.text().contains("model_run_memory_mb")), (500, true), "{}", failed.text());
    assert!(server.peak() < 2 << 30, "none of the 4 GiB was taken: {}", server.peak());
    assert_eq!(ask(1 << 10).status, 200);
}

#[test]
fn clients_that_go_or_dawdle() {
    let server = SHARED.get();
    let head =
        |length: &str| format!("POST /predict/small HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
    // Gone in the middle of the upload.
    for _ in 0..20 {
        let mut connection = server.connect();
        connection.send(format!("{}half", head("1000")).as_bytes()).unwrap();
    }
    // Silent in the middle of the upload: told so after a second.
    let mut slow = server.connect();
    slow.send(format!("{}half", head("1000")).as_bytes()).unwrap();
    check(&slow.read().unwrap(), 408, "body_timeout");
    // Silent in the middle of the head: told so, and cut off without a word where that would follow another answer.
    for answers in [0, 1] {
        let mut slower = server.connect();
        for _ in 0..answers {
            slower.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            assert_eq!(slower.read().unwrap().status, 200);
        }
        slower.send(b"POST /predict/small HTT").unwrap();
        let began = Instant::now();
        match slower.read() {
            Ok(answer) => assert_eq!((answer.status, answers), (408, 0)),
            Err(_) => assert_eq!(answers, 1),
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
}

#[test]
fn values_that_are_too_long_cost_nothing() {
    let server = SHARED.get();
    let bus = fixture("double_decker_bus.jpg");
    let long = vec![b'x'; 1 << 20];
    for name in ["classes", "conf", "timeout_ms", "priority"] {
        let began = Instant::now();
        let answer = server.post_form("/predict/small", &[("file", Some("a.jpg"), &bus), (name, None, &long)]);
        check(&answer, 400, "invalid_parameter");
        assert!(answer.body.len() < 1000, "{} bytes of error", answer.body.len());
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
    check(
        &server.post_picture(&format!("/predict/small?classes={}", "y".repeat(3000)), &bus),
        400,
        "invalid_parameter",
    );
    check(&server.post_picture(&format!("/predict/{}", "m".repeat(3000)), &bus), 404, "model_not_found");
    check(&server.post_picture("/predict/%FF", &bus), 400, "invalid_request");
}

#[test]
fn what_is_too_long_to_be_drawn_is_said_before_it_is_worked_on() {
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, 70_000, 4);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(&vec![90; 280_000]).unwrap();
    let server = SHARED.get();
    check(&server.post_picture("/predict/small?draw=true", &png), 413, "image_too_large");
    assert_eq!(server.post_picture("/predict/small", &png).status, 200);
}

#[test]
fn an_output_is_given_once() {
    let server = SHARED.get();
    let twice = tensor_request(&[[1.0; 4]], "").replace("]}]}", "]}],\"outputs\":[{\"name\":\"y\"},{\"name\":\"y\"}]}");
    let answer = server.post_json("/v2/models/double/infer", &twice);
    assert_eq!((answer.status, answer.text().contains("asked for twice")), (400, true), "{}", answer.text());
    let much = r#"{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4,5]}]}"#;
    let answer = server.post_json("/v2/models/double/infer", much);
    assert_eq!((answer.status, answer.text().contains("more elements than the 4")), (400, true), "{}", answer.text());
}

#[test]
fn a_few_uploads_that_take_their_time_do_not_keep_the_others_waiting() {
    let server = Server::start(CAUDAL, &Repo::nanodet(""), &[]);
    let head = "POST /predict/nanodet HTTP/1.1\r\nHost: localhost\r\nContent-Length: 52000000\r\n\r\nha";
    let mut dawdlers: Vec<Connection> = (0..8).map(|_| server.connect()).collect();
    for dawdler in &mut dawdlers {
        dawdler.send(head.as_bytes()).unwrap();
    }
    let began = Instant::now();
    assert_eq!(server.post_picture("/predict/nanodet", &fixture("double_decker_bus.jpg")).status, 200);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn memory_is_flat_under_bad_input() {
    let server = Server::start(CAUDAL, &Repo::nanodet("aliases: [small]"), &[]);
    let bus = fixture("double_decker_bus.jpg");
    let (text, half, huge) = (b"text".to_vec(), bus[..bus.len() / 2].to_vec(), fixture("odd/huge.png"));
    let round = |times: usize| {
        let mut connection = server.connect();
        for _ in 0..times {
            for picture in [&text, &half, &huge] {
                let answer = connection.ask(&post("/predict/small", &[], picture)).unwrap();
                assert!((400..500).contains(&answer.status));
            }
            drop(std::mem::replace(&mut connection, server.connect()));
        }
    };
    round(20);
    let before = server.resident();
    round(150);
    let after = server.resident();
    assert!(after < before + (16 << 20), "{} MiB became {} MiB", before >> 20, after >> 20);
}
