//! Leaves that ask models: real ones, run by ONNX Runtime, and one that follows a script.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use caudal_engine::{Backend, Provider, repository::Repository};
use caudal_engine_ort::{OnnxRuntime, locate_library};
use caudal_flow::{
    Definition, Engine, Fault, Options, Outcome, Registry, RunError, RunOptions, StepError, Steps, Value, value,
};
use caudal_flow_leaves::{Models, Parts};
use caudal_tasks::{ByteBudget, Catalog, Decoders, Defaults, Pictures, Stay};
use caudal_testkit::{Repo, Scripted, fixture};
use caudal_types::CpuPlan;
use caudal_vision::Limits;
use common::{made, registry_of, run_step, step};

/// The models of `repo`, run by `backend`.
fn models(repo: &Repo, backend: Arc<dyn Backend>, most: usize) -> Models {
    let defaults = Defaults {
        providers: vec![Provider::Cpu],
        cpus: CpuPlan::for_cpus(2),
        instances: Some(1),
        threads: None,
        max_batch_size: Some(8),
        max_queue_delay: Duration::ZERO,
        max_queue_size: most,
        max_queue_bytes: 1 << 28,
        run_limit: Duration::from_secs(30),
    };
    let catalog = Catalog::new(Repository::open(&repo.path("")).unwrap(), backend, defaults, Stay::default());
    catalog.load_all().unwrap();
    let pictures = Pictures::new(Decoders::start(2).unwrap(), ByteBudget::new(1 << 28), Limits { max_pixels: 1 << 26 });
    Models { catalog: Arc::new(catalog), pictures }
}

struct Shared {
    registry: Registry,
    folder: tempfile::TempDir,
    _repo: Repo,
}

static REAL: LazyLock<Shared> = LazyLock::new(|| {
    let (library, source) = locate_library(None).expect("run `cargo xtask setup` first");
    let backend = OnnxRuntime::load_library(&library, source).expect("the library that setup installs can be loaded");
    let repo = Repo::nanodet("aliases: [small]").model("double", "double", "").model("free", "free", "").encoder(
        "encoder",
        "encoder",
        "embedding: {max_tokens: 8}",
    );
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("deep")).unwrap();
    fs::write(folder.path().join("bus.JPG"), fixture("double_decker_bus.jpg")).unwrap();
    fs::write(folder.path().join("deep/cat.png"), fixture("chelsea.png")).unwrap();
    fs::write(folder.path().join("note.txt"), "no picture").unwrap();
    symlink("bus.JPG", folder.path().join("link.jpg")).unwrap();
    symlink("/etc/passwd", folder.path().join("out.jpg")).unwrap();
    symlink("/etc", folder.path().join("etc")).unwrap();
    let models = Some(models(&repo, Arc::new(backend), 64).into());
    let parts = Parts { models, folder: Some(folder.path().to_owned()), ..Parts::default() };
    Shared { registry: registry_of(parts), folder, _repo: repo }
});

async fn ask(leaf: &str, said: Value, input: Value) -> Result<Value, StepError> {
    run_step(step(made(&REAL.registry, leaf, said).unwrap()), input, Value::Null).await
}

fn bus() -> Vec<u8> {
    fixture("double_decker_bus.jpg")
}

fn path(path: &str) -> Value {
    value!({"path": path})
}

#[track_caller]
fn refused(answer: Result<Value, StepError>, fault: Fault, again: bool, words: &str) {
    let error = answer.unwrap_err();
    assert_eq!((error.fault, error.again), (fault, again), "{error}");
    assert!(error.message.contains(words), "{error}");
    assert!(!error.hint.is_empty());
}

fn classes(answer: &Value) -> Vec<String> {
    let found = answer.get("detections").unwrap().as_list().unwrap();
    found.iter().map(|found| found.get("class").unwrap().as_text().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_is_on_a_picture() {
    let sure = value!({"model": "small", "conf": 0.5});
    let from_bytes = ask("detect", sure.clone(), Value::Bytes(bus().into())).await.unwrap();
    assert_eq!(classes(&from_bytes), ["bus", "car", "person", "car"]);
    let base64 = BASE64_STANDARD.encode(bus());
    for same in
        [path("bus.JPG"), path("./link.jpg"), value!(base64), value!(format!("data:image/jpeg;base64,{base64}"))]
    {
        assert_eq!(ask("detect", sure.clone(), same).await.as_ref(), Ok(&from_bytes));
    }
    assert_eq!(from_bytes.get("model"), Some(&value!("nanodet")), "by its own name");
    assert_eq!(from_bytes.get("image_size"), Some(&value!({"width": 546, "height": 413})));
    let first = &from_bytes.get("detections").unwrap().as_list().unwrap()[0];
    assert_eq!(first.get("class_id"), Some(&value!(5)));
    let number = |name: &str| first.get(name).unwrap().as_f64().unwrap();
    assert!(number("confidence") > 0.5 && number("x1") < number("x2") && number("y1") < number("y2"));
    assert!(number("x1").to_string().len() < 12, "as many digits as there are: {}", number("x1"));

    let cars = ask("detect", value!({"conf": 0.5, "classes": ["car"]}), path("bus.JPG")).await.unwrap();
    assert_eq!(classes(&cars), ["car", "car"]);
    let by_number = ask("detect", value!({"classes": [5], "max_det": 1, "draw": true}), path("bus.JPG")).await.unwrap();
    assert_eq!(classes(&by_number), ["bus"]);
    assert!(matches!(by_number.get("drawn"), Some(Value::Bytes(jpeg)) if jpeg.starts_with(b"\xff\xd8")));
}

#[tokio::test]
async fn what_is_no_picture_of_ours_is_refused() {
    let look = |input: Value| ask("detect", Value::Null, input);
    refused(look(path("../secret")).await, Fault::Forbidden, false, "is no path below the folder");
    refused(look(path("/etc/passwd")).await, Fault::Forbidden, false, "is no path below the folder");
    refused(look(path("deep/../../x")).await, Fault::Forbidden, false, "is no path below the folder");
    refused(look(path("out.jpg")).await, Fault::Forbidden, false, "leads out of the folder");
    refused(look(path("etc/passwd")).await, Fault::Forbidden, false, "leads out of the folder");
    refused(look(path("none.jpg")).await, Fault::Input, false, "cannot be read");
    refused(look(path("deep")).await, Fault::Input, false, "is no file");
    refused(look(path("a\0b")).await, Fault::Forbidden, false, "is no path");
    refused(look(path("note.txt")).await, Fault::Input, false, "");
    refused(look(value!("bus.JPG")).await, Fault::Input, false, "is Base64, and this is not");
    refused(look(value!(7)).await, Fault::Input, false, "a picture is bytes");
    let mut cut = bus();
    cut.truncate(1_000);
    refused(look(Value::Bytes(cut.into())).await, Fault::Input, false, "");
    refused(ask("detect", value!({"model": "smal"}), path("bus.JPG")).await, Fault::Input, false, "did you mean");
    refused(ask("detect", value!({"model": "double"}), path("bus.JPG")).await, Fault::Input, false, "does not");
    let whale = value!({"model": "small", "classes": ["whale"]});
    refused(ask("detect", whale, path("bus.JPG")).await, Fault::Input, false, "knows no class \"whale\"");
    let wrong = |said: Value| made(&REAL.registry, "detect", said).err().unwrap();
    assert_eq!(wrong(value!({"conf": 2})), "conf: a number between 0 and 1, not 2");
    assert!(wrong(value!({"max_det": 0})).starts_with("max_det: "));
    assert!(wrong(value!({"masks": "svg"})).starts_with("masks: unknown variant"));

    let none = registry_of(Parts::default());
    let nothing = |leaf: &str, said: Value| run_step(step(made(&none, leaf, said).unwrap()), path("x"), Value::Null);
    refused(nothing("detect", Value::Null).await, Fault::Failed, false, "no models are served where this runs");
    refused(nothing("read_file", Value::Null).await, Fault::Forbidden, false, "no folder is opened");
}

#[tokio::test]
async fn files_are_listed_and_read() {
    let all = value!([{"path": "bus.JPG"}, {"path": "deep/cat.png"}, {"path": "note.txt"}]);
    assert_eq!(ask("list_files", Value::Null, Value::Null).await, Ok(all), "links are not followed");
    let pictures = value!([{"path": "bus.JPG"}, {"path": "deep/cat.png"}]);
    assert_eq!(ask("list_files", value!({"endings": [".jpg", ".png"]}), Value::Null).await, Ok(pictures));
    assert_eq!(
        ask("list_files", value!({"folder": "deep/"}), Value::Null).await,
        Ok(value!([{"path": "deep/cat.png"}]))
    );
    refused(ask("list_files", value!({"folder": ".."}), Value::Null).await, Fault::Forbidden, false, "is no path");
    refused(ask("list_files", value!({"folder": "etc"}), Value::Null).await, Fault::Forbidden, false, "leads out");
    assert_eq!(ask("read_file", Value::Null, path("note.txt")).await, Ok(Value::Bytes("no picture".into())));
    assert_eq!(
        ask("read_file", value!({"path": "note.txt"}), Value::Null).await,
        Ok(Value::Bytes("no picture".into()))
    );
    assert!(Path::new(&REAL.folder.path().join("note.txt")).exists());
}

#[tokio::test]
async fn tensors_go_through_any_model() {
    let double = value!({"model": "double"});
    let rows = value!([[1, 2, 3, 4], [0.5, 0, 0, -1]]);
    let doubled = value!({"y": [[2.0, 4.0, 6.0, 8.0], [1.0, 0.0, 0.0, -2.0]]});
    assert_eq!(ask("infer", double.clone(), rows.clone()).await, Ok(doubled.clone()));
    assert_eq!(ask("infer", double.clone(), value!({"x": rows})).await, Ok(doubled));
    let flat = value!({"shape": [1, 4], "data": [1, 2, 3, 4]});
    let tensors = value!({"model": "double", "outputs": ["y"], "gives": "tensors"});
    let given = value!({"y": {"datatype": "FP32", "shape": [1, 4], "data": [2.0, 4.0, 6.0, 8.0]}});
    assert_eq!(ask("infer", tensors, value!({"x": flat})).await, Ok(given));
    let free = ask("infer", value!({"model": "free"}), value!({"a": [1, 2], "b": [3, 4]})).await;
    assert_eq!(free, Ok(value!({"sum": [4.0, 6.0]})));

    let wrong = |input: Value| ask("infer", double.clone(), input);
    refused(wrong(value!([[1, 2]])).await, Fault::Input, false, "cannot have the shape [1, 2]");
    refused(wrong(value!([[1, 2, 3, "x"]])).await, Fault::Input, false, "\"x\" is no FP32");
    refused(wrong(value!([[1, 2, 3, 4], [1]])).await, Fault::Input, false, "not all of one length");
    refused(wrong(value!({"z": [[1, 2, 3, 4]]})).await, Fault::Input, false, "has no input \"z\"");
    refused(wrong(value!({})).await, Fault::Input, false, "is missing");
    refused(ask("infer", value!({"model": "free"}), value!([1])).await, Fault::Input, false, "an object of its inputs");
    let none = ask("infer", value!({"model": "double", "outputs": ["q"]}), value!([[1, 2, 3, 4]])).await;
    refused(none, Fault::Input, false, "has no output \"q\"");
}

#[tokio::test]
async fn texts_become_vectors() {
    let one = ask("embed", Value::Null, value!("hello")).await.unwrap();
    assert_eq!(one.as_list().unwrap().len(), 16);
    let two = ask("embed", value!({"model": "encoder", "dimensions": 4}), value!(["hello", "a b"])).await.unwrap();
    assert_eq!(two.as_list().unwrap().iter().map(|vector| vector.as_list().unwrap().len()).collect::<Vec<_>>(), [4, 4]);
    refused(ask("embed", Value::Null, value!([1])).await, Fault::Input, false, "a list of up to");
    refused(ask("embed", value!({"dimensions": 99}), value!("x")).await, Fault::Input, false, "dimensions");
}

/// A model that takes its time.
fn slow(most: usize) -> (Scripted, Registry, Repo) {
    let scripted = Scripted::new(4).taking(Duration::from_millis(20), Duration::ZERO).failing_on(-1.0);
    let repo = Repo::new().model("slow", "double", "");
    let models = Some(models(&repo, Arc::new(scripted.clone()), most).into());
    (scripted, registry_of(Parts { models, ..Parts::default() }), repo)
}

fn row(first: i32) -> Value {
    value!([[first, 0, 0, 0]])
}

fn definition(registry: &Registry) -> Definition {
    Definition::new("slow", Steps::new([step(made(registry, "infer", value!({"model": "slow"})).unwrap())]))
}

#[tokio::test]
async fn runs_share_batches() {
    let (scripted, registry, _repo) = slow(64);
    let before = scripted.log().sizes().len();
    let (engine, definition) = (Engine::new(Options::default()), definition(&registry));
    let runs = (0..24).map(|n| engine.run(&definition, row(n), RunOptions::default()));
    for (n, ran) in futures_util::future::join_all(runs).await.into_iter().enumerate() {
        let doubled = f64::from(u32::try_from(n).unwrap()) * 2.0;
        assert_eq!(ran.outcome, Outcome::Completed(value!({"y": [[doubled, 0.0, 0.0, 0.0]]})));
    }
    let sizes = &scripted.log().sizes()[before..];
    assert_eq!(sizes.iter().sum::<usize>(), 24);
    assert!(sizes.iter().any(|rows| *rows > 1), "{sizes:?}");
}

#[tokio::test]
async fn a_model_that_fails_or_is_full_fails_the_step() {
    let (_, registry, _repo) = slow(2);
    let (engine, definition) = (Engine::new(Options::default()), definition(&registry));
    let error = |outcome: Outcome| match outcome {
        Outcome::Failed(RunError::Step { error, .. }) => error,
        other => panic!("{other:?}"),
    };
    let failed = error(engine.run(&definition, row(-1), RunOptions::default()).await.outcome);
    assert_eq!((failed.fault, failed.again), (Fault::Failed, true), "{failed}");
    let runs = (0..12).map(|n| engine.run(&definition, row(n), RunOptions::default()));
    let outcomes = futures_util::future::join_all(runs).await.into_iter().map(|ran| ran.outcome);
    let full: Vec<StepError> =
        outcomes.filter(|outcome| !matches!(outcome, Outcome::Completed(_))).map(error).collect();
    assert!(!full.is_empty());
    assert!(full.iter().all(|error| error.fault == Fault::TooManyRequests && error.after.is_some()), "{full:?}");
}

#[tokio::test]
async fn nobody_waits_longer_than_the_run_may_take() {
    let scripted = Scripted::new(4).taking(Duration::from_millis(400), Duration::ZERO);
    let repo = Repo::new().model("slow", "double", "");
    let registry =
        registry_of(Parts { models: Some(models(&repo, Arc::new(scripted), 64).into()), ..Parts::default() });
    let began = Instant::now();
    let options = RunOptions { timeout: Some(Duration::from_millis(60)), ..RunOptions::default() };
    let ran = Engine::new(Options::default()).run(&definition(&registry), row(1), options).await;
    assert!(matches!(ran.outcome, Outcome::Failed(_)), "{:?}", ran.outcome);
    assert!(began.elapsed() < Duration::from_millis(350), "{:?}", began.elapsed());
}
