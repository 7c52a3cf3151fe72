//! From a folder to a model that serves: check, open, warm up, measure, plan, recognise.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use caudal_batcher::{Instances, Policy, Queue};
use caudal_engine::{
    Backend, Instance, LoadError, Model, ModelSpec, RunError, TensorSpec,
    repository::{FolderError, ModelFolder, ModelSettings, ModelVersion, OnnxFile},
};
use caudal_types::{CpuPlan, ErrorKind, Explain, Shape, TensorView};

use crate::{Measured, RunPlan, ServedModel, fused, plan::Asked, recognise};

/// What holds for every model that says nothing else in its own settings.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// Cores to share.
    pub cpus: CpuPlan,
    /// Instances that run at once; planned when none.
    pub instances: Option<usize>,
    /// Threads within one run; planned when none.
    pub threads: Option<usize>,
    /// Most rows in one run; planned when none.
    pub max_batch_size: Option<usize>,
    /// How long a free instance waits for more rows.
    pub max_queue_delay: Duration,
    /// Most entries that wait for one model.
    pub max_queue_size: usize,
    /// Most bytes that these hold.
    pub max_queue_bytes: usize,
}

/// Why a model does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Its folder is at fault.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The backend could not open it.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It opened and would not run.
    #[error("the model {0} opened and failed its first run: {1}")]
    WarmUp(String, RunError),
    /// Its settings and its file do not agree.
    #[error("the model {0} cannot be used as its settings say: {1}")]
    Mismatch(String, String),
}

impl Explain for ModelError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::ModelNotReady
    }

    fn hint(&self) -> Cow<'static, str> {
        match self {
            Self::Folder(_) => "`caudal models doctor` tells what is wrong and how to mend it".into(),
            Self::Load(error) => error.hint(),
            Self::WarmUp(..) => "check the export; preprocessing.size in model.yaml sets free picture sizes".into(),
            Self::Mismatch(..) => "correct model.yaml; docs/models.md lists its keys".into(),
        }
    }
}

/// How long one size is measured at most, beyond its first run: the server should be ready soon.
const QUICK: Duration = Duration::from_millis(10);

/// Bytes of a model of which a second copy costs little.
const SMALL_FILE: u64 = 256 << 20;

fn is_small(file: &OnnxFile) -> bool {
    file.external_files.is_empty() && file.bytes <= SMALL_FILE
}

/// Makes the model in `folder` serve.
pub fn load(folder: &ModelFolder, backend: &dyn Backend, defaults: &Defaults) -> Result<ServedModel, ModelError> {
    let settings = folder.settings().map_err(FolderError::from)?;
    let version = folder.serving_version(&settings)?;
    load_version(folder, &version, settings, backend, defaults)
}

/// Makes `version` of the model in `folder` serve, as `settings` say.
pub fn load_version(
    folder: &ModelFolder,
    version: &ModelVersion,
    mut settings: ModelSettings,
    backend: &dyn Backend,
    defaults: &Defaults,
) -> Result<ServedModel, ModelError> {
    let file = folder.inspect(version)?;
    let labels = folder.labels(&settings)?;
    let mismatch = |reason: String| ModelError::Mismatch(folder.name.clone(), reason);

    let asked_instances = settings.instances.or(defaults.instances);
    let asked_threads = settings.threads.or(defaults.threads);
    let (instances, threads) = defaults.cpus.instances(asked_instances, asked_threads);
    let model = backend.load(&version.file, threads)?;
    let spec = model.spec().clone();
    fused::settle(&mut settings, &spec);
    let joined = may_join(&spec, &settings).map_err(mismatch)?;
    let picture = recognise::picture_input(&spec, &settings);

    let mut warm = WarmUp::new(&spec, folder);
    let mut first = model.instance(threads)?;
    let shapes = |rows| recognise::warmup_shapes(&spec, picture.as_ref(), rows);
    let outputs = warm.first_run(&mut *first, &shapes(1))?;
    let measured = warm.measure(&mut *first, &shapes, joined)?;
    let task = recognise::task(&spec, &settings, picture, outputs.as_deref(), labels).map_err(mismatch)?;

    let asked_batch = settings.batching.max_batch_size.or(defaults.max_batch_size);
    let asked = Asked {
        instances: asked_instances,
        max_batch_size: asked_batch,
        threads: asked_threads.is_some(),
        may_join: joined,
    };
    let open =
        RunPlan { instances, threads, max_batch_size: 1, max_request_rows: 1, in_place_rows: 0, wide_threads: None };
    let mut plan = open.settle(&asked, &measured, bounded(&spec, joined));
    let mut side_by_side = vec![first];
    while side_by_side.len() < plan.instances {
        let mut runner = model.instance(threads)?;
        warm.first_run(&mut *runner, &shapes(1))?;
        side_by_side.push(runner);
    }
    let mut wide = None;
    if let Some(threads) = plan.try_wide(&asked, &measured, defaults.cpus.cpus).filter(|_| is_small(&file)) {
        wide = warm.wide(&*model, threads, &shapes(1), &measured)?;
        plan.wide_threads = wide.as_ref().map(|_| threads);
    }
    let instances = Instances { side_by_side, wide };
    let queue = Queue::start(&folder.name, &spec, instances, policy(&settings, defaults, &plan))?;
    Ok(ServedModel { name: folder.name.clone(), version: version.number, spec, task, plan, measured, joined, queue })
}

/// Whether rows of several requests may share a run. Settings can say so of a model whose first dimensions are
/// free and unnamed, not of one whose first dimensions are fixed.
fn may_join(spec: &ModelSpec, settings: &ModelSettings) -> Result<bool, String> {
    let said = settings.batching.max_batch_size.is_some_and(|size| size > 1);
    let fixed = |tensor: &&TensorSpec| tensor.dims.first().is_none_or(|dim| dim.fixed().is_some());
    match spec.inputs.iter().find(fixed) {
        Some(tensor) if said => {
            Err(format!("batching.max_batch_size is above 1, and the first dimension of {tensor} cannot grow"))
        }
        Some(_) => Ok(false),
        None => Ok(said || spec.batched()),
    }
}

/// Whether a run's size follows from its rows alone.
fn bounded(spec: &ModelSpec, joined: bool) -> bool {
    spec.inputs.iter().all(|tensor| tensor.dims.iter().skip(usize::from(joined)).all(|dim| dim.fixed().is_some()))
}

fn policy(settings: &ModelSettings, defaults: &Defaults, plan: &RunPlan) -> Policy {
    let own = &settings.batching;
    Policy {
        max_batch_size: plan.max_batch_size,
        max_queue_delay: own
            .max_queue_delay_ms
            .map_or(defaults.max_queue_delay, |ms| Duration::from_secs_f64(ms / 1e3)),
        max_queue_size: own.max_queue_size.unwrap_or(defaults.max_queue_size),
        max_queue_bytes: own.max_queue_mb.map_or(defaults.max_queue_bytes, |mb| mb << 20),
        run_in_place: plan.in_place_rows,
    }
}

struct WarmUp<'a> {
    spec: &'a ModelSpec,
    folder: &'a ModelFolder,
    /// Whether zeros are an input that the model can run: with free dimensions they may not be.
    runnable: bool,
}

impl<'a> WarmUp<'a> {
    fn new(spec: &'a ModelSpec, folder: &'a ModelFolder) -> Self {
        Self { spec, folder, runnable: true }
    }

    /// Runs zeros once: memory is laid out and pages are touched before anybody waits. Gives the shapes that came
    /// out; none if the model has free dimensions and does not like what we chose for them.
    fn first_run(&mut self, instance: &mut dyn Instance, shapes: &[Shape]) -> Result<Option<Vec<Shape>>, ModelError> {
        let free = self.spec.inputs.iter().any(|input| input.row_dims().iter().any(|dim| dim.fixed().is_none()));
        let mut outputs = Vec::new();
        match self.run(instance, shapes, &mut outputs) {
            Ok(()) => Ok(Some(outputs)),
            Err(error) if free => {
                tracing::info!(model = self.folder.name, %error, "no warm-up: the model's shapes are free");
                self.runnable = false;
                Ok(None)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    fn measure(
        &self,
        instance: &mut dyn Instance,
        shapes: &dyn Fn(usize) -> Vec<Shape>,
        joined: bool,
    ) -> Result<Measured, ModelError> {
        if !self.runnable {
            // Nothing is known, so nothing tiny is assumed and nothing is joined.
            return Ok(Measured { one_row: Duration::from_millis(1), two_rows: None });
        }
        let failed = |error| self.failed(error);
        let one_row = self.time(instance, &shapes(1)).map_err(failed)?;
        let two_rows = (joined && one_row < QUICK).then(|| self.time(instance, &shapes(2)));
        Ok(Measured { one_row, two_rows: two_rows.transpose().map_err(failed)? })
    }

    /// An instance of `threads` threads for runs that have the machine to themselves, if that pays.
    fn wide(
        &mut self,
        model: &dyn Model,
        threads: usize,
        shapes: &[Shape],
        narrow: &Measured,
    ) -> Result<Option<Box<dyn Instance>>, ModelError> {
        if !self.runnable {
            return Ok(None);
        }
        let mut instance = model.instance(threads)?;
        self.first_run(&mut *instance, shapes)?;
        let took = self.time(&mut *instance, shapes).map_err(|error| self.failed(error))?;
        Ok(narrow.wide_pays(took).then_some(instance))
    }

    fn failed(&self, error: RunError) -> ModelError {
        ModelError::WarmUp(self.folder.name.clone(), error)
    }

    /// The shortest of a few runs: the first of a new size lays out memory, and any may be interrupted.
    fn time(&self, instance: &mut dyn Instance, shapes: &[Shape]) -> Result<Duration, RunError> {
        let began = Instant::now();
        let mut shortest = Duration::MAX;
        while shortest == Duration::MAX || began.elapsed() + shortest < QUICK {
            let run = Instant::now();
            self.run(instance, shapes, &mut Vec::new())?;
            shortest = shortest.min(run.elapsed());
        }
        Ok(shortest)
    }

    fn run(&self, instance: &mut dyn Instance, shapes: &[Shape], outputs: &mut Vec<Shape>) -> Result<(), RunError> {
        let zeros: Vec<Vec<u8>> = self
            .spec
            .inputs
            .iter()
            .zip(shapes)
            .map(|(input, shape)| vec![0; shape.iter().product::<usize>() * input.dtype.size()])
            .collect();
        let views: Vec<TensorView<'_>> = self
            .spec
            .inputs
            .iter()
            .zip(shapes)
            .zip(&zeros)
            .map(|((input, shape), bytes)| TensorView { dtype: input.dtype, shape, bytes })
            .collect();
        instance.run(&views, &mut |views| outputs.extend(views.iter().map(|view| view.shape.to_vec())))
    }
}
