//! Detectors that shapes alone speak for, and class names in forms that exporters write.

use caudal_testkit::{Graph, Numbers, Repo, Server};
use serde_json::json;

use super::{CAUDAL, PICTURE, columns, plain};

/// A detector that picks its boxes and finds nothing.
fn silent() -> Graph {
    Graph::blind("images", Numbers::F32, &PICTURE, &[("output0", &[1, 3, 6], &[0.0; 18])])
}

/// The same, which fails on all pictures but black ones.
fn failing() -> Graph {
    Graph::default()
        .input("images", Numbers::F32, &PICTURE)
        .floats("thousand", &[], &[1000.0])
        .floats("nothing", &[1, 1, 3, 6], &[0.0; 18])
        .node("ReduceMax", &["images"], &["most"], &[("keepdims", 0)])
        .node("Mul", &["most", "thousand"], &["place"], &[])
        .node("Cast", &["place"], &["index"], &[("to", 7)])
        .node("Gather", &["nothing", "index"], &["output0"], &[])
        .output("output0", Numbers::F32, &[1, 3, 6])
}

#[test]
fn detectors_of_which_nothing_is_certain_serve_tensors() {
    let names = "{0: 'a', 1: 'b', 2: 'c'}";
    let repo = Repo::new()
        .file("silent/1/model.onnx", &silent().bytes())
        .file("failing/1/model.onnx", &failing().bytes())
        .file("failing_noted/1/model.onnx", &failing().note("end2end", "True").bytes())
        .file("noted/1/model.onnx", &silent().note("end2end", "True").bytes())
        .file("named/1/model.onnx", &silent().note("task", "detect").note("names", names).bytes())
        .file("said/1/model.onnx", &silent().bytes())
        .file("said/model.yaml", b"family: end2end")
        .file("kind/1/model.onnx", &silent().bytes())
        .file("kind/model.yaml", b"kind: detect");
    let server = Server::start(CAUDAL, &repo, &[]);
    let (health, black) = (server.get("/health").json(), plain([0; 3]));
    for (name, words) in [
        ("silent", "it found nothing on made pictures"),
        ("failing", "it does not run on made pictures, which would show"),
    ] {
        let answer = server.post_picture(&format!("/predict/{name}"), &black);
        assert_eq!((answer.status, &*answer.code()), (400, "wrong_task"), "{name}: {}", answer.text());
        for words in [words, "`family: end2end`", "`kind: tensors`"] {
            assert!(answer.text().contains(words), "{name}: {}", answer.text());
            assert!(health["models"][name]["notice"].as_str().unwrap().contains(words), "{name}: {health}");
        }
    }
    for name in ["noted", "named", "said", "failing_noted"] {
        let answer = server.post_picture(&format!("/predict/{name}"), &black);
        assert_eq!((answer.status, &answer.json()["detections"]), (200, &json!([])), "{name}: {}", answer.text());
    }
    let notice = health["models"]["failing_noted"]["notice"].as_str().unwrap();
    assert!(notice.contains("it does not run on some made pictures"), "{notice}");
    // Why is said in the answer, but for what names files.
    let answer = server.post_picture("/predict/kind", &black);
    assert_eq!(answer.code(), "model_not_ready");
    assert!(answer.text().contains("found nothing on made pictures") && answer.text().contains("`family: end2end`"));
}

#[test]
fn class_names_in_odd_forms_are_read_or_mentioned() {
    let third = || columns(3, &[(2, 0.9)]);
    let repo = Repo::new()
        .file("sparse/1/model.onnx", &third().note("names", "{0:'a',2:'c'}").bytes())
        .file("gap/1/model.onnx", &columns(3, &[(1, 0.9)]).note("names", "{0:'a',2:'c'}").bytes())
        .file("python2/1/model.onnx", &third().note("names", "\u{feff}{0: u'a', 1: u'b', 2: u'caf\\xe9'}").bytes())
        .file("unread/1/model.onnx", &third().note("names", "a;b;c").bytes())
        .file("five/1/model.onnx", &third().bytes())
        .file("five/labels.txt", b"a\nb\nc\nd\ne\n");
    let server = Server::start(CAUDAL, &repo, &[]);
    for (name, expected) in [("sparse", "c"), ("gap", "class_1"), ("python2", "café"), ("unread", "class_2")] {
        let answer = server.post_picture(&format!("/predict/{name}"), &plain([128; 3])).json();
        assert_eq!(answer["detections"][0]["class"], expected, "{name}: {answer}");
    }
    let notice = server.get("/health").json()["models"]["unread"]["notice"].to_string();
    assert!(notice.contains("the class names in its file cannot be read"), "{notice}");
    let not_ready = server.post_picture("/predict/five", &plain([0; 3])).text();
    assert!(not_ready.contains("not ready: 5 names are given for 3 classes"), "{not_ready}");
}

#[test]
fn classes_whose_names_hold_commas_can_be_asked_for() {
    let names = r#"['salt, pepper', 'bus', 'a "b"']"#;
    let repo = Repo::new().file("table/1/model.onnx", &columns(3, &[(0, 0.9)]).note("names", names).bytes());
    let server = Server::start(CAUDAL, &repo, &[]);
    let ask = |query: &str| server.post_picture(&format!("/predict/table?{query}"), &plain([128; 3]));
    for (query, found) in [
        ("classes=%22salt%2C%20pepper%22", 1),
        ("classes=bus,%22salt%2C+pepper%22", 1),
        ("classes=salt%2C%20pepper", 1),
        ("classes=bus&classes=salt%2C%20pepper", 1),
        ("classes=0,1", 1),
        ("classes=bus,2", 0),
        ("classes=%22a%20%22%22b%22%22%22", 0),
    ] {
        let answer = ask(query);
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        assert_eq!(answer.json()["detections"].as_array().unwrap().len(), found, "{query}: {}", answer.text());
    }
    for (query, words) in [("classes=salt,pepper", "knows no class"), ("classes=%22bus", "a quote that is not closed")]
    {
        let answer = ask(query);
        assert!(answer.status == 400 && answer.text().contains(words), "{query}: {}", answer.text());
    }
}
