//! Models of every kind that looks at pictures, real ones where they are small enough, over a real server.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod certainty;

use std::process::Command;

use base64::{Engine, prelude::BASE64_STANDARD};
use caudal_testkit::{Graph, Numbers, Repo, Server, Shared, fixture};
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
    assert_eq!((refused.status, refused.text().contains("element 3 is 70000")), (400, true), "{}", refused.text());
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
        ("yolox", "labels: [one]\nkind: detect", "1 name is given for 2 classes"),
        ("yolox", "labels: [one]\nfamily: yolox", "1 name is given for 2 classes"),
        ("yolox", "labels: ['# all', a, b]", "3 names are given for 2 classes; \"# all\" counts as a name"),
        ("end2end", "kind: classify\nactivation: tanh", "activation"),
        ("double", "kind: detect", "it takes no pictures"),
    ] {
        let said = words(file, yaml);
        assert!(said.contains(expected), "{yaml}: {said}");
    }
}

const PICTURE: [i64; 4] = [1, 3, 64, 64];
/// Cells of the grids over such a picture.
const CELLS: usize = 84;

/// Outputs of `length` numbers, all `rest` but those given with their places.
fn numbers(length: usize, rest: f32, given: &[(usize, f32)]) -> Vec<f32> {
    let mut all = vec![rest; length];
    given.iter().for_each(|(place, number)| all[*place] = *number);
    all
}

/// A detector of YOLOv8's layout with `channels` scores, of which some are given for cell 0 of the box 8, 16, 40, 56.
fn columns(channels: usize, given: &[(usize, f32)]) -> Graph {
    let centre = [24.0, 36.0, 32.0, 40.0].into_iter().enumerate();
    let given: Vec<_> = centre.chain(given.iter().map(|(channel, number)| (4 + channel, *number))).collect();
    let given: Vec<_> = given.into_iter().map(|(row, number)| (row * CELLS, number)).collect();
    let dims = [1, 4 + channels as i64, CELLS as i64];
    Graph::blind("images", Numbers::F32, &PICTURE, &[("output0", &dims, &numbers((4 + channels) * CELLS, 0.0, &given))])
}

/// Detectors that are not read here, each with a word that says what it seems to be.
fn strangers() -> Vec<(&'static str, Graph, &'static str)> {
    let corners = [(0, 0.375), (1, 0.5625), (2, 0.5), (3, 0.625)];
    let blind = |outputs: &[(&str, &[i64], &[f32])]| Graph::blind("pixel_values", Numbers::F32, &PICTURE, outputs);
    let pose = {
        let keypoints: Vec<_> =
            (0..17).flat_map(|k| [(1 + 3 * k, 20.0), (2 + 3 * k, 30.0), (3 + 3 * k, 0.8)]).collect();
        columns(52, &[&[(0, 0.9)][..], &keypoints].concat())
    };
    let rows = numbers(CELLS * 7, 0.0, &[(0, 24.0), (1, 36.0), (2, 32.0), (3, 40.0), (4, 1.0), (5, 0.9)]);
    let zoo: [(&str, &[i64], &[f32]); 4] = [
        ("num_detections", &[1], &[1.0]),
        ("detection_boxes", &[1, 100, 4], &numbers(400, 0.0, &[(0, 0.25), (1, 0.125), (2, 0.875), (3, 0.625)])),
        ("detection_scores", &[1, 100], &numbers(100, 0.0, &[(0, 0.9)])),
        ("detection_classes", &[1, 100], &[1.0; 100]),
    ];
    vec![
        (
            "rtdetr",
            blind(&[
                ("logits", &[1, 300, 80], &numbers(24_000, -6.0, &[(5, 2.2)])),
                ("pred_boxes", &[1, 300, 4], &numbers(1200, 0.5, &corners)),
            ]),
            "DETR",
        ),
        (
            "yolonas",
            blind(&[
                ("boxes", &[1, 84, 4], &numbers(336, 0.0, &[(0, 8.0), (1, 16.0), (2, 40.0), (3, 56.0)])),
                ("scores", &[1, 84, 80], &numbers(6720, 0.01, &[(5, 0.9)])),
            ]),
            "YOLO-NAS",
        ),
        ("zoo", Graph::blind("image_tensor", Numbers::U8, &[1, 64, 64, 3], &zoo), "TensorFlow"),
        ("pose", pose.clone().note("task", "pose").note("kpt_shape", "[17, 3]"), "poses"),
        ("unnamed_pose", pose, "scores lie between 0 and 30, expected 0 to 1"),
        ("logits", columns(2, &[(0, 2.2), (1, -6.0)]), "scores lie between -6 and 2.2"),
        (
            "parts",
            {
                let parts = numbers(6 * CELLS, 0.0, &[(0, 0.375), (CELLS, 0.5625), (2 * CELLS, 0.5), (4 * CELLS, 0.9)]);
                Graph::blind("images", Numbers::F32, &PICTURE, &[("output0", &[1, 6, 84], &parts)])
            },
            "expected pixels of an input of 64x64",
        ),
        ("transposed", blind(&[("output0", &[1, 84, 7], &rows)]), "the shapes of yolox"),
        (
            "segments",
            {
                let masks = vec![0.0; 32 * 16 * 16];
                let rows = vec![0.0; 38 * CELLS];
                blind(&[("output0", &[1, 38, 84], &rows), ("output1", &[1, 32, 16, 16], &masks)])
                    .note("task", "segment")
            },
            "segments objects",
        ),
    ]
}

#[test]
fn detectors_of_other_families_serve_tensors_and_say_what_they_seem_to_be() {
    let repo = strangers()
        .iter()
        .fold(Repo::new(), |repo, (name, graph, _)| repo.file(&format!("{name}/1/model.onnx"), &graph.bytes()));
    let repo = repo
        .file("said/1/model.onnx", &columns(2, &[(0, 46.0), (1, 0.8)]).bytes())
        .file("said/model.yaml", b"family: yolov8");
    let server = Server::start(CAUDAL, &repo, &[]);
    let bus = fixture("double_decker_bus.jpg");
    let health = server.get("/health").json();
    for (name, _, words) in strangers() {
        let answer = server.post_picture(&format!("/predict/{name}"), &bus);
        assert_eq!((answer.status, &*answer.code()), (400, "wrong_task"), "{name}: {}", answer.text());
        let said = answer.json()["error"].to_string();
        assert!(
            said.contains(words) && said.contains("model.yaml") | said.contains("docs/models.md"),
            "{name}: {said}"
        );
        let notice = health["models"][name]["notice"].as_str().unwrap_or_default();
        assert!(notice.contains(words) && health["models"][name]["task"] == "tensors", "{name}: {notice}");
        assert_eq!(server.get("/readyz").status, 200);
    }
    // The author's word stands, what cannot be a confidence is dropped all the same, and it is told.
    let said = server.post_picture("/predict/said?conf=0", &bus).json();
    assert!(
        said["detections"].as_array().unwrap().iter().all(|found| found["confidence"].as_f64() <= Some(1.0)),
        "{said}"
    );
    let state = server.get("/admin/models/said").json();
    assert!(state["notice"].as_str().unwrap().contains("scores lie between 0 and 46"), "{state}");
    assert!(state["dropped"].as_u64() > Some(0) && server.log().contains("what was found is dropped"), "{state}");

    let doctor =
        Command::new(CAUDAL).args(["models", "doctor", "--model-repository"]).arg(repo.path("")).output().unwrap();
    let (words, worked) = (String::from_utf8(doctor.stdout).unwrap(), doctor.status.success());
    assert!(worked && !words.contains("all models are well"), "{words}");
    strangers().iter().for_each(|(name, _, said)| assert!(words.contains(said), "{name}: {words}"));
}

/// Ten classes by a picture's mean colour: the last operators, from `logits` to `scores`, are `behind`.
fn classifier(output: &str, behind: impl Fn(Graph) -> Graph) -> Graph {
    let weights: Vec<f32> = (0..30).map(|i| ((i * 7 % 11) as f32 - 5.0) * 0.8).collect();
    let graph = Graph::default()
        .input("images", Numbers::F32, &[1, 3, 8, 8])
        .floats("weights", &[3, 10], &weights)
        .floats("step", &[], &[1.0 / 255.0])
        .constant("zero", Numbers::U8, &[], &[0])
        .integers("flat", &[2], &[1, 3])
        .node("GlobalAveragePool", &["images"], &["colour"], &[])
        .node("Reshape", &["colour", "flat"], &["flat_colour"], &[])
        .node("MatMul", &["flat_colour", "weights"], &["logits"], &[]);
    behind(graph).node("Identity", &["scores"], &[output], &[]).output(output, Numbers::F32, &[1, 10])
}

/// What the classifier gives for a picture of one colour, before `behind`.
fn logits(colour: [u8; 3]) -> Vec<f64> {
    let weight = |channel: usize, class: usize| f64::from(((channel * 10 + class) * 7 % 11) as f32 - 5.0) * 0.8;
    (0..10)
        .map(|class| (0..3).map(|channel| f64::from(colour[channel]) / 255.0 * weight(channel, class)).sum())
        .collect()
}

/// A BMP of 8 by 8 pixels of one colour.
fn plain(colour: [u8; 3]) -> Vec<u8> {
    let mut bmp = b"BM\xf6\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x08\0\0\0\x08\0\0\0\x01\0\x18\0".to_vec();
    bmp.extend([0; 24]);
    bmp.extend([colour[2], colour[1], colour[0]].repeat(64));
    bmp
}

#[test]
fn activation_is_decided_once_for_each_model() {
    let quantised = |graph: Graph, operator: &str| {
        graph
            .node(operator, &["logits"], &["likely"], &[])
            .node("QuantizeLinear", &["likely", "step", "zero"], &["steps"], &[])
            .node("DequantizeLinear", &["steps", "step", "zero"], &["scores"], &[])
    };
    let models = [
        ("steps", classifier("probabilities", |graph| quantised(graph, "Softmax")), "", "none"),
        ("taggers", classifier("class", |graph| quantised(graph, "Sigmoid")), "", "none"),
        ("raw", classifier("logits_out", |graph| graph.node("Identity", &["logits"], &["scores"], &[])), "", "softmax"),
        ("logs", classifier("class", |graph| graph.node("LogSoftmax", &["logits"], &["scores"], &[])), "", "softmax"),
        (
            "own",
            classifier("class", |graph| graph.node("Identity", &["logits"], &["scores"], &[])),
            "activation: sigmoid",
            "sigmoid",
        ),
        (
            "noted",
            classifier("output0", |graph| graph.node("Softmax", &["logits"], &["scores"], &[]))
                .note("task", "classify"),
            "",
            "none",
        ),
    ];
    let repo = models.iter().fold(Repo::new(), |repo, (name, graph, yaml, _)| {
        let repo = repo.file(&format!("{name}/1/model.onnx"), &graph.bytes());
        repo.file(&format!("{name}/model.yaml"), yaml.as_bytes())
    });
    let server = Server::start(CAUDAL, &repo, &[]);
    for (name, _, _, activation) in &models {
        for colour in [[255, 0, 0], [10, 200, 90], [60, 10, 220], [0, 0, 0]] {
            let logits = logits(colour);
            let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
            let right = |logit: &f64| match *name {
                "taggers" | "own" => 1.0 / (1.0 + (-logit).exp()),
                _ => logit.exp() / sum,
            };
            let answer = server.post_picture(&format!("/predict/{name}?top_k=10"), &plain(colour)).json();
            let found = answer["classifications"].as_array().unwrap_or_else(|| panic!("{name}: {answer}"));
            assert_eq!(found.len(), 10, "{name}: {answer}");
            for found in found {
                let right = right(&logits[found["class_id"].as_u64().unwrap() as usize]);
                let off = (found["confidence"].as_f64().unwrap() - right).abs();
                assert!(off < 0.003, "{name}, {colour:?}: {found}, {right} is right");
            }
        }
        let show =
            Command::new(CAUDAL).args(["models", "show", name, "--model-repository"]).arg(repo.path("")).output();
        let words = String::from_utf8(show.unwrap().stdout).unwrap();
        assert!(words.contains(&format!("activation {activation}")), "{name}: {words}");
    }
}

#[test]
fn numbers_that_cannot_be_told_never_leave() {
    let nan = f32::NAN;
    let rows =
        [[nan, 1.0, 5.0, 6.0, 0.9, 0.0], [1.0, 1.0, 5.0, 6.0, f32::INFINITY, 0.0], [8.0, 16.0, 40.0, 56.0, 0.8, 1.0]];
    let found = Graph::blind("images", Numbers::F32, &PICTURE, &[("output0", &[1, 3, 6], &rows.concat())]);
    let scores = [0.2, nan, 46.0, 0.7, -3.0];
    let classes = Graph::blind("images", Numbers::F32, &[1, 3, 8, 8], &[("prob", &[1, 5], &scores)]);
    let mask = [nan, 0.9, 0.1, 0.1];
    let mask = Graph::blind("images", Numbers::F32, &[1, 3, 2, 2], &[("mask", &[1, 1, 2, 2], &mask)]);
    let repo = Repo::new()
        .file("found/1/model.onnx", &found.bytes())
        .file("classes/1/model.onnx", &classes.bytes())
        .file("classes/model.yaml", b"activation: none")
        .file("mask/1/model.onnx", &mask.bytes())
        .file("mask/model.yaml", b"activation: none");
    let server = Server::start(CAUDAL, &repo, &[]);
    let grey = plain([128; 3]);
    let boxes = server.post_picture("/predict/found", &grey).json();
    let boxes = boxes["detections"].as_array().unwrap();
    assert_eq!((boxes.len(), boxes[0]["confidence"].as_f64().map(|sure| (sure * 100.0).round())), (1, Some(80.0)));
    let classes = server.post_picture("/predict/classes", &grey).json();
    let ids: Vec<_> =
        classes["classifications"].as_array().unwrap().iter().map(|class| class["class_id"].as_u64()).collect();
    assert_eq!(ids, [Some(3), Some(0)], "{classes}");
    let mask = server.post_picture("/predict/mask?masks=rle", &grey).json();
    assert!((mask["segments"][0]["area"].as_f64().unwrap() - 0.25).abs() < 0.2, "{mask}");
    for model in ["found", "classes"] {
        assert!(server.get(&format!("/admin/models/{model}")).json()["dropped"].as_u64() > Some(0));
    }
    assert!(server.get("/health").json()["models"]["found"]["notice"].as_str().unwrap().contains("no numbers"));
}

#[test]
fn names_of_classes_are_found_and_counted() {
    let four = || columns(4, &[(0, 0.9), (1, 0.3)]);
    let names = r#"{"1": "b", "0": "caf\u00e9", "2": "\ud83d\ude97", "3": "a/b"}"#;
    let repo = Repo::new()
        .file("json/1/model.onnx", &four().note("names", names).bytes())
        .file("beside/1/model.onnx", &four().bytes())
        .file("beside/labels.txt", b"\xef\xbb\xbfa\r\nb\r\nc\r\nd\r\n")
        .file("five/1/model.onnx", &four().bytes())
        .file("five/labels.txt", b"# classes\na\nb\nc\nd\n")
        .file("noted/1/model.onnx", &four().note("names", "['a', 'b', 'c']").bytes())
        .file("twins/1/model.onnx", &columns(3, &[(0, 0.4), (2, 0.9)]).note("names", "['car', 'bus', 'car']").bytes());
    let server = Server::start(CAUDAL, &repo, &[]);
    let grey = plain([128; 3]);
    let class = |path: &str| server.post_picture(path, &grey).json()["detections"][0]["class"].clone();
    assert_eq!((class("/predict/json"), class("/predict/beside")), (json!("café"), json!("a")));
    assert_eq!(server.post_picture("/predict/five", &grey).code(), "model_not_ready");
    let reasons = server.post_json("/v2/repository/index", "{}").json().to_string();
    assert!(reasons.contains("5 names are given for 4 classes"), "{reasons}");
    assert!(server.log().contains("5 names are given for 4 classes"));
    let noted = server.post_picture("/predict/noted", &grey).text();
    assert!(noted.contains("3 names are given for 4 classes"), "{noted}");
    assert_eq!(class("/predict/twins?classes=car"), "car", "of two classes of one name both count");
    assert_eq!(server.post_picture("/predict/twins?classes=2", &grey).json()["detections"][0]["class_id"], 2);
    assert_eq!(server.post_picture("/predict/twins?classes=bus", &grey).json()["detections"], json!([]));
}

#[test]
fn size_that_the_file_notes_is_that_of_free_axes() {
    // Its only class is as likely as the input is wide, over 1000, in each of ten rows.
    let at_any_size = |imgsz: &str| {
        Graph::default()
            .input("images", Numbers::F32, &[1, 3, -1, -1])
            .floats("thousand", &[], &[1000.0])
            .floats("boxes", &[1, 1, 4], &[8.0, 16.0, 40.0, 56.0])
            .floats("class", &[1, 1, 1], &[0.0])
            .integers("wide", &[1], &[3])
            .integers("three", &[3], &[1, 1, 1])
            .node("Shape", &["images"], &["shape"], &[])
            .node("Gather", &["shape", "wide"], &["width"], &[])
            .node("Cast", &["width"], &["floats"], &[("to", 1)])
            .node("Div", &["floats", "thousand"], &["part"], &[])
            .node("Reshape", &["part", "three"], &["score"], &[])
            .node("Concat", &["boxes", "score", "class"], &["output0"], &[("axis", 2)])
            .output("output0", Numbers::F32, &[1, -1, 6])
            .note("imgsz", imgsz)
            .bytes()
    };
    let cases =
        [("[320, 416]", 416), ("(320, 416)", 416), ("416", 416), ("[416]", 416), ("nonsense", 640), ("[0, 0]", 640)];
    let repo = (0..)
        .zip(&cases)
        .fold(Repo::new(), |repo, (i, (imgsz, _))| repo.file(&format!("m{i}/1/model.onnx"), &at_any_size(imgsz)));
    let server = Server::start(CAUDAL, &repo, &[]);
    for (i, (imgsz, width)) in (0..).zip(cases) {
        let answer = server.post_picture(&format!("/predict/m{i}"), &plain([128; 3])).json();
        let ran = answer["detections"][0]["confidence"].as_f64().map(|sure| (sure * 1000.0).round() as i32);
        assert_eq!(ran, Some(width), "{imgsz}: {answer}");
    }
}
