//! Where versions are tried: they are loaded, shown pictures and timed as a server would have them.

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

/// How often all cores are timed.
const TRIES: u32 = 3;

/// One way to run a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Way {
    /// Who runs it.
    pub provider: Provider,
    /// In which numbers.
    pub precision: Precision,
    /// How far its graph is rewritten.
    pub optimization: GraphOptimization,
}

impl Way {
    /// All ways in which `backend` can run a model that runs in the `first` now, which comes first: there at each level of
    /// optimisation, on each other provider as it is, and in shorter numbers where these are made for that.
    pub fn all(backend: &dyn Backend, first: Self) -> Vec<Self> {
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

    /// What stands in `model.yaml` for it.
    pub fn settings(&self) -> String {
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

impl fmt::Display for Way {
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

/// A model of a repository, and what it takes to work on it.
pub struct Site {
    /// The model's folder.
    pub folder: ModelFolder,
    /// What runs models.
    pub backend: Arc<dyn Backend>,
    /// The ways in which it may run this one; answers are compared with those of the first.
    pub ways: Vec<Way>,
    /// What holds for models that say nothing else.
    pub defaults: Defaults,
    /// The way of pictures.
    pub pictures: Pictures,
}

/// A picture, as its file has it.
pub(crate) struct Image {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Bytes,
}

impl Image {
    pub(crate) fn read(path: &Path) -> Result<Self, OptimizeError> {
        let bytes = fs::read(path).map_err(|error| OptimizeError::Io(path.to_owned(), error))?;
        Ok(Self { path: path.to_owned(), bytes: bytes.into() })
    }
}

/// How quick a version is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// Pictures a second of one instance with one thread.
    pub one_thread: f64,
    /// Pictures a second with such an instance on each core.
    pub all_cores: f64,
    /// Milliseconds that half of the runs of one instance take at most.
    pub p50_ms: f64,
}

/// A site with its model's serving version, ready to try others.
pub(crate) struct Bench<'a> {
    pub(crate) site: &'a Site,
    pub(crate) settings: ModelSettings,
    pub(crate) serving: ModelVersion,
    runtime: Runtime,
}

impl<'a> Bench<'a> {
    pub(crate) fn at(site: &'a Site) -> Result<Self, OptimizeError> {
        let mut settings = site.folder.settings().map_err(FolderError::from)?;
        let serving = site.folder.serving_version(&settings)?;
        site.folder.inspect(&serving)?;
        // Nobody else asks, so the one instance has all cores.
        (settings.instances, settings.threads) = (Some(1), Some(site.defaults.cpus.cpus));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| OptimizeError::Io(site.folder.path.clone(), error))?;
        Ok(Self { site, settings, serving, runtime })
    }

    /// Loads `version`; it looks at pictures.
    pub(crate) fn load(&self, version: &ModelVersion, way: Way) -> Result<ServedModel, OptimizeError> {
        let Site { folder, backend, defaults, .. } = self.site;
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

    /// What `model` finds in each of `images`, at its own thresholds or at `conf`.
    pub(crate) fn see(
        &self,
        model: &ServedModel,
        images: &[Image],
        conf: Option<f32>,
    ) -> Result<Vec<Found>, OptimizeError> {
        let seer = seer(model)?;
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

    /// `images` at the size that `seer` takes.
    pub(crate) fn canvases(&self, seer: &PictureModel, images: &[Image]) -> Result<Vec<Canvas>, OptimizeError> {
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

    /// Times the model in `file` for about `time` on one core, and as long on all.
    pub(crate) fn time(&self, file: &Path, way: Way, inputs: &[Input], time: Duration) -> Result<Speed, OptimizeError> {
        let Way { provider, precision, optimization } = way;
        let model = self.site.backend.load(file, &LoadOptions { threads: 1, provider, precision, optimization })?;
        let cores = self.site.defaults.cpus.cpus;
        let mut instances = (0..cores).map(|_| model.instance(1)).collect::<Result<Vec<_>, _>>()?;
        // The first run lays out memory.
        instances.iter_mut().try_for_each(|instance| inputs[0].run(&mut **instance))?;
        let mut alone = runs(&mut *instances[0], inputs, time)?;
        alone.sort();
        let p50 = alone[alone.len() / 2].as_secs_f64();
        // Others may want the cores meanwhile: the best of a few tries comes closest to having them.
        let mut all_cores = 0f64;
        for _ in 0..TRIES {
            all_cores = all_cores.max(together(&mut instances, inputs, time / TRIES)?);
        }
        Ok(Speed { one_thread: 1.0 / p50, all_cores, p50_ms: p50 * 1e3 })
    }
}

/// What `model` knows of pictures.
pub(crate) fn seer(model: &ServedModel) -> Result<&PictureModel, OptimizeError> {
    model.picture_model().map_err(|_| OptimizeError::NoPictures(model.name.clone()))
}

/// Runs a second of all `instances` together, for about `time`.
fn together(instances: &mut [Box<dyn Instance>], inputs: &[Input], time: Duration) -> Result<f64, RunError> {
    let began = Instant::now();
    let counts = thread::scope(|scope| {
        let threads: Vec<_> =
            instances.iter_mut().map(|instance| scope.spawn(|| runs(&mut **instance, inputs, time))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no run panics")).collect::<Vec<_>>()
    });
    let runs = counts.into_iter().map(|runs| runs.map(|runs| runs.len())).sum::<Result<usize, _>>()?;
    Ok(runs as f64 / began.elapsed().as_secs_f64())
}

/// How long each run took, for about `time`.
fn runs(instance: &mut dyn Instance, inputs: &[Input], time: Duration) -> Result<Vec<Duration>, RunError> {
    let (began, mut took) = (Instant::now(), Vec::new());
    while took.len() < 3 || began.elapsed() < time {
        let run = Instant::now();
        inputs[took.len() % inputs.len()].run(instance)?;
        took.push(run.elapsed());
    }
    Ok(took)
}

/// One picture as a model takes it.
pub(crate) struct Input {
    dtype: DType,
    shape: Shape,
    bytes: Vec<u8>,
}

impl Input {
    pub(crate) fn of(canvas: &Canvas, seer: &PictureModel) -> Self {
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

    pub(crate) fn view(&self) -> TensorView<'_> {
        TensorView { dtype: self.dtype, shape: &self.shape, bytes: &self.bytes }
    }

    fn run(&self, instance: &mut dyn Instance) -> Result<(), RunError> {
        instance.run(&[self.view()], &mut |_| {})
    }
}

/// The words of an error of the workshop.
pub(crate) fn unwritable(site: &Site) -> impl Fn(std::io::Error) -> OptimizeError + '_ {
    |error| OptimizeError::Io(site.folder.path.clone(), error)
}
