//! The routes as their users know them, over a real server with the demo detector.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use caudal_testkit::{
    Repo, Server, Shared, fixture,
    http::{Ask, post, tensor_request},
};
use serde_json::Value;

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");

static SHARED: Shared = Shared::new(|| {
    let repo = Repo::nanodet("aliases: [small]").model("double", "double", "").model("free", "free", "");
    Server::start(CAUDAL, &repo, &["--slow-request-threshold-ms", "1"])
});

fn bus() -> Vec<u8> {
    fixture("double_decker_bus.jpg")
}

fn classes(answer: &Value) -> Vec<&str> {
    answer["detections"].as_array().unwrap().iter().map(|found| found["class"].as_str().unwrap()).collect()
}

#[test]
fn a_picture_is_taken_in_every_form_that_people_send() {
    let server = SHARED.get();
    let bus = bus();
    let raw = server.post_picture("/predict/nanodet?conf=0.5", &bus);
    assert_eq!(classes(&raw.json()), ["bus", "car", "person", "car"]);
    for field in ["file", "image", "images"] {
        let form = server.post_form("/predict/small?conf=0.5", &[(field, Some("bus.jpg"), &bus)]);
        assert_eq!(form.json()["detections"], raw.json()["detections"], "{field}");
    }
    let untyped = server.ask(&post("/predict/nanodet?conf=0.5", &[], &bus));
    assert_eq!(untyped.json()["detections"], raw.json()["detections"]);
    let curl = [("Content-Type", "application/x-www-form-urlencoded")];
    assert_eq!(server.ask(&post("/predict/nanodet?conf=0.5", &curl, &bus)).status, 200);
}

#[test]
fn an_answer_says_what_where_how_sure_and_how_long() {
    let server = SHARED.get();
    let answer = server.post_picture("/predict/small", &bus());
    let json = answer.json();
    assert_eq!((json["model"].as_str(), json["version"].as_str()), (Some("nanodet"), Some("1")));
    assert_eq!(json["image_size"], serde_json::json!({ "width": 546, "height": 413 }));
    let first = &json["detections"][0];
    assert_eq!((first["class"].as_str(), first["class_id"].as_u64()), (Some("bus"), Some(5)));
    for name in ["x1", "y1", "x2", "y2", "confidence"] {
        assert!(first[name].is_f64(), "{name}: {first}");
    }
    let timings = json["timings_ms"].as_object().unwrap();
    let total = timings["total"].as_f64().unwrap();
    let sum: f64 = timings.iter().filter(|(name, _)| *name != "total").map(|(_, ms)| ms.as_f64().unwrap()).sum();
    assert!((sum - total).abs() < 0.02, "the stages leave no gap: {timings:?}");
    assert!(timings["infer"].as_f64().unwrap() > 1.0);
}

#[test]
fn every_answer_carries_its_time_and_its_name() {
    let server = SHARED.get();
    let picture = server.post_picture("/predict/small", &bus());
    let timing = picture.header("server-timing");
    for stage in ["receive", "wait", "decode", "queue", "prepare", "infer", "finish", "encode", "total"] {
        assert!(timing.contains(&format!("{stage};dur=")), "{timing}");
    }
    let broken = server.post_picture("/predict/small", &bus()[..9_000]);
    let (status, timing) = (broken.status, broken.header("server-timing"));
    assert!(status == 400 && ["receive", "wait", "decode"].iter().all(|stage| timing.contains(stage)), "{timing}");
    assert!(!timing.contains("queue"), "an error tells how far its request came: {timing}");
    for path in ["/health", "/v2/models/double", "/nowhere", "/docs/", "/openapi.json", "/metrics", "/livez"] {
        let answer = server.get(path);
        let time = answer.header("x-process-time");
        let number = time.strip_suffix("ms").and_then(|ms| ms.parse::<f64>().ok());
        assert!(number.is_some(), "{path}: X-Process-Time is {time:?}");
        assert!(answer.header("server-timing").contains("total;dur="), "{path}");
        assert_eq!(answer.header("x-request-id").len(), 16, "{path}");
    }
    let named = Ask { headers: &[("X-Request-ID", "my-trace-7")], ..caudal_testkit::http::get("/livez") };
    assert_eq!(server.ask(&named).header("x-request-id"), "my-trace-7");
}

#[test]
fn thresholds_and_classes_are_the_requests_own() {
    let server = SHARED.get();
    let count = |query: &str| classes(&server.post_picture(&format!("/predict/small{query}"), &bus()).json()).len();
    assert_eq!(count("?conf=0.8"), 1);
    assert_eq!(count("?conf=0.5&max_det=2"), 2);
    assert!(count("?conf=0.05") > count("?conf=0.25"));
    assert!(count("?conf=0.05&iou=1") > count("?conf=0.05&iou=0.45"));
    let only = server.post_picture("/predict/small?conf=0.3&classes=person,2", &bus()).json();
    assert!(classes(&only).iter().all(|class| ["person", "car"].contains(class)));
    assert!(classes(&only).len() >= 3);
}

#[test]
fn a_drawn_answer_is_a_jpeg_of_the_same_size() {
    let server = SHARED.get();
    let answer = server.post_picture("/predict/small?draw=true", &bus());
    assert_eq!((answer.status, answer.header("content-type")), (200, "image/jpeg"));
    let limits = caudal_vision_probe(&answer.body);
    assert_eq!(limits, (546, 413));
    assert_ne!(answer.body, bus());
}

/// Width and height out of a JPEG's frame header.
fn caudal_vision_probe(jpeg: &[u8]) -> (u16, u16) {
    let at = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    let number = |offset: usize| u16::from_be_bytes([jpeg[at + offset], jpeg[at + offset + 1]]);
    (number(7), number(5))
}

#[test]
fn several_pictures_succeed_and_fail_one_by_one() {
    let server = SHARED.get();
    let (bus, cat) = (bus(), fixture("chelsea.png"));
    let parts: [(&str, Option<&str>, &[u8]); 3] =
        [("images", Some("bus.jpg"), &bus), ("images", Some("note.txt"), b"hello"), ("images", Some("cat.png"), &cat)];
    for path in ["/predict/small", "/predict_batch/small"] {
        let answer = server.post_form(path, &parts);
        let json = answer.json();
        assert_eq!(answer.status, 200);
        assert_eq!(json["status"], "partial");
        assert_eq!([&json["total_images"], &json["processed_images"], &json["failed_images"]], [3, 2, 1]);
        assert_eq!(json["results"][1]["filename"], "cat.png");
        assert_eq!(json["results"][1]["image_index"], 2);
        assert_eq!(classes(&json["results"][1]), ["cat"]);
        assert_eq!(json["failures"][0]["image_index"], 1);
        assert_eq!(json["failures"][0]["error"]["code"], "unsupported_image");
        assert!(answer.header("server-timing").contains("infer;dur="), "{}", answer.header("server-timing"));
    }
    let one = server.post_form("/predict_batch/small", &[("images", Some("cat.png"), &cat)]).json();
    assert_eq!((&one["status"], &one["total_images"]), (&Value::from("success"), &Value::from(1)));
    let none = server.post_form("/predict_batch/small", &[("images", Some("note.txt"), b"hello")]);
    assert_eq!((none.status, none.json()["status"].as_str()), (415, Some("error")));
}

#[test]
fn the_video_systems_route_takes_everything_as_fields() {
    let server = SHARED.get();
    let bus = bus();
    let form = |fields: &[(&str, Option<&str>, &[u8])]| {
        server.post_form("/api/v1/inference/image", &[&[("file", Some("bus.jpg"), &bus[..])], fields].concat())
    };
    assert_eq!(classes(&form(&[]).json())[0], "bus", "the only detector needs no name");
    let named = form(&[("model", None, b"small"), ("confidence", None, b"0.8")]);
    assert_eq!(classes(&named.json()), ["bus"]);
    assert_eq!(form(&[("model", None, b"smoll")]).code(), "model_not_found");
    assert_eq!(form(&[("priority", None, b"bogus")]).code(), "invalid_parameter");
    assert_eq!(form(&[("timeout_ms", None, b"0.001")]).code(), "deadline_exceeded");
    assert_eq!(form(&[("model", None, b"double")]).code(), "wrong_task");
    assert_eq!(server.post_picture("/api/v1/inference/image?model=small", &bus).status, 200);
}

#[test]
fn formats_are_read_whatever_they_are_called() {
    let server = SHARED.get();
    for name in [
        "plain.webp",
        "plain.bmp",
        "animated.gif",
        "animated.webp",
        "cmyk.jpg",
        "grey.jpg",
        "palette.png",
        "progressive.jpg",
        "rgb16.png",
        "transparent.png",
    ] {
        let answer = server.post_picture("/predict/small?conf=0.4", &fixture(&format!("odd/{name}")));
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        assert_eq!(classes(&answer.json())[..1], ["person"], "{name}: {}", answer.text());
    }
    let dot = server.post_picture("/predict/small", &fixture("odd/one_pixel.png"));
    assert_eq!((dot.status, dot.json()["image_size"]["width"].as_u64()), (200, Some(1)));
}

#[test]
fn pictures_stand_upright_whichever_way_the_camera_was_held() {
    let server = SHARED.get();
    let boxes = |orientation: u32| {
        let picture = fixture(&format!("odd/orientation_{orientation}.jpg"));
        let json = server.post_picture("/predict/small?conf=0.6", &picture).json();
        assert_eq!(json["image_size"]["width"], 273, "orientation {orientation}");
        let corners = |found: &Value| ["x1", "y1", "x2", "y2"].map(|corner| found[corner].as_f64().unwrap());
        (classes(&json).join(","), json["detections"].as_array().unwrap().iter().map(corners).collect::<Vec<_>>())
    };
    let upright = boxes(1);
    assert_eq!(upright.0, "bus,car");
    for orientation in 2..=8 {
        let turned = boxes(orientation);
        assert_eq!(turned.0, upright.0, "orientation {orientation}");
        for (a, b) in turned.1.iter().flatten().zip(upright.1.iter().flatten()) {
            assert!((a - b).abs() < 4.0, "orientation {orientation}: {a} {b}");
        }
    }
}

#[test]
fn tensors_go_in_and_out() {
    let server = SHARED.get();
    let answer = server
        .post_json("/v2/models/double/infer", &tensor_request(&[[1.0, 2.0, 3.0, 4.0], [5.5, 6.0, 7.0, -8.0]], ""));
    let json = answer.json();
    assert_eq!(json["model_name"], "double");
    assert_eq!(json["model_version"], "1");
    let output = &json["outputs"][0];
    assert_eq!((output["name"].as_str(), output["datatype"].as_str()), (Some("y"), Some("FP32")));
    assert_eq!(output["shape"], serde_json::json!([2, 4]));
    assert_eq!(output["data"], serde_json::json!([2.0, 4.0, 6.0, 8.0, 11.0, 12.0, 14.0, -16.0]));
    assert!(json.get("id").is_none());
    let version =
        server.post_json("/v2/models/double/versions/1/infer", &tensor_request(&[[1.0; 4]], "\"priority\":1"));
    assert_eq!(version.status, 200);
}

#[test]
fn large_tensors_are_read_and_written_too() {
    let numbers: Vec<f32> = (0..50_000).map(|i| i as f32 * 0.37 - 1e4).collect();
    let tensor = |name| format!(r#"{{"name":"{name}","shape":[50000],"datatype":"FP32","data":{numbers:?}}}"#);
    let request = format!(r#"{{"inputs":[{},{}]}}"#, tensor("a"), tensor("b"));
    let json = SHARED.get().post_json("/v2/models/free/infer", &request).json();
    let sums = json["outputs"][0]["data"].as_array().unwrap();
    assert_eq!(sums.len(), numbers.len());
    assert!(sums.iter().zip(&numbers).all(|(sum, number)| sum.as_f64().unwrap() as f32 == number * 2.0));
    let broken = SHARED.get().post_json("/v2/models/free/infer", &request.replace("-10000.0", "ten"));
    assert_eq!((broken.status, broken.text().contains("invalid_request")), (400, true), "{}", broken.text());
}

#[test]
fn ids_come_back_and_outputs_can_be_chosen() {
    let server = SHARED.get();
    let request = r#"{"id":"q-1","inputs":[
        {"name":"b","shape":[3],"datatype":"FP32","data":[1,2,3]},
        {"name":"a","shape":[3],"datatype":"FP32","data":[[10],[20],[30]]}],
        "outputs":[{"name":"sum"}]}"#;
    let json = server.post_json("/v2/models/free/infer", request).json();
    assert_eq!(json["id"], "q-1");
    assert_eq!(json["outputs"][0]["data"], serde_json::json!([11.0, 22.0, 33.0]));
}

#[test]
fn models_and_server_tell_what_they_are() {
    let server = SHARED.get();
    let about = server.get("/v2").json();
    assert_eq!(about["name"], "caudal");
    let model = server.get("/v2/models/small").json();
    assert_eq!(model["name"], "nanodet");
    assert_eq!(model["versions"], serde_json::json!(["1"]));
    assert_eq!(
        model["inputs"][0],
        serde_json::json!({ "name": "images", "datatype": "FP32", "shape": [-1, 3, 416, 416] })
    );
    for path in [
        "/v2/health/live",
        "/v2/health/ready",
        "/livez",
        "/readyz",
        "/v2/models/double/ready",
        "/v2/models/double/versions/1/ready",
    ] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    assert_eq!(server.get("/v2/models/double/versions/2").status, 404);
}

#[test]
fn health_reports_what_is() {
    let server = SHARED.get();
    server.post_picture("/predict/small", &bus());
    let health = server.get("/health").json();
    assert_eq!(health["status"], "healthy");
    let memory = health["performance"]["memory_mb"].as_f64().unwrap();
    let resident = server.resident() as f64 / 1048576.0;
    assert!((memory - resident).abs() / resident < 0.25, "{memory} {resident}");
    assert!(health["performance"]["cpu_percent"].is_f64());
    assert!(health["performance"]["optimizations"]["backend"].as_str().unwrap().contains("ONNX Runtime 1."));
    assert_eq!(health["models"]["nanodet"]["aliases"], serde_json::json!(["small"]));
    assert!(health["models"]["nanodet"]["inferences"].as_u64().unwrap() > 0);
    assert!(health["models"]["nanodet"]["p50_ms"].as_f64().unwrap() > 0.1);
    assert_eq!(health["config"]["slow_request_threshold_ms"], "1");
    let told = health.to_string().replace("http/protobuf", "");
    assert!(!told.contains('/'), "it names no file: {told}");
    let status = server.get("/status").json();
    assert_eq!(status["status"], "running");
    assert!(status["uptime"].as_str().unwrap().ends_with('s'));
    assert!(status["memory"]["system_memory_total_gb"].as_f64().unwrap() > 0.1);
}

#[test]
fn metrics_are_those_that_dashboards_know() {
    let server = SHARED.get();
    server.post_picture("/predict/small", &bus());
    let answer = server.get("/metrics");
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.text();
    for line in [
        "http_requests_total{method=\"POST\",route=\"/predict/{model}\",status=\"200\"}",
        "http_request_duration_seconds_bucket{le=\"0.1\",method=\"POST\",route=\"/predict/{model}\"}",
        "model_inference_duration_seconds_bucket{le=\"0.025\",model=\"nanodet\"}",
        "model_inference_batch_size_bucket{le=\"1.0\",model=\"nanodet\"}",
        "inference_queue_depth{model=\"nanodet\"} ",
        "process_cpu_usage_percent ",
        "process_memory_bytes ",
        "caudal_stage_duration_seconds_bucket{le=\"0.1\",stage=\"infer\"}",
        "caudal_stage_duration_seconds_bucket{le=\"0.1\",stage=\"encode\"}",
        "# TYPE http_requests_total counter",
    ] {
        assert!(text.contains(line), "{line} is missing in {text}");
    }
    let count = server.metric("http_request_duration_seconds_count", "/predict/{model}");
    let infinite =
        server.metric("http_request_duration_seconds_bucket", "le=\"+Inf\",method=\"POST\",route=\"/predict/{model}\"");
    assert!(count > 0.0 && infinite >= count, "a histogram's last bucket holds all: {count} {infinite}");
}

#[test]
fn the_api_is_described_and_its_page_needs_nothing_from_elsewhere() {
    let server = SHARED.get();
    let api = server.get("/openapi.json").json();
    for path in [
        "/predict/{model}",
        "/predict_batch/{model}",
        "/api/v1/inference/image",
        "/v2/models/{model}/infer",
        "/health",
        "/status",
    ] {
        assert!(api["paths"].get(path).is_some(), "{path}");
    }
    let page = server.get("/docs/").text();
    assert!(!page.contains("://"), "the page names another host: {page}");
    for asset in page.split(['"', '\'']).filter(|word| word.ends_with(".js") || word.ends_with(".css")) {
        let answer = server.get(&format!("/docs/{}", asset.trim_start_matches("./")));
        assert_eq!(answer.status, 200, "{asset}");
        assert!(!answer.body.is_empty());
    }
    assert!(server.get("/").text().contains("/docs"));
}

#[test]
fn slow_requests_are_logged_with_their_stages() {
    // Only so many lines are written: on a server of its own.
    let server = Server::start(CAUDAL, &Repo::nanodet("aliases: [small]"), &["--slow-request-threshold-ms", "1"]);
    server.post_picture("/predict/small?conf=0.33", &bus());
    let line = server.log_line("Slow request: POST /predict/small took");
    assert!(line.contains("infer"), "{line}");
    assert!(!server.log().contains("conf=0.33"), "no query value is logged");
}
