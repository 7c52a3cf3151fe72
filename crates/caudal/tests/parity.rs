//! Boxes equal those of a plain Python program (`benches/parity/reference.py`) on the fixtures' pictures: within a
//! pixel (of the picture or of the model's input, the coarser) and 0.01 of confidence, same classes, same order.
//!
//! With `CAUDAL_TEST_REFERENCE` set, that file is compared instead of the committed one, and the table is printed.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use caudal_testkit::{Repo, Server, fixture};
use serde_json::Value;

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");

struct Worst {
    count: usize,
    pixels: f64,
    confidence: f64,
}

/// The largest differences between `ours` and the reference's `theirs`.
fn compare(ours: &Value, theirs: &Value) -> Worst {
    let (ours, expected) = (ours["detections"].as_array().unwrap(), theirs["detections"].as_array().unwrap());
    let classes = |found: &[Value]| found.iter().map(|found| found["class"].clone()).collect::<Vec<_>>();
    assert_eq!(classes(ours), classes(expected), "same classes in the same order: {theirs}");
    let mut worst = Worst { count: ours.len(), pixels: 0.0, confidence: 0.0 };
    for (ours, expected) in ours.iter().zip(expected) {
        let number = |value: &Value| value.as_f64().unwrap();
        for (i, corner) in ["x1", "y1", "x2", "y2"].into_iter().enumerate() {
            worst.pixels = worst.pixels.max((number(&ours[corner]) - number(&expected["box"][i])).abs());
        }
        worst.confidence = worst.confidence.max((number(&ours["confidence"]) - number(&expected["confidence"])).abs());
    }
    worst
}

#[test]
fn boxes_equal_those_of_a_plain_reference() {
    let fresh = std::env::var("CAUDAL_TEST_REFERENCE").ok();
    let text = fresh.as_ref().map_or_else(|| fixture("reference.json"), |path| std::fs::read(path).unwrap());
    let reference: Value = serde_json::from_slice(&text).unwrap();
    let server = Server::start(CAUDAL, &Repo::nanodet(""), &[]);
    if fresh.is_some() {
        println!("| picture | size | conf, iou | boxes | largest difference, px | of confidence |");
        println!("|---|---|---|---|---|---|");
    }
    for expected in reference["answers"].as_array().unwrap() {
        let (name, conf, iou) = (expected["picture"].as_str().unwrap(), &expected["conf"], &expected["iou"]);
        let ours = server.post_picture(&format!("/predict/nanodet?conf={conf}&iou={iou}"), &fixture(name)).json();
        let worst = compare(&ours, expected);
        let size = &expected["size"];
        if fresh.is_some() {
            println!(
                "| {name} | {}x{} | {conf}, {iou} | {} | {:.2} | {:.4} |",
                size[0], size[1], worst.count, worst.pixels, worst.confidence
            );
        }
        let pixel = (1.0 / expected["scale"].as_f64().unwrap()).max(1.0);
        assert!(worst.pixels <= pixel, "{name}: {} px", worst.pixels);
        assert!(worst.confidence <= 0.01, "{name}: {} of confidence", worst.confidence);
    }
}

/// The boxes that came with the detector, made by another program still, whose figures are rounded.
#[test]
fn boxes_equal_those_published_with_the_model() {
    let expected: Value = serde_json::from_slice(&fixture("expected.json")).unwrap();
    let server = Server::start(CAUDAL, &Repo::nanodet("thresholds: {conf: 0.35, iou: 0.6}"), &[]);
    for expected in expected["detect"]["images"].as_array().unwrap() {
        let name = expected["image"].as_str().unwrap();
        let found = expected["detections"].as_array().unwrap().iter().map(
            |found| serde_json::json!({ "class": found["name"], "confidence": found["score"], "box": found["box"] }),
        );
        let theirs = serde_json::json!({ "detections": found.collect::<Vec<_>>() });
        let worst = compare(&server.post_picture("/predict/nanodet", &fixture(name)).json(), &theirs);
        assert!(worst.pixels <= 2.0 && worst.confidence <= 0.011, "{name}: {} {}", worst.pixels, worst.confidence);
    }
}
