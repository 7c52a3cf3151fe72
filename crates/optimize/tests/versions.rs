//! Versions made from real models, run by ONNX Runtime.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::Duration,
};

use caudal_engine::{Backend, LoadOptions, Provider, repository::Repository};
use caudal_engine_ort::{OnnxRuntime, locate_library};
use caudal_optimize::{
    Agreement, FusedPart, ModelContext, OptimizeError, OptimizeOptions, RunConfig, WriteChoice, fuse_model,
    optimize_model,
};
use caudal_tasks::{ByteBudget, Decoders, Defaults, Pictures};
use caudal_testkit::{Repo, fixture, fixture_path};
use caudal_types::{CpuPlan, DType, TensorView};
use caudal_vision::Limits;

static BACKEND: LazyLock<Arc<OnnxRuntime>> = LazyLock::new(|| {
    let (path, source) = locate_library(None).expect("run `cargo xtask setup` first");
    Arc::new(OnnxRuntime::load_library(&path, source).expect("the library that setup installs can be loaded"))
});

/// The only model of `repo`, ready to be worked on.
fn site(repo: &Repo) -> ModelContext {
    let defaults = Defaults {
        providers: vec![Provider::Cpu],
        cpus: CpuPlan::for_cpus(2),
        instances: None,
        threads: None,
        max_batch_size: None,
        max_queue_delay: Duration::ZERO,
        max_queue_size: 8,
        max_queue_bytes: 1 << 28,
        run_limit: Duration::from_secs(30),
    };
    let limits = Limits { max_pixels: 1 << 26 };
    ModelContext {
        folder: Repository::open(&repo.path("")).unwrap().list_models().unwrap().remove(0),
        backend: BACKEND.clone(),
        ways: RunConfig::alternatives_to(&**BACKEND, RunConfig::default()),
        defaults,
        pictures: Pictures::new(Decoders::start(2).unwrap(), ByteBudget::new(1 << 30), limits),
    }
}

fn image_paths(names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(|name| fixture_path(name)).collect()
}

fn order(images: &[&str], only: &str) -> OptimizeOptions {
    let only = vec![only.to_owned()];
    OptimizeOptions {
        images: image_paths(images),
        labels: None,
        max_loss: 0.02,
        only,
        write: WriteChoice::Best,
        time: Duration::ZERO,
    }
}

fn selfie() -> Repo {
    Repo::new().file("selfie/1/model.onnx", &fixture("models/selfie.onnx"))
}

/// The entries of the model's folder.
fn entries(site: &ModelContext) -> Vec<String> {
    let names = fs::read_dir(&site.folder.path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn fused_nms_handles_batch_rows_separately() {
    let repo = Repo::nanodet("thresholds: {max_det: 5}");
    let site = site(&repo);
    let fused = fuse_model(&site, None, &image_paths(&["double_decker_bus.jpg"])).unwrap();
    assert_eq!((fused.parts, fused.version.number), (vec![FusedPart::Preprocess, FusedPart::Suppress], 2));
    let mut instance =
        BACKEND.load_model(&fused.version.file, &LoadOptions::for_cpu(1)).unwrap().create_instance(1).unwrap();
    // Different contents: a gradient, noise, nothing.
    let row = 416 * 416 * 3;
    let rows: [Vec<u8>; 3] = [
        (0..row).map(|i| (i / 3 % 416 / 2) as u8).collect(),
        (0..row as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect(),
        vec![0; row],
    ];
    let mut run = |rows: &[Vec<u8>]| {
        let bytes = rows.concat();
        let shape = [rows.len(), 416, 416, 3];
        let mut outputs = Vec::new();
        let view = TensorView { dtype: DType::U8, shape: &shape, bytes: &bytes };
        instance
            .run(&[view], &mut |views| {
                outputs = views.iter().map(|view| (view.shape.to_vec(), view.bytes.to_vec())).collect();
            })
            .unwrap();
        outputs
    };
    let together = run(&rows);
    let apart: Vec<_> = rows.iter().map(|row| run(std::slice::from_ref(row))).collect();
    assert_eq!(together[1].0, [3, 5, 4]);
    for (output, (shape, bytes)) in together.iter().enumerate() {
        assert_eq!(shape[0], 3);
        let each: Vec<u8> = apart.iter().flat_map(|outputs| outputs[output].1.clone()).collect();
        assert!(*bytes == each, "output {output}");
    }
}

#[test]
fn parts_can_be_fused_one_after_the_other() {
    for first in [FusedPart::Preprocess, FusedPart::Suppress] {
        let repo = Repo::new().model("m", "yolov5", "labels: [\"child's toy\", b]\nthresholds: {max_det: 2}");
        let site = site(&repo);
        let half = fuse_model(&site, Some(first), &[]).unwrap();
        assert_eq!(
            (half.parts.as_slice(), half.found),
            (&[first][..], 8),
            "two boxes on each of four synthetic images"
        );
        let again = fuse_model(&site, Some(first), &[]).unwrap_err();
        assert!(matches!(again, OptimizeError::NothingToFuse { .. }), "{again}");
        let whole = fuse_model(&site, None, &[]).unwrap();
        assert_eq!((whole.parts.len(), whole.version.number, whole.found), (1, 3, 8));
        assert!(matches!(fuse_model(&site, None, &[]), Err(OptimizeError::NothingToFuse { .. })));
        assert_eq!(entries(&site), ["1", "2", "3", "model.yaml"]);
    }
}

#[test]
fn unfusable_models_are_left_unchanged() {
    for (repo, only, words) in [
        (Repo::new().model("m", "double", ""), None, "the model m is not an image model"),
        (selfie(), Some(FusedPart::Suppress), "it gives no boxes"),
        (Repo::new().model("m", "end2end", ""), Some(FusedPart::Suppress), "it already has NMS"),
        (
            Repo::new().model("m", "ssd", "preprocessing: {size: [64, 64]}"),
            Some(FusedPart::Preprocess),
            "it already takes bytes",
        ),
    ] {
        let site = site(&repo);
        let error = fuse_model(&site, only, &[]).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert!(!site.folder.path.join("2").exists());
    }
}

#[test]
fn int8_detector_keeps_its_boxes() {
    let repo = Repo::nanodet("");
    let site = site(&repo);
    let order = order(&["double_decker_bus.jpg", "chelsea.png", "coffee.png"], "int8-chains-squares");
    let report = optimize_model(&site, &order, &mut |_| {}).unwrap();
    let [before, after] = &report.rows[..] else { panic!("{report:?}") };
    assert_eq!((&*before.name, &*after.name), ("serving", "int8-chains-squares"));
    let Ok((_, accuracy)) = &after.tried else { panic!("{report:?}") };
    assert!(accuracy.loss <= 0.02, "{report:?}");
    let Agreement::Boxes { of, shift, .. } = accuracy.agreement else { panic!("{report:?}") };
    assert!(of >= 4 && shift > 0.0, "they are other numbers: {report:?}");
    assert!(after.bytes * 3 < before.bytes * 2, "its weights are smaller, {} of {}", after.bytes, before.bytes);
}

#[test]
fn graph_optimization_levels_agree_and_write_no_version() {
    let repo = selfie();
    let site = site(&repo);
    let report = optimize_model(&site, &order(&["astronaut.png"], "serving"), &mut |_| {}).unwrap();
    let ways: Vec<String> = report.rows.iter().map(|row| row.way.to_model_yaml()).collect();
    let named = |level| format!("providers: [cpu], graph_optimization: {level}");
    assert_eq!(ways[..4], ["providers: [cpu]".to_owned(), named("extended"), named("basic"), named("none")]);
    assert!(
        report.rows.iter().all(|row| row.tried.as_ref().is_ok_and(|(_, accuracy)| accuracy.loss < 0.001)),
        "{report:?}"
    );
    assert!(report.written.is_none());
    assert_eq!(entries(&site), ["1"]);
}

#[test]
fn version_above_loss_bound_is_not_written() {
    let repo = selfie();
    let site = site(&repo);
    let named = OptimizeOptions { write: WriteChoice::Named("int8".to_owned()), ..order(&["astronaut.png"], "int8") };
    let error = optimize_model(&site, &OptimizeOptions { max_loss: 0.0, ..named.clone() }, &mut |_| {}).unwrap_err();
    assert!(matches!(error, OptimizeError::LosesTooMuch { .. }), "{error}");
    assert_eq!(entries(&site), ["1"], "nothing is left behind");
    let report = optimize_model(&site, &OptimizeOptions { max_loss: 0.1, ..named }, &mut |_| {}).unwrap();
    assert_eq!(report.written.unwrap().number, 2);
    assert_eq!(entries(&site), ["1", "2"]);
}

#[test]
fn fp16_predictions_are_close() {
    let repo = selfie();
    let site = site(&repo);
    let order = OptimizeOptions { write: WriteChoice::Named("fp16".to_owned()), ..order(&["astronaut.png"], "fp16") };
    let report = optimize_model(&site, &order, &mut |_| {}).unwrap();
    assert!(report.rows[1].bytes * 10 < report.rows[0].bytes * 7, "{report:?}");
    assert_eq!(report.written.unwrap().number, 2);
}

#[test]
fn labels_give_mean_precision() {
    let repo = Repo::new().model("m", "yolov5", "thresholds: {conf: 0.1}");
    let site = site(&repo);
    let labels = tempfile::tempdir().unwrap();
    let image = "double_decker_bus.jpg";
    let order = || OptimizeOptions { labels: Some(labels.path().to_owned()), ..order(&[image], "simplified") };
    let run = || optimize_model(&site, &order(), &mut |_| {});
    let error = run().unwrap_err().to_string();
    assert!(error.contains("no image has a box"), "{error}");
    let file = labels.path().join("double_decker_bus.txt");
    fs::write(&file, "0 0.3 0.2 0.25\n").unwrap();
    let error = run().unwrap_err().to_string();
    assert!(error.contains("line 1") && error.contains("is not `class cx cy width height`"), "{error}");
    // 546 by 413 pixels in 64 by 48 below a margin of 8: the box around (20, 20), 16 by 16, of class 0.
    let tall = 16.0 / (413.0 * 64.0 / 546.0);
    fs::write(&file, format!("0 0.3125 {} 0.25 {tall}\n", (20.0 - 8.0) / 16.0 * tall)).unwrap();
    let report = run().unwrap();
    let Ok((_, accuracy)) = &report.rows[0].tried else { panic!("{report:?}") };
    let precision = accuracy.precision.unwrap();
    assert!(precision.map_50 > 0.99 && precision.map_50_95 > 0.9, "{precision:?}");
}

#[test]
fn model_without_detections_is_refused() {
    let repo = Repo::nanodet("thresholds: {conf: 1}");
    let site = site(&repo);
    let error = optimize_model(&site, &order(&[], "int8"), &mut |_| {}).unwrap_err();
    assert!(matches!(error, OptimizeError::NoImages), "{error}");
    let error = optimize_model(&site, &order(&["coffee.png"], "int8"), &mut |_| {}).unwrap_err();
    assert!(matches!(error, OptimizeError::NothingFound(_)), "{error}");
}
