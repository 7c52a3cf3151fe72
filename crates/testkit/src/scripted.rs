//! A model that does what a test tells it to: how long a run takes, on which values it fails.

use std::{
    path::Path,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use caudal_engine::{
    Backend, Dim, Instance, Interrupt, LoadError, LoadOptions, Model, ModelSpec, OutputSink, Provider, RunError,
    TensorSpec,
};
use caudal_types::{DType, TensorView};

use crate::{f32_bytes, f32_values};

/// Doubles float32 rows `x` `[n, width]` into `y` `[n, width]`.
#[derive(Debug, Clone)]
pub struct Scripted {
    spec: ModelSpec,
    script: Script,
}

#[derive(Debug, Clone, Default)]
struct Script {
    run_takes: Duration,
    row_takes: Duration,
    fails_on: Option<f32>,
    panics_on: Option<f32>,
    log: Log,
}

/// What the instances of a scripted model have done.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<LogInner>);

#[derive(Debug, Default)]
struct LogInner {
    runs: Mutex<Vec<Vec<f32>>>,
    stopped: AtomicUsize,
}

impl Log {
    /// The first value of every row, run by run.
    pub fn runs(&self) -> Vec<Vec<f32>> {
        self.0.runs.lock().unwrap().clone()
    }

    /// Rows of every run.
    pub fn sizes(&self) -> Vec<usize> {
        self.runs().iter().map(Vec::len).collect()
    }

    /// Runs that were stopped half way.
    pub fn stopped(&self) -> usize {
        self.0.stopped.load(Ordering::SeqCst)
    }
}

impl Scripted {
    /// A model of rows `width` wide that answers at once.
    pub fn new(width: usize) -> Self {
        Self::of(Dim::Fixed(width))
    }

    /// The same for rows of any length.
    pub fn ragged() -> Self {
        Self::of(Dim::Free("length".to_owned()))
    }

    fn of(width: Dim) -> Self {
        let tensor = |name: &str| TensorSpec {
            name: name.to_owned(),
            dtype: DType::F32,
            dims: vec![Dim::Free("n".to_owned()), width.clone()],
        };
        let spec = ModelSpec { inputs: vec![tensor("x")], outputs: vec![tensor("y")], ..Default::default() };
        Self { spec, script: Script::default() }
    }

    /// Every run takes `run`, and `row` more for each row.
    #[must_use]
    pub fn taking(mut self, run: Duration, row: Duration) -> Self {
        (self.script.run_takes, self.script.row_takes) = (run, row);
        self
    }

    /// A run fails when a row begins with `value`.
    #[must_use]
    pub fn failing_on(mut self, value: f32) -> Self {
        self.script.fails_on = Some(value);
        self
    }

    /// A run panics when a row begins with `value`.
    #[must_use]
    pub fn panicking_on(mut self, value: f32) -> Self {
        self.script.panics_on = Some(value);
        self
    }

    /// What happened.
    pub fn log(&self) -> Log {
        self.script.log.clone()
    }
}

impl Backend for Scripted {
    fn describe_version(&self) -> String {
        "a script".to_owned()
    }

    fn providers(&self) -> Vec<Provider> {
        vec![Provider::Cpu]
    }

    fn load_model(&self, file: &Path, options: &LoadOptions) -> Result<Arc<dyn Model>, LoadError> {
        if options.provider != Provider::Cpu {
            return Err(LoadError::NoProvider { wanted: options.provider, has: self.providers() });
        }
        if !file.is_file() {
            return Err(LoadError::Unreadable {
                file: file.display().to_string(),
                reason: "it is not there".to_owned(),
            });
        }
        Ok(Arc::new(self.clone()))
    }
}

impl Model for Scripted {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn create_instance(&self, _threads: usize) -> Result<Box<dyn Instance>, LoadError> {
        Ok(Box::new(Actor { spec: self.spec.clone(), script: self.script.clone(), stop: Arc::default() }))
    }
}

struct Actor {
    spec: ModelSpec,
    script: Script,
    stop: Arc<Stop>,
}

#[derive(Default)]
struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Interrupt for Stop {
    fn stop_run(&self) {
        *self.stopped.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn allow_runs(&self) {
        *self.stopped.lock().unwrap() = false;
    }
}

impl Instance for Actor {
    fn run(&mut self, inputs: &[TensorView<'_>], outputs: &mut OutputSink<'_>) -> Result<(), RunError> {
        let fits =
            inputs.len() == 1 && self.spec.inputs[0].accepts_shape(inputs[0].shape) && inputs[0].dtype == DType::F32;
        if !fits {
            return Err(RunError::Failed("the input does not fit the model".to_owned()));
        }
        let (values, rows) = (f32_values(inputs[0].bytes), inputs[0].shape[0]);
        let firsts: Vec<f32> = values.chunks(inputs[0].shape[1].max(1)).map(|row| row[0]).collect();
        self.script.log.0.runs.lock().unwrap().push(firsts.clone());
        self.work(rows)?;
        let holds = |value: Option<f32>| value.is_some_and(|value| firsts.contains(&value));
        assert!(!holds(self.script.panics_on), "the script says panic");
        if holds(self.script.fails_on) {
            return Err(RunError::Failed("the script says fail".to_owned()));
        }
        let doubled: Vec<f32> = values.iter().map(|value| value * 2.0).collect();
        outputs(&[TensorView { dtype: DType::F32, shape: inputs[0].shape, bytes: &f32_bytes(&doubled) }]);
        Ok(())
    }

    fn interrupt_handle(&self) -> Arc<dyn Interrupt> {
        Arc::clone(&self.stop) as _
    }
}

impl Actor {
    /// Takes the time the script says, unless stopped.
    fn work(&self, rows: usize) -> Result<(), RunError> {
        let end = Instant::now() + self.script.run_takes + self.script.row_takes * rows as u32;
        let mut stopped = self.stop.stopped.lock().unwrap();
        loop {
            if *stopped {
                self.script.log.0.stopped.fetch_add(1, Ordering::SeqCst);
                return Err(RunError::Interrupted);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            stopped = self.stop.changed.wait_timeout(stopped, left).unwrap().0;
        }
    }
}
