//! Models of every kind that looks at pictures, real ones where they are small enough, over a real server.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::process::Command;

use base64::{Engine, prelude::BASE64_STANDARD};
use caudal_testkit::{Repo, Server, Shared, fixture};
use serde_json::{Value, json};

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");

const ORIENTATION: &str = "
labels: ['0', '180']
preprocessing: {size: [192, 48], color: bgr, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}
";

static SHARED: Shared = Shared::new(|| {
    let repo = Repo::new()
        .file("orientation/1/model.onnx", &fixture("models/text_orientation.onnx"))
        .file("orientation/model.yaml", format!("kind: classify{ORIENTATION}").as_bytes())
        .file("selfie/1/model.onnx", &fixture("models/selfie.onnx"))
        .file("selfie/model.yaml", b"labels: [person]")
        .model("yolox", "yolox", "labels: [left, right]")
        .model("ssd", "ssd", "labels: [left, right]\npreprocessing: {size: [64, 64]}")
        .model("end2end", "end2end", "")
        .model("half", "half", "")
        .model("halfbox", "halfbox", "");
    Server::start(CAUDAL, &repo, &[])
});

fn check_boxes(path: &str, expected: &[Value]) {
    let answer = SHARED.get().post_picture(path, &fixture("double_decker_bus.jpg"));
    let json = answer.json();
    let found = json["detections"].as_array().unwrap_or_else(|| panic!("{path}: {json}"));
    assert_eq!(found.len(), expected.len(), "{path}: {json}");
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found["class"], expected["class"], "{path}: {json}");
        for (i, side) in ["x1", "y1", "x2", "y2"].into_iter().enumerate() {
            let (found, expected) = (found[side].as_f64().unwrap(), expected["box"][i].as_f64().unwrap());
            assert!((found - expected).abs() < 0.02, "{path}: {json}");
        }
        let (found, expected) = (found["confidence"].as_f64().unwrap(), expected["confidence"].as_f64().unwrap());
        assert!((found - expected).abs() < 1e-5, "{path}: {json}");
    }
}

/// The bus is 546 by 413 pixels, the networks' input 64 by 64.
#[test]
fn detectors_of_every_family_are_recognised_and_find_back_onto_the_picture() {
    // In the corner, scaled by 64 / 546.
    let scale = 546.0 / 64.0;
    let corners = [32.0, 8.0, 48.0, 40.0].map(|side| side * scale);
    check_boxes("/predict/yolox", &[json!({ "class": "right", "confidence": 0.9, "box": corners })]);
    // Stretched: parts of the picture.
    let corners = [546.0 * 0.5, 413.0 * 0.25, 546.0, 413.0 * 0.75];
    check_boxes("/predict/ssd", &[json!({ "class": "right", "confidence": 0.8, "box": corners })]);
    // Centred: 48 rows of picture below 8 of padding. The network has said which boxes stay.
    let back = |x1: f64, y1: f64, x2: f64, y2: f64| [x1 * scale, (y1 - 8.0) * scale, x2 * scale, (y2 - 8.0) * scale];
    let both = [
        json!({ "class": "class_1", "confidence": 0.9, "box": back(8.0, 8.0, 40.0, 40.0) }),
        json!({ "class": "class_1", "confidence": 0.8, "box": back(10.0, 10.0, 42.0, 42.0) }),
    ];
    check_boxes("/predict/end2end", &both);
    check_boxes("/predict/end2end?conf=0.85", &both[..1]);
    check_boxes("/predict/end2end?classes=0", &[]);
}

#[test]
fn models_of_16_bits_are_asked_like_others() {
    let scale = 546.0 / 64.0;
    let [x1, y1, x2, y2] = [8.0, 8.0 - 8.0, 40.0, 40.0 - 8.0].map(|side| side * scale);
    // 0.9 in 16 bits.
    check_boxes("/predict/halfbox", &[json!({ "class": "class_1", "confidence": 0.89990, "box": [x1, y1, x2, y2] })]);
    let ask = |data: Value| {
        let input = json!({ "name": "x", "shape": [1, 4], "datatype": "FP16", "data": data });
        SHARED.get().post_json("/v2/models/half/infer", &json!({ "inputs": [input] }).to_string())
    };
    let answer = ask(json!([1, -2.5, 0.1, 1000])).json();
    let output = json!({ "name": "y", "datatype": "FP16", "shape": [1, 4], "data": [2.0, -5.0, 0.19995117, 2000.0] });
    assert_eq!(answer["outputs"][0]["datatype"], output["datatype"], "{answer}");
    let numbers =
        |of: &Value| -> Vec<f64> { of["data"].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect() };
    for (got, expected) in numbers(&answer["outputs"][0]).into_iter().zip(numbers(&output)) {
        assert!((got - expected).abs() < 1e-6, "{answer}");
    }
    let refused = ask(json!([1, 2, 3, 70000]));
    assert_eq!((refused.status, refused.text().contains("70000 at place 3")), (400, true), "{}", refused.text());
}

#[test]
fn a_classifier_says_what_the_picture_shows() {
    let server = SHARED.get();
    let text = fixture("text_line.png");
    let answer = server.post_picture("/predict/orientation", &text).json();
    let likely = answer["classifications"].as_array().unwrap();
    assert_eq!((likely.len(), &likely[0]["class"], &likely[0]["class_id"]), (2, &json!("0"), &json!(0)));
    // As onnxruntime says it in Python: fixtures/README.md.
    assert!((likely[0]["confidence"].as_f64().unwrap() - 0.9962).abs() < 1e-4, "{answer}");
    let first = server.post_picture("/predict/orientation?top_k=1", &text).json();
    assert_eq!(first["classifications"].as_array().unwrap().len(), 1);
    let other = server.post_picture("/predict/orientation?classes=180", &text).json();
    assert_eq!(other["classifications"][0]["class"], "180");
    let both = server.post_form(
        "/predict_batch/orientation",
        &[("images", Some("a.png"), &text[..]), ("images", Some("b.png"), &text[..])],
    );
    assert_eq!(both.json()["results"][1]["classifications"], answer["classifications"]);
    let drawn = server.post_picture("/predict/orientation?draw=true", &text);
    assert_eq!((drawn.status, drawn.json()["error"]["code"].as_str()), (400, Some("invalid_parameter")));
}

#[test]
fn a_segmentation_says_which_pixels() {
    let server = SHARED.get();
    let astronaut = fixture("astronaut.png");
    let answer = server.post_picture("/predict/selfie?masks=rle", &astronaut).json();
    let person = &answer["segments"][0];
    assert_eq!((answer["segments"].as_array().unwrap().len(), &person["class"]), (1, &json!("person")));
    // Of the network's 256 x 256 cells 0.5449 are foreground, as onnxruntime says in Python; of the pixels about as many.
    let area = person["area"].as_f64().unwrap();
    assert!((area - 0.5449).abs() < 0.002, "{area}");
    let counts: Vec<u64> =
        person["mask"]["counts"].as_array().unwrap().iter().map(|run| run.as_u64().unwrap()).collect();
    assert_eq!(person["mask"]["size"], json!([512, 512]));
    assert_eq!(counts.iter().sum::<u64>(), 512 * 512);
    let within: u64 = counts.iter().skip(1).step_by(2).sum();
    assert!((within as f64 / (512.0 * 512.0) - area).abs() < 1e-6);
    let png = server.post_picture("/predict/selfie", &astronaut).json();
    let file = BASE64_STANDARD.decode(png["segments"][0]["mask"]["data"].as_str().unwrap()).unwrap();
    assert_eq!((&file[1..4], &file[16..24]), (&b"PNG"[..], &[0, 0, 2, 0, 0, 0, 2, 0][..]));
    let sure = server.post_picture("/predict/selfie?conf=0.99", &astronaut).json();
    assert!(sure["segments"][0]["area"].as_f64().unwrap() < area);
    let drawn = server.post_picture("/predict/selfie?draw=true", &astronaut);
    assert_eq!((drawn.status, drawn.header("content-type")), (200, "image/jpeg"));
}

#[test]
fn what_does_not_fit_is_said_in_words() {
    let words = |file: &str, yaml: &str| {
        let repo = Repo::new().model("odd", file, yaml);
        let arguments = ["models", "show", "odd", "--model-repository"];
        let output = Command::new(CAUDAL).args(arguments).arg(repo.path("")).output().unwrap();
        assert!(!output.status.success(), "{yaml}");
        String::from_utf8(output.stderr).unwrap()
    };
    for (file, yaml, expected) in [
        ("yolox", "family: ssd", "its outputs (output [1, 84, 7]) are not those of ssd"),
        ("yolox", "kind: classify", "are not one likelihood a class"),
        ("yolox", "kind: segment", "do not cover the picture"),
        ("yolox", "kind: sort", "there are detect, classify, segment, embed, tensors"),
        ("yolox", "labels: [one]\nkind: detect", "no family of detectors gives its outputs"),
        ("yolox", "labels: [one]\nfamily: yolox", "it tells 2 classes apart, and 1 names are given"),
        ("double", "kind: detect", "it takes no pictures"),
    ] {
        let said = words(file, yaml);
        assert!(said.contains(expected), "{yaml}: {said}");
    }
}
