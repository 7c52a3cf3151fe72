//! Test bench: loads versions, predicts images with them and measures their speed as on a server.

use std::{
    fmt, fs, iter,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use caudal_engine::{
    Backend, GraphOptimization, Instance, LoadOptions, Precision, Provider, RunError,
    repository::{FolderError, ModelFolder, ModelSettings, ModelVersion},
};
use caudal_tasks::{Ask, Call, Defaults, Found, MaskForm, PictureModel, Pictures, ServedModel, Thresholds};
use caudal_types::{DType, Shape, TensorView};
use caudal_vision::{Canvas, Decoder, Element, Layout, Reduction, probe};
use tokio::runtime::Runtime;

use crate::OptimizeError;

/// Number of throughput measurements on all cores.
const THROUGHPUT_TRIALS: u32 = 3;

/// A configuration in which a model can run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunConfig {
    /// The provider.
    pub provider: Provider,
    /// The precision.
    pub precision: Precision,
    /// The level of graph optimization.
    pub optimization: GraphOptimization,
}

impl RunConfig {
    /// All configurations in which `backend` can run a model that now runs in `first`, which comes first: with each
    /// level of graph optimization there, on each other provider, and with reduced precision on providers that are made
    /// for it.
    pub fn alternatives_to(backend: &dyn Backend, first: Self) -> Vec<Self> {
        let levels = GraphOptimization::ALL.map(|optimization| Self { optimization, ..first });
        let providers = backend.providers().into_iter().flat_map(|provider| {
            let shorter = match provider {
                Provider::OpenVino => Some(Precision::Bf16),
                Provider::TensorRt => Some(Precision::F16),
                Provider::Cpu | Provider::Cuda | Provider::Xnnpack => None,
            };
            let precisions = [Some(Precision::F32), shorter].into_iter().flatten();
            precisions.map(move |precision| Self { provider, precision, ..first })
        });
        let others = levels.into_iter().chain(providers).filter(|way| *way != first);
        iter::once(first).chain(others).collect()
    }

    /// The settings for `model.yaml`.
    pub fn to_model_yaml(&self) -> String {
        let mut settings = format!("providers: [{}]", self.provider);
        if self.precision != Precision::default() {
            settings += &format!(", precision: {}", self.precision.name());
        }
        if self.optimization != GraphOptimization::default() {
            settings += &format!(", graph_optimization: {}", self.optimization.name());
        }
        settings
    }
}

impl fmt::Display for RunConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.provider)?;
        if self.precision != Precision::default() {
            write!(f, " {}", self.precision.name())?;
        }
        if self.optimization != GraphOptimization::default() {
            write!(f, " {}", self.optimization.name())?;
        }
        Ok(())
    }
}

/// A model of a repository, and everything needed to test versions of it.
pub struct ModelContext {
    /// The model's folder.
    pub folder: ModelFolder,
    /// The backend.
    pub backend: Arc<dyn Backend>,
    /// The configurations to try; predictions are compared with those of the first.
    pub ways: Vec<RunConfig>,
    /// Defaults of model settings.
    pub defaults: Defaults,
    /// Image decoding and its limits.
    pub pictures: Pictures,
}

/// An image file.
pub(crate) struct InputImage {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Bytes,
}

impl InputImage {
    pub(crate) fn from_file(path: &Path) -> Result<Self, OptimizeError> {
        let bytes = fs::read(path).map_err(|error| OptimizeError::Io(path.to_owned(), error))?;
        Ok(Self { path: path.to_owned(), bytes: bytes.into() })
    }
}

/// Speed of a version.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InferenceSpeed {
    /// Images per second of one instance with one thread.
    pub one_thread: f64,
    /// Images per second with such an instance on each core.
    pub all_cores: f64,
    /// Median time of a run of one instance in milliseconds.
    pub p50_ms: f64,
}

/// A model with its served version, ready to try others.
pub(crate) struct TestBench<'a> {
    pub(crate) site: &'a ModelContext,
    pub(crate) settings: ModelSettings,
    pub(crate) serving: ModelVersion,
    runtime: Runtime,
}

impl<'a> TestBench<'a> {
    pub(crate) fn for_model(site: &'a ModelContext) -> Result<Self, OptimizeError> {
        let mut settings = site.folder.read_settings().map_err(FolderError::from)?;
        let serving = site.folder.serving_version(&settings)?;
        site.folder.inspect_file(&serving)?;
        // There are no concurrent requests, so the one instance gets all cores.
        (settings.instances, settings.threads) = (Some(1), Some(site.defaults.cpus.cpus));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| OptimizeError::Io(site.folder.path.clone(), error))?;
        Ok(Self { site, settings, serving, runtime })
    }

    /// Loads `version` of an image model.
    pub(crate) fn load_version(&self, version: &ModelVersion, way: RunConfig) -> Result<ServedModel, OptimizeError> {
        let ModelContext { folder, backend, defaults, .. } = self.site;
        let settings = ModelSettings {
            providers: Some(vec![way.provider]),
            precision: (way.precision != Precision::F32).then_some(way.precision),
            graph_optimization: way.optimization,
            ..self.settings.clone()
        };
        let model = caudal_tasks::load_version(folder, version, settings, &**backend, defaults)?;
        match model.picture_model() {
            Ok(_) => Ok(model),
            Err(_) => Err(OptimizeError::NoPictures(folder.name.clone())),
        }
    }

    /// Predictions of `model` for each of `images`, with its own lowest confidence or with `conf`.
    pub(crate) fn predict_images(
        &self,
        model: &ServedModel,
        images: &[InputImage],
        conf: Option<f32>,
    ) -> Result<Vec<Found>, OptimizeError> {
        let seer = image_model(model)?;
        let own = seer.thresholds();
        let thresholds = Thresholds { conf: conf.unwrap_or(own.conf), ..own };
        let ask = Ask { thresholds, classes: Vec::new(), top_k: usize::MAX, masks: MaskForm::Rle, draw: false };
        let each = images.iter().map(|image| {
            let call = Call::new(Instant::now());
            let seen = self.runtime.block_on(model.see(&self.site.pictures, image.bytes.clone(), &ask, &call));
            seen.map(|seen| seen.found).map_err(|error| OptimizeError::Image(image.path.clone(), error))
        });
        each.collect()
    }

    /// `images` at the input size of `seer`.
    pub(crate) fn prepare_canvases(
        &self,
        seer: &PictureModel,
        images: &[InputImage],
    ) -> Result<Vec<Canvas>, OptimizeError> {
        let mut decoder = Decoder::default();
        let each = images.iter().map(|image| {
            let limits = self.site.pictures.limits();
            let canvas = probe(&image.bytes, limits).and_then(|header| {
                let pixels = decoder.decode(&image.bytes, &header, Reduction::FULL)?;
                Ok(Canvas::letterbox(pixels, seer.format))
            });
            canvas.map_err(|error| OptimizeError::Image(image.path.clone(), error.into()))
        });
        each.collect()
    }

    /// Measures the model in `file` for about `time` on one core, and as long on all.
    pub(crate) fn measure_speed(
        &self,
        file: &Path,
        way: RunConfig,
        inputs: &[ModelInput],
        time: Duration,
    ) -> Result<InferenceSpeed, OptimizeError> {
        let RunConfig { provider, precision, optimization } = way;
        let model =
            self.site.backend.load_model(file, &LoadOptions { threads: 1, provider, precision, optimization })?;
        let cores = self.site.defaults.cpus.cpus;
        let mut instances = (0..cores).map(|_| model.create_instance(1)).collect::<Result<Vec<_>, _>>()?;
        // The first run allocates memory.
        instances.iter_mut().try_for_each(|instance| inputs[0].run_on(&mut **instance))?;
        let mut alone = time_runs(&mut *instances[0], inputs, time)?;
        alone.sort();
        let p50 = alone[alone.len() / 2].as_secs_f64();
        // Other programs may use the cores: the best of several trials is closest to the true speed.
        let mut all_cores = 0f64;
        for _ in 0..THROUGHPUT_TRIALS {
            all_cores = all_cores.max(concurrent_throughput(&mut instances, inputs, time / THROUGHPUT_TRIALS)?);
        }
        Ok(InferenceSpeed { one_thread: 1.0 / p50, all_cores, p50_ms: p50 * 1e3 })
    }
}

/// The image task of `model`.
pub(crate) fn image_model(model: &ServedModel) -> Result<&PictureModel, OptimizeError> {
    model.picture_model().map_err(|_| OptimizeError::NoPictures(model.name.clone()))
}

/// Runs per second of all `instances` together, for about `time`.
fn concurrent_throughput(
    instances: &mut [Box<dyn Instance>],
    inputs: &[ModelInput],
    time: Duration,
) -> Result<f64, RunError> {
    let began = Instant::now();
    let counts = thread::scope(|scope| {
        let threads: Vec<_> =
            instances.iter_mut().map(|instance| scope.spawn(|| time_runs(&mut **instance, inputs, time))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no run panics")).collect::<Vec<_>>()
    });
    let runs = counts.into_iter().map(|runs| runs.map(|runs| runs.len())).sum::<Result<usize, _>>()?;
    Ok(runs as f64 / began.elapsed().as_secs_f64())
}

/// The time of each run, for about `time`.
fn time_runs(instance: &mut dyn Instance, inputs: &[ModelInput], time: Duration) -> Result<Vec<Duration>, RunError> {
    let (began, mut took) = (Instant::now(), Vec::new());
    while took.len() < 3 || began.elapsed() < time {
        let run = Instant::now();
        inputs[took.len() % inputs.len()].run_on(instance)?;
        took.push(run.elapsed());
    }
    Ok(took)
}

/// One image as a tensor.
pub(crate) struct ModelInput {
    dtype: DType,
    shape: Shape,
    bytes: Vec<u8>,
}

impl ModelInput {
    pub(crate) fn from_canvas(canvas: &Canvas, seer: &PictureModel) -> Self {
        let format = canvas.format();
        let shape = match format.layout {
            Layout::Planar => vec![1, 3, format.height, format.width],
            Layout::Interleaved => vec![1, format.height, format.width, 3],
        };
        match format.element {
            Element::U8 => Self { dtype: DType::U8, shape, bytes: canvas.values().to_vec() },
            Element::F32 | Element::F16 => {
                let mut row = vec![0f32; format.values()];
                canvas.write(&seer.normalisation, &mut row);
                if format.element == Element::F32 {
                    return Self { dtype: DType::F32, shape, bytes: bytemuck::cast_slice(&row).to_vec() };
                }
                let halves = row.into_iter().flat_map(|value| half::f16::from_f32(value).to_ne_bytes());
                Self { dtype: DType::F16, shape, bytes: halves.collect() }
            }
        }
    }

    pub(crate) fn tensor_view(&self) -> TensorView<'_> {
        TensorView { dtype: self.dtype, shape: &self.shape, bytes: &self.bytes }
    }

    fn run_on(&self, instance: &mut dyn Instance) -> Result<(), RunError> {
        instance.run(&[self.tensor_view()], &mut |_| {})
    }
}

/// Converts errors of the version workspace.
pub(crate) fn workspace_error(site: &ModelContext) -> impl Fn(std::io::Error) -> OptimizeError + '_ {
    |error| OptimizeError::Io(site.folder.path.clone(), error)
}
