//! Before a new version takes the place of the one that serves it answers what that one was asked last, aside.

use std::time::{Duration, Instant};

use caudal_batcher::RecordedRun;
use caudal_engine::{Instance, RunError, TensorSpec, repository::ShadowValidation};
use caudal_types::{Shape, TensorView};

use crate::{ServedModel, limit::work_within, numbers::number};

/// What came out of one run: the numbers of each output, and how long it took.
struct Answered {
    outputs: Vec<(Shape, Vec<f64>)>,
    took: Duration,
}

/// Lets `new` answer what `old` was asked last, both one run at a time and in turn. Says in words why it may not take
/// its place, if so.
pub(crate) fn prove(old: &ServedModel, new: &ServedModel, asked: &ShadowValidation) -> Result<(), String> {
    let kept = old.queue.recent_runs();
    if kept.is_empty() {
        return Err("it has nothing to prove itself on: the version that serves has kept no inputs yet".to_owned());
    }
    check_specs(&old.spec.inputs, &new.spec.inputs, "takes")?;
    check_specs(&old.spec.outputs, &new.spec.outputs, "gives")?;
    let runner = |model: &ServedModel| {
        let instance = model.model.create_instance(model.plan().threads).map_err(|error| error.to_string())?;
        Ok::<_, String>(Runner { instance, limit: model.run_limit })
    };
    let (mut old_runner, mut new_runner) = (runner(old)?, runner(new)?);
    let (mut deviation, mut slowdowns) = (0.0, Vec::new());
    for (i, run) in kept.iter().enumerate() {
        if i == 0 {
            // The first lays out memory.
            old_runner.answer(run)?;
            new_runner.answer(run)?;
        }
        let (before, after) = (old_runner.answer(run)?, new_runner.answer(run)?);
        deviation = f64::max(deviation, deviates(&before, &after)?);
        slowdowns.push(after.took.as_secs_f64() / before.took.as_secs_f64().max(1e-9));
    }
    slowdowns.sort_unstable_by(f64::total_cmp);
    let slowdown = slowdowns[slowdowns.len() / 2];
    let runs = kept.len();
    if deviation > asked.tolerance {
        return Err(format!(
            "its answers deviate by {deviation:.2e} in {runs} runs, {:.2e} is allowed",
            asked.tolerance
        ));
    }
    if slowdown > asked.max_slowdown {
        return Err(format!(
            "a run takes {slowdown:.2} times as long in the median of {runs}, {} is allowed",
            asked.max_slowdown
        ));
    }
    tracing::info!(model = new.name, version = new.version, runs, deviation, slowdown, "the new version proved itself");
    Ok(())
}

fn check_specs(old: &[TensorSpec], new: &[TensorSpec], does: &str) -> Result<(), String> {
    let alike = |(old, new): (&TensorSpec, &TensorSpec)| old.name == new.name && old.dtype == new.dtype;
    match old.len() == new.len() && old.iter().zip(new).all(alike) {
        true => Ok(()),
        false => Err(format!("it {does} other tensors than the version that serves, and cannot be compared with it")),
    }
}

/// Runs what was kept on one of the two. The inputs are callers', and a model's time may follow from them.
struct Runner {
    instance: Box<dyn Instance>,
    /// Longest that a run may take.
    limit: Duration,
}

impl Runner {
    fn answer(&mut self, run: &RecordedRun) -> Result<Answered, String> {
        let (views, mut outputs, mut took) = (run.input_views(), Vec::new(), Duration::ZERO);
        let ran = work_within(self.limit, &mut *self.instance, |instance| {
            let began = Instant::now();
            instance.run(&views, &mut |views| {
                took = began.elapsed();
                outputs = views.iter().map(|view| (view.shape.to_vec(), numbers(view))).collect();
            })
        });
        ran.map_err(|error| match error {
            RunError::Interrupted => format!("a run was stopped after {:.1} s", self.limit.as_secs_f64()),
            error @ RunError::Failed(_) => error.for_log().into_owned(),
        })?;
        Ok(Answered { outputs, took })
    }
}

fn numbers(view: &TensorView<'_>) -> Vec<f64> {
    let count = view.bytes.len() / view.dtype.size().max(1);
    (0..count).map(|at| number(view.dtype, view.bytes, at)).collect()
}

/// The largest difference between two numbers that stand in the same place, relative where they are above 1.
fn deviates(before: &Answered, after: &Answered) -> Result<f64, String> {
    let mut most = 0.0;
    for ((old_shape, old), (new_shape, new)) in before.outputs.iter().zip(&after.outputs) {
        if old_shape != new_shape {
            return Err(format!("it gives {new_shape:?} where the version that serves gives {old_shape:?}"));
        }
        for (a, b) in old.iter().zip(new) {
            let differs = (a - b).abs() / a.abs().max(1.0);
            // What is not a number deviates from all that is one.
            most =
                f64::max(most, if differs.is_nan() && !(a.is_nan() && b.is_nan()) { f64::INFINITY } else { differs });
        }
    }
    Ok(most)
}
