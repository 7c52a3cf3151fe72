//! What every backend must do, as tests that run over any of them.
//!
//! The models they run double float32 rows: `x` `[n, 4]` into `y` `[n, 4]`.

use std::{path::Path, sync::Arc, thread, time::Duration};

use caudal_engine::{Backend, Instance, LoadError, LoadOptions, Model, Provider, RunError};
use caudal_types::{DType, TensorView};

use crate::{f32_bytes, f32_values};

fn run(instance: &mut dyn Instance, rows: usize, values: &[f32]) -> Result<Vec<f32>, RunError> {
    let mut doubled = Vec::new();
    let input = TensorView { dtype: DType::F32, shape: &[rows, values.len() / rows.max(1)], bytes: &f32_bytes(values) };
    instance.run(&[input], &mut |outputs| {
        assert_eq!(outputs.len(), 1);
        assert_eq!(outputs[0].shape, input.shape);
        doubled = f32_values(outputs[0].bytes);
    })?;
    Ok(doubled)
}

/// All of the contract that needs no slow model, for `backend` with a doubling model at `file`.
pub fn check(backend: &dyn Backend, file: &Path) {
    let model = backend.load_model(file, &LoadOptions::for_cpu(1)).unwrap();
    spec_is_read(&*model);
    rows_are_independent(&*model);
    a_bad_input_fails_and_harms_nothing(&*model);
    instances_run_side_by_side(&*model);
    a_reset_without_a_stop_is_harmless(&*model);
    what_is_no_model_is_refused(backend);
    a_provider_that_is_missing_is_named(backend, file);
    threads_of_their_own_give_the_same_answers(backend, file);
}

fn spec_is_read(model: &dyn Model) {
    let spec = model.spec();
    assert_eq!(spec.inputs[0].to_string(), "x FP32 [n, 4]");
    assert_eq!(spec.outputs[0].to_string(), "y FP32 [n, 4]");
    assert!(spec.has_batch_dimension());
}

fn rows_are_independent(model: &dyn Model) {
    let mut instance = model.create_instance(1).unwrap();
    let rows: Vec<f32> = (0..12).map(|i| i as f32).collect();
    let together = run(&mut *instance, 3, &rows).unwrap();
    let alone: Vec<f32> = rows.chunks(4).flat_map(|row| run(&mut *instance, 1, row).unwrap()).collect();
    assert_eq!(together, alone);
    assert_eq!(together[5], 10.0);
}

fn a_bad_input_fails_and_harms_nothing(model: &dyn Model) {
    let mut instance = model.create_instance(1).unwrap();
    assert!(matches!(run(&mut *instance, 1, &[1.0; 5]), Err(RunError::Failed(_))));
    let nothing = instance.run(&[], &mut |_| panic!("there can be no output"));
    assert!(matches!(nothing, Err(RunError::Failed(_))));
    assert_eq!(run(&mut *instance, 1, &[1.0; 4]).unwrap(), [2.0; 4]);
}

fn instances_run_side_by_side(model: &dyn Model) {
    thread::scope(|scope| {
        for offset in 0..4 {
            let mut instance = model.create_instance(1).unwrap();
            scope.spawn(move || {
                for i in 0..200 {
                    let value = (offset * 1000 + i) as f32;
                    assert_eq!(run(&mut *instance, 1, &[value; 4]).unwrap(), [value * 2.0; 4]);
                }
            });
        }
    });
}

fn a_reset_without_a_stop_is_harmless(model: &dyn Model) {
    let mut instance = model.create_instance(1).unwrap();
    instance.interrupt_handle().allow_runs();
    assert!(run(&mut *instance, 1, &[1.0; 4]).is_ok());
}

fn what_is_no_model_is_refused(backend: &dyn Backend) {
    let error = backend.load_model(Path::new("/nowhere/model.onnx"), &LoadOptions::for_cpu(1)).err().unwrap();
    assert!(error.to_string().contains("/nowhere/model.onnx"), "{error}");
}

/// No backend has all: what it has not it must refuse, and never run on another.
fn a_provider_that_is_missing_is_named(backend: &dyn Backend, file: &Path) {
    let has = backend.providers();
    assert!(has.contains(&Provider::Cpu));
    for wanted in Provider::ALL.into_iter().filter(|provider| !has.contains(provider)) {
        let error =
            backend.load_model(file, &LoadOptions { provider: wanted, ..LoadOptions::for_cpu(1) }).err().unwrap();
        assert!(matches!(&error, LoadError::NoProvider { wanted: named, .. } if *named == wanted), "{error}");
    }
}

fn threads_of_their_own_give_the_same_answers(backend: &dyn Backend, file: &Path) {
    let model = backend.load_model(file, &LoadOptions::for_cpu(2)).unwrap();
    for threads in [2, 2, 1, 3] {
        let mut instance = model.create_instance(threads).unwrap();
        assert_eq!(run(&mut *instance, 2, &[3.0; 8]).unwrap(), [6.0; 8]);
    }
}

/// A run of `model`, which takes seconds for these rows, ends at once when it is stopped; the next one runs.
pub fn check_interrupt(model: &Arc<dyn Model>, rows: usize, width: usize) {
    let mut instance = model.create_instance(1).unwrap();
    let interrupt = instance.interrupt_handle();
    let stopper = Arc::clone(&interrupt);
    let thread = thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        stopper.stop_run();
    });
    let values = vec![1.0; rows * width];
    let began = std::time::Instant::now();
    assert!(matches!(run(&mut *instance, rows, &values), Err(RunError::Interrupted)));
    assert!(began.elapsed() < Duration::from_secs(1), "it took {:?} to stop", began.elapsed());
    thread.join().unwrap();
    interrupt.allow_runs();
    assert!(run(&mut *instance, 1, &values[..width]).is_ok());
}
