//! From a folder to a model that serves: check, open, warm up, measure, plan, recognise.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use caudal_batcher::{Instances, Policy, Queue, QueueConfig};
use caudal_engine::{
    Backend, Instance, LoadError, LoadOptions, Model, ModelSpec, Provider, RunError,
    repository::{Batching, FolderError, ModelFolder, ModelSettings, ModelVersion, OnnxFile},
};
use caudal_types::{CpuPlan, ModelId, Shape, TensorView};

use crate::{
    Joining, Measured, ModelError, RunPlan, RunsOn, ServedModel, Task, TextModel,
    change::Change as _,
    footprint::Before,
    fused,
    joining::{Bench, try_rows, try_texts},
    limit::run_within,
    plan::Asked,
    recognise::{self, Recognised},
    shown::{self, Site},
    text_model::{TextCandidate, TextInputs},
};

/// What holds for every model that says nothing else in its own settings.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// Cores to share.
    pub cpus: CpuPlan,
    /// Who runs a model: the first that works, the others are fallbacks.
    pub providers: Vec<Provider>,
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
    /// Longest that a run may take before a model serves: a longer one would answer no request in time.
    pub run_limit: Duration,
}

/// Runs at once on a graphics card: one computes while the other's rows are brought and fetched.
const GPU_INSTANCES: usize = 2;

/// Longest that a run may take at least: what a request may take can be set to less than a cold run needs.
const LEAST_LIMIT: Duration = Duration::from_secs(2);

/// Longest that a run on a graphics card may take: the first may compile the model.
const GPU_LIMIT: Duration = Duration::from_secs(600);

/// How long one size is measured at most, beyond its first run: the server should be ready soon.
const QUICK: Duration = Duration::from_millis(10);

/// Bytes of a model of which a second copy costs little.
const SMALL_FILE: u64 = 256 << 20;

/// Tokens of a text in a warm-up: a short sentence.
pub(crate) const SENTENCE: usize = 16;

fn is_small(file: &OnnxFile) -> bool {
    file.external_files.is_empty() && file.bytes <= SMALL_FILE
}

/// Makes the model in `folder` serve.
pub fn load(folder: &ModelFolder, backend: &dyn Backend, defaults: &Defaults) -> Result<ServedModel, ModelError> {
    let settings = folder.read_settings().map_err(FolderError::from)?;
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
    let file = folder.inspect_file(version)?;
    let before = Before::now(backend);
    let labels = folder.read_labels(&settings, version)?;
    let mismatch = |reason: String| ModelError::Mismatch(folder.name.clone(), reason);

    let asked_instances = settings.instances.or(defaults.instances);
    let asked_threads = settings.threads.or(defaults.threads);
    let share = |provider: Provider| match provider.on_gpu() {
        true => (asked_instances.unwrap_or(GPU_INSTANCES), asked_threads.unwrap_or(1)),
        false => defaults.cpus.instances(asked_instances, asked_threads),
    };
    let providers = settings.providers.as_deref().unwrap_or(&defaults.providers);
    if settings.precision.is_some() && !providers.first().is_some_and(|first| first.supports_reduced_precision()) {
        return Err(mismatch("precision is for models that run on openvino or tensorrt first".to_owned()));
    }
    let (model, runs_on) = open_on(providers, &folder.name, |provider| {
        let options = LoadOptions {
            threads: share(provider).1,
            provider,
            precision: settings.precision.unwrap_or_default(),
            optimization: settings.graph_optimization,
        };
        backend.load_model(&version.file, &options)
    })?;
    let (instances, threads) = share(runs_on.provider);
    let spec = model.spec().clone();
    fused::settle(&mut settings, &spec);
    let text = TextCandidate::new(&spec, &settings, || Ok(folder.read_tokenizer(version)?), mismatch)?;
    let mut joining = Joining::of(&spec, &settings, text.is_some()).map_err(mismatch)?;
    let picture = recognise::picture_input(&spec, &settings);

    let inputs = text.as_ref().map(|text| text.inputs.clone());
    let limit = if runs_on.provider.on_gpu() { GPU_LIMIT } else { defaults.run_limit.max(LEAST_LIMIT) };
    let mut warm = WarmUp::new(&spec, folder, inputs.as_ref().and_then(TextInputs::mask), limit);
    let mut first = model.create_instance(threads)?;
    let shapes = |rows| match &inputs {
        Some(inputs) => inputs.shapes(rows, SENTENCE),
        None => recognise::warmup_shapes(&spec, picture.as_ref(), rows),
    };
    let outputs = warm.first_run(&mut *first, &shapes(1))?;
    let may_join = !matches!(joining, Joining::Apart(_));
    let measured = warm.measure(&mut *first, &shapes, may_join)?;
    let recognised = match text {
        Some(text) => {
            let text = text.model(&spec, &settings, outputs.as_deref()).map_err(mismatch)?;
            warm.longest(&mut *first, &text)?;
            Recognised { task: Task::Embed(Box::new(text)), notice: None, certain: true }
        }
        None => {
            let by_shapes = recognise::task(&spec, &settings, picture, outputs.as_deref(), labels);
            let complete = |by_shapes| {
                shown::complete(by_shapes, &mut Site { instance: &mut *first, spec: &spec, limit }, &file, &settings)
            };
            by_shapes.and_then(complete).map_err(mismatch)?
        }
    };
    if let Some(notice) = &recognised.notice {
        tracing::info!(model = folder.name, "{notice}");
    }

    let asked_batch = settings.batching.max_batch_size.or(defaults.max_batch_size);
    let asked = Asked {
        instances: asked_instances,
        max_batch_size: asked_batch,
        max_batch_tokens: settings.batching.max_batch_tokens,
        // A run on a graphics card wants no cores.
        threads: asked_threads.is_some() || runs_on.provider.on_gpu(),
        may_join,
    };
    let open = RunPlan {
        instances,
        threads,
        max_batch_size: 1,
        max_request_rows: 1,
        in_place_rows: 0,
        wide_threads: None,
        ragged: None,
    };
    let length = inputs.as_ref().map(|inputs| inputs.length(SENTENCE));
    let plan_runs = |asked: &Asked| {
        // Zeros tell nothing of a run whose time follows from values.
        let steady = bounded(&spec, asked.may_join) && !file.time_depends_on_values;
        let plan = open.settle(asked, &measured, steady);
        length.map_or(plan, |length| plan.settle_texts(asked, &measured, length))
    };
    let mut plan = plan_runs(&asked);
    if joining == Joining::Untried && plan.max_batch_size > 1 {
        joining = try_joining(&Bench { spec: &spec, limit }, &mut *first, &recognised.task, measured.one_row);
        if let Joining::Apart(_) = &joining {
            plan = plan_runs(&Asked { may_join: false, ..asked });
        }
    }
    let joined = !matches!(joining, Joining::Apart(_));
    if let Joining::Apart(reason) = &joining {
        if settings.batching.join_rows.is_none() {
            tell_apart(&folder.name, settings.batching.max_batch_size, reason);
        }
        // Rows are the model's business then: only what its settings declare is a limit.
        plan.max_request_rows = settings.batching.max_batch_size.filter(|size| *size > 1).unwrap_or(usize::MAX);
    }
    let mut side_by_side = vec![first];
    while side_by_side.len() < plan.instances {
        let mut runner = model.create_instance(threads)?;
        warm.first_run(&mut *runner, &shapes(1))?;
        side_by_side.push(runner);
    }
    let mut wide = None;
    if let Some(threads) = plan.try_wide(&asked, &measured, defaults.cpus.cpus).filter(|_| is_small(&file)) {
        wide = warm.wide(&*model, threads, &shapes(1), &measured)?;
        plan.wide_threads = wide.as_ref().map(|_| threads);
    }
    let instances = Instances { concurrent: side_by_side, wide };
    let habits = QueueConfig {
        joined,
        ordered: settings.batching.preserve_ordering.unwrap_or(false),
        recorded_runs: settings.prove.map_or(0, |prove| prove.inputs),
    };
    let queue = Queue::start(&folder.name, &spec, habits, instances, policy(&settings, defaults, &plan))?;
    Ok(ServedModel {
        id: ModelId { name: folder.name.as_str().into(), version: version.number },
        name: folder.name.clone(),
        version: version.number,
        spec,
        task: recognised.task,
        notice: recognised.notice,
        runs_on,
        memory: before.grown(backend, folder.weights(version)?),
        measured,
        joined,
        joining: ArcSwap::from_pointee(joining),
        prove: settings.prove,
        queue,
        plan: ArcSwap::from_pointee(plan),
        run_limit: limit,
        model,
        changed: Mutex::default(),
    })
}

/// Opens a model on the first of `providers` that works, and says whether that is the one that was wanted.
fn open_on(
    providers: &[Provider],
    model: &str,
    mut open: impl FnMut(Provider) -> Result<Arc<dyn Model>, LoadError>,
) -> Result<(Arc<dyn Model>, RunsOn), ModelError> {
    let mut failed = None;
    for provider in providers {
        match open(*provider) {
            Ok(opened) => {
                let instead_of = failed.and(providers.first().copied());
                let runs_on = RunsOn { provider: *provider, instead_of, left_to_cpu: opened.cpu_fallback_count() };
                return Ok((opened, runs_on));
            }
            // Nobody else reads what is no model.
            Err(error @ (LoadError::Unsupported { .. } | LoadError::Backend(_))) => return Err(error.into()),
            Err(error) => {
                if failed.is_none() && providers.len() > 1 {
                    tracing::warn!(model, %error, "a fallback runs the model");
                }
                // The first was the one that was wanted: its reason counts, unless the last one says what the file is.
                failed = match (failed, error) {
                    (Some(first), LoadError::NoProvider { .. } | LoadError::Provider { .. }) => Some(first),
                    (_, error) => Some(error),
                };
            }
        }
    }
    Err(failed.unwrap_or_else(|| LoadError::Backend("no provider was named".to_owned())).into())
}

/// Whether trial runs let rows of the model share a run.
pub(crate) fn try_joining(bench: &Bench<'_>, instance: &mut dyn Instance, task: &Task, one_row: Duration) -> Joining {
    let tried = match task {
        Task::Embed(text) => try_texts(bench, instance, text),
        Task::See(seer) => {
            let shapes = |_free| recognise::warmup_shapes(bench.spec, Some(&seer.format), 1);
            try_rows(bench, instance, &shapes, one_row)
        }
        Task::Tensors => try_rows(bench, instance, &|free| recognise::row_shapes(bench.spec, free), one_row),
    };
    match tried {
        Ok(()) => Joining::Joined,
        Err(reason) => Joining::Apart(reason),
    }
}

fn tell_apart(model: &str, max_batch_size: Option<usize>, reason: &str) {
    match max_batch_size.filter(|size| *size > 1) {
        Some(size) => tracing::warn!(
            model,
            reason,
            "batching.max_batch_size is {size}, and rows of several requests are not joined: their answers would change"
        ),
        None => tracing::debug!(model, reason, "rows of several requests are not joined"),
    }
}

/// Whether a run's size follows from its rows alone.
fn bounded(spec: &ModelSpec, joined: bool) -> bool {
    spec.inputs
        .iter()
        .all(|tensor| tensor.dims.iter().skip(usize::from(joined)).all(|dim| dim.fixed_length().is_some()))
}

fn policy(settings: &ModelSettings, defaults: &Defaults, plan: &RunPlan) -> Policy {
    let mut policy = Policy {
        max_batch_size: plan.max_batch_size,
        preferred_batch_sizes: Vec::new(),
        ragged: plan.ragged,
        max_queue_delay: defaults.max_queue_delay,
        max_queue_size: defaults.max_queue_size,
        max_queue_bytes: defaults.max_queue_bytes,
        by_priority: Default::default(),
        run_in_place: plan.in_place_rows,
    };
    policy.change(&Batching { max_batch_size: None, ..settings.batching.clone() });
    policy
}

pub(crate) struct WarmUp<'a> {
    spec: &'a ModelSpec,
    folder: &'a ModelFolder,
    /// Whether zeros are an input that the model can run: with free dimensions they may not be.
    runnable: bool,
    /// The input that is filled with ones: of a text, that all its tokens count.
    mask: Option<usize>,
    /// Longest that a run may take.
    limit: Duration,
}

impl<'a> WarmUp<'a> {
    pub(crate) fn new(spec: &'a ModelSpec, folder: &'a ModelFolder, mask: Option<usize>, limit: Duration) -> Self {
        Self { spec, folder, runnable: true, mask, limit }
    }

    /// Runs the longest text that is let in: whether it can be is better known now than when somebody sends it.
    fn longest(&self, instance: &mut dyn Instance, text: &TextModel) -> Result<(), ModelError> {
        let tokens = text.tokenizer.max_tokens();
        self.run_bounded(instance, &text.inputs.shapes(1, tokens), &mut Vec::new()).map_err(|error| {
            let words = format!("it does not run with {tokens} tokens ({error}); say embedding.max_tokens");
            ModelError::Mismatch(self.folder.name.clone(), words)
        })
    }

    /// Runs zeros once: memory is laid out and pages are touched before anybody waits. Gives the shapes that came
    /// out; none if the model has free dimensions and does not like what we chose for them.
    fn first_run(&mut self, instance: &mut dyn Instance, shapes: &[Shape]) -> Result<Option<Vec<Shape>>, ModelError> {
        let free = self.spec.inputs.iter().any(|input| input.row_dims().iter().any(|dim| dim.fixed_length().is_none()));
        let mut outputs = Vec::new();
        match self.run_bounded(instance, shapes, &mut outputs) {
            Ok(()) => Ok(Some(outputs)),
            Err(RunError::Interrupted) => Err(self.failed(RunError::Interrupted)),
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
            return Ok(Measured { one_row: Duration::from_millis(1), two_rows: None, eight_rows: None });
        }
        let failed = |error| self.failed(error);
        let one_row = self.time(instance, &shapes(1)).map_err(failed)?;
        // How texts share a run follows from it, however long it takes.
        let wanted = one_row < QUICK || self.mask.is_some();
        // A file may declare an axis free along which it does not run.
        let several = |instance: &mut dyn Instance, rows| self.time(instance, &shapes(rows)).ok();
        let two_rows = (joined && wanted).then(|| several(instance, 2)).flatten();
        let measured = Measured { one_row, two_rows, eight_rows: None };
        let eight_rows = (wanted && measured.joining_pays()).then(|| several(instance, 8)).flatten();
        Ok(Measured { eight_rows, ..measured })
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
        let mut instance = model.create_instance(threads)?;
        self.first_run(&mut *instance, shapes)?;
        let took = self.time(&mut *instance, shapes).map_err(|error| self.failed(error))?;
        Ok(narrow.wide_pays(took).then_some(instance))
    }

    fn failed(&self, error: RunError) -> ModelError {
        match error {
            RunError::Interrupted => ModelError::Endless(self.folder.name.clone(), self.limit),
            error => ModelError::WarmUp(self.folder.name.clone(), error),
        }
    }

    /// The shortest of a few runs: the first of a new size lays out memory, and any may be interrupted.
    fn time(&self, instance: &mut dyn Instance, shapes: &[Shape]) -> Result<Duration, RunError> {
        // Of texts the difference of two such figures matters.
        let patience = if self.mask.is_some() { 5 * QUICK } else { QUICK };
        let began = Instant::now();
        let mut shortest = Duration::MAX;
        while shortest == Duration::MAX || began.elapsed() + shortest < patience {
            let run = Instant::now();
            self.run(instance, shapes, &mut Vec::new())?;
            shortest = shortest.min(run.elapsed());
        }
        Ok(shortest)
    }

    /// Runs once.
    pub(crate) fn run(
        &self,
        instance: &mut dyn Instance,
        shapes: &[Shape],
        outputs: &mut Vec<Shape>,
    ) -> Result<(), RunError> {
        self.with_inputs(shapes, |views| {
            instance.run(views, &mut |views| outputs.extend(views.iter().map(|view| view.shape.to_vec())))
        })
    }

    /// The same, stopped when it takes too long.
    fn run_bounded(
        &self,
        instance: &mut dyn Instance,
        shapes: &[Shape],
        outputs: &mut Vec<Shape>,
    ) -> Result<(), RunError> {
        self.with_inputs(shapes, |views| {
            let mut read = |views: &[TensorView<'_>]| outputs.extend(views.iter().map(|view| view.shape.to_vec()));
            run_within(self.limit, instance, views, &mut read)
        })
    }

    fn with_inputs<T>(&self, shapes: &[Shape], run: impl FnOnce(&[TensorView<'_>]) -> T) -> T {
        let zeros: Vec<Vec<u8>> = self
            .spec
            .inputs
            .iter()
            .zip(shapes)
            .enumerate()
            .map(|(index, (input, shape))| {
                let count = shape.iter().product::<usize>();
                if self.mask == Some(index) {
                    1i64.to_ne_bytes().repeat(count)
                } else {
                    vec![0; count * input.dtype.size()]
                }
            })
            .collect();
        let views: Vec<TensorView<'_>> = self
            .spec
            .inputs
            .iter()
            .zip(shapes)
            .zip(&zeros)
            .map(|((input, shape), bytes)| TensorView { dtype: input.dtype, shape, bytes })
            .collect();
        run(&views)
    }
}
