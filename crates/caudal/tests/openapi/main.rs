//! The API's description: tools read it, and answers are what it says.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod answers;
mod document;
mod tools;

use std::{
    fs,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use caudal_testkit::{Repo, Server, fixture};

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");

const PIPELINES: [(&str, &str); 3] = [
    (
        "greet",
        "name: greet\nsteps:\n  - name: words\n    uses: template\n    with: {template: 'Hello, {{ input }}!'}\n",
    ),
    (
        "ask",
        "name: ask\nsteps:\n  - name: approve\n    kind: hitl\n    message: 'Is {{ previous_step }} good?'\n    \
         input_schema: {type: boolean}\n",
    ),
    ("bad", "name: bad\nsteps: 7\n"),
];

/// A server with a model of each form of answer, a record and pipelines.
struct Place {
    server: Server,
    /// The model repository, which the server reads again.
    _repo: Repo,
}

impl Place {
    fn new() -> Self {
        let orientation = "kind: classify\nlabels: ['0', '180']\n\
                           preprocessing: {size: [192, 48], color: bgr, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}";
        let repo = Repo::nanodet("aliases: [small]")
            .model("double", "double", "")
            .file("orientation/1/model.onnx", &fixture("models/text_orientation.onnx"))
            .file("orientation/model.yaml", orientation.as_bytes())
            .file("selfie/1/model.onnx", &fixture("models/selfie.onnx"))
            .file("selfie/model.yaml", b"labels: [person]")
            .encoder("enc", "encoder", "embedding: {max_tokens: 64}");
        let pipelines = tempfile::tempdir().unwrap();
        for (name, text) in PIPELINES {
            fs::write(pipelines.path().join(format!("{name}.yaml")), text).unwrap();
        }
        let folder = pipelines.path().display().to_string();
        let budget = ["--latency-budgets", "/predict/{model} = 200"];
        let arguments = [&["--data-dir", "data", "--pipelines", &folder][..], &budget].concat();
        Self { server: Server::start(CAUDAL, &repo, &arguments), _repo: repo }
    }
}

/// The one that all tests share; it goes when the last is done.
fn place() -> Arc<Place> {
    static SHARED: Mutex<Weak<Place>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let place = Arc::new(Place::new());
        *shared = Arc::downgrade(&place);
        place
    })
}
