//! What a model that looks at pictures shows before anybody asks it: whether its numbers are those of the family that it is
//! taken for, and whether its scores are likelihoods already.

use std::time::{Duration, Instant};

use caudal_engine::{
    Instance, ModelSpec, RunError,
    repository::{self as settings, ModelSettings, OnnxFile},
};
use caudal_types::TensorView;
use caudal_vision::{Activation, Canvas, InputFormat, Output, Pixels, Shown, Span};

use crate::{
    Look, Notice, PictureModel, Task,
    limit::run_within,
    recognise::Recognised,
    see::{numbers_of, row_shape, write_row},
};

/// How long a model is shown pictures at most, beyond the first.
const PATIENCE: Duration = Duration::from_millis(100);

/// Operators after which scores are likelihoods.
const LIKELIHOODS: &[&str] = &["Softmax", "Sigmoid", "HardSigmoid", "QLinearSoftmax", "QLinearSigmoid"];
/// Operators after which they are not: those of layers with weights.
const LOGITS: &[&str] = &["Add", "Conv", "Gemm", "MatMul", "QGemm", "QLinearAdd", "QLinearConv", "QLinearMatMul"];

/// Where a model can be run before it serves.
pub(crate) struct Site<'a> {
    pub(crate) instance: &'a mut dyn Instance,
    pub(crate) spec: &'a ModelSpec,
    /// How long a run may take.
    pub(crate) limit: Duration,
}

/// Completes what was `recognised` by names and shapes with what the model shows on some made pictures.
pub(crate) fn complete(
    recognised: Recognised,
    site: &mut Site<'_>,
    file: &OnnxFile,
    settings: &ModelSettings,
) -> Result<Recognised, String> {
    let Recognised { task: Task::See(mut model), notice, certain } = recognised else { return Ok(recognised) };
    let (shown, failure) = show(&model, site)?;
    let notice = notice.or_else(|| failure.as_deref().map(does_not_run)).or_else(|| odd_numbers(&shown));
    if let Look::Detect(head) = &model.look {
        if let Some(contradiction) = head.contradiction(&shown) {
            return contradicted(model, settings, &contradiction);
        }
        if !certain && !head.is_proved_by(&shown) {
            return unproved(&model, settings, failure.as_deref());
        }
        return Ok(Recognised { notice, task: Task::See(model), certain });
    }
    let output = site.spec.outputs.first().and_then(|output| file.last_operators.get(&output.name));
    model.activation = settings.activation.map_or_else(|| decide(&model, output, &shown.scores), said);
    let notice = no_likelihoods(&model, &shown.scores).or(notice);
    Ok(Recognised { task: Task::See(model), notice, certain })
}

fn said(activation: settings::Activation) -> Activation {
    match activation {
        settings::Activation::Softmax => Activation::Softmax,
        settings::Activation::Sigmoid => Activation::Sigmoid,
        settings::Activation::None => Activation::None,
    }
}

/// What makes likelihoods of the scores: by the operator that makes them, else by the numbers that were seen.
fn decide(model: &PictureModel, last_operator: Option<&String>, scores: &Span) -> Activation {
    // Of an only class there is nothing to choose from.
    let usual = if matches!(model.look, Look::Segment(_)) { Activation::Sigmoid } else { Activation::Softmax };
    match last_operator.map(String::as_str) {
        Some(operator) if LIKELIHOODS.contains(&operator) => Activation::None,
        Some(operator) if LOGITS.contains(&operator) => usual,
        // The softmax of a logarithm is what it is the logarithm of.
        Some("LogSoftmax") => Activation::Softmax,
        _ if scores.has_numbers() && are_likelihoods(scores) => Activation::None,
        _ => usual,
    }
}

fn are_likelihoods(scores: &Span) -> bool {
    const ROUNDING: f32 = 0.01;
    scores.within(-ROUNDING, 1.0 + ROUNDING)
}

/// What to say of scores that are taken for likelihoods and are none.
fn no_likelihoods(model: &PictureModel, scores: &Span) -> Option<Notice> {
    let only_class = model.look.classes() == Some(1);
    let counts = matches!(model.look, Look::Classify { .. }) || only_class;
    let wrong = counts && model.activation == Activation::None && scores.has_numbers();
    (wrong && !are_likelihoods(scores)).then(|| Notice {
        problem: format!(
            "its scores lie between {} and {} on made pictures, and are taken for likelihoods; those outside 0 to 1 are \
             dropped",
            scores.least, scores.greatest
        ),
        mend: "say `activation: softmax` or `activation: sigmoid` in model.yaml".to_owned(),
    })
}

/// What to say of numbers that are none.
fn odd_numbers(shown: &Shown) -> Option<Notice> {
    let odd = shown.scores.odd + shown.sides.odd;
    (odd > 0).then(|| Notice {
        problem: format!("{odd} of its numbers are infinite or no numbers on made pictures; such answers are dropped"),
        mend: "check the export: numbers of 16 bits that grow too large are a usual cause".to_owned(),
    })
}

/// That the model fails on made pictures.
fn does_not_run(failure: &str) -> Notice {
    Notice {
        problem: format!("it does not run on some made pictures: {failure}"),
        mend: "check the export: real pictures of the same content fail too".to_owned(),
    }
}

/// What becomes of a detector whose numbers contradict its family: the word of `settings` stands, shapes alone do not count.
fn contradicted(model: Box<PictureModel>, settings: &ModelSettings, contradiction: &str) -> Result<Recognised, String> {
    let family = model.look.family().unwrap_or_default();
    if settings.family.is_some() {
        let notice = Notice {
            problem: format!("it is read as {family}, and on made pictures its {contradiction}"),
            mend: "check `family` in model.yaml, and how the model was exported".to_owned(),
        };
        return Ok(Recognised { task: Task::See(model), notice: Some(notice), certain: true });
    }
    tensors_instead(&model, settings, &format!("on made pictures its {contradiction}"))
}

/// What becomes of a detector that only shapes speak for, and whose numbers show nothing.
fn unproved(model: &PictureModel, settings: &ModelSettings, failure: Option<&str>) -> Result<Recognised, String> {
    let why = match failure {
        Some(failure) => format!("it does not run on made pictures, which would show how it writes boxes: {failure}"),
        None => "it found nothing on made pictures, which would show how it writes boxes".to_owned(),
    };
    tensors_instead(model, settings, &why)
}

/// Tensors, or nothing where `settings` say that it is a detector: other families have these shapes too.
fn tensors_instead(model: &PictureModel, settings: &ModelSettings, why: &str) -> Result<Recognised, String> {
    let family = model.look.family().unwrap_or_default();
    let problem = format!("its outputs have the shapes of {family}, but {why}");
    if settings.kind.is_some() {
        return Err(format!("{problem}; say `family: {family}` if it is one all the same"));
    }
    let mend = format!(
        "if it is {family} all the same, say `family: {family}` in model.yaml; else `kind: tensors`, and ask it by \
         POST /v2/models/{{model}}/infer"
    );
    Ok(Recognised { task: Task::Tensors, notice: Some(Notice { problem, mend }), certain: true })
}

/// Shows `model` some pictures, as many as there is time for; what it shows, and why it failed on some.
fn show(model: &PictureModel, site: &mut Site<'_>) -> Result<(Shown, Option<String>), String> {
    let (began, mut all, mut failure) = (Instant::now(), Shown::default(), None);
    for made in MADE {
        match look_at(&made.canvas(model.format), model, site) {
            Ok(shown) => all = all.and(shown),
            Err(RunError::Interrupted) => {
                return Err(format!("a run on a made picture took more than {:?}", site.limit));
            }
            Err(error) => failure = Some(error.to_string()),
        }
        if began.elapsed() > PATIENCE {
            break;
        }
    }
    Ok((all, failure))
}

fn look_at(canvas: &Canvas, model: &PictureModel, site: &mut Site<'_>) -> Result<Shown, RunError> {
    let Some(input) = site.spec.inputs.first() else { return Ok(Shown::default()) };
    let (shape, mut shown) = (row_shape(&model.format), Shown::default());
    // Of floats, so that it begins where those of any kind may.
    let mut row = vec![0f32; (model.format.values() * input.dtype.size()).div_ceil(size_of::<f32>())];
    let row = &mut bytemuck::cast_slice_mut(&mut row)[..model.format.values() * input.dtype.size()];
    write_row(canvas, &model.normalisation, row);
    let view = TensorView { dtype: input.dtype, shape: &shape, bytes: row };
    run_within(site.limit, site.instance, &[view], &mut |outputs| shown = read(model, outputs).unwrap_or_default())?;
    Ok(shown)
}

/// What the outputs of one run show; nothing where they are not those that are expected.
fn read(model: &PictureModel, outputs: &[TensorView<'_>]) -> Option<Shown> {
    match &model.look {
        Look::Detect(head) => {
            let views = head.outputs().iter().map(|index| outputs.get(*index)).collect::<Option<Vec<_>>>()?;
            let numbers = views.iter().map(|view| numbers_of(view)).collect::<Option<Vec<_>>>()?;
            let each = views.iter().zip(&numbers);
            let read: Vec<_> =
                each.map(|(view, numbers)| Output { dims: view.shape, values: numbers.values() }).collect();
            Some(head.shown(&read))
        }
        Look::Classify { .. } | Look::Segment(_) => {
            let numbers = numbers_of(outputs.first()?)?;
            Some(Shown { scores: Span::of(numbers.values().floats()), ..Shown::default() })
        }
    }
}

/// A picture that is made.
#[derive(Clone, Copy)]
enum Made {
    /// Any colour in each of these squares of pixels.
    Noise(usize),
    /// One grey everywhere.
    Grey(u8),
}

/// What models are shown, in this order: much that may be seen, then little.
const MADE: [Made; 5] = [Made::Noise(8), Made::Noise(1), Made::Grey(255), Made::Grey(114), Made::Grey(0)];

impl Made {
    fn canvas(self, format: InputFormat) -> Canvas {
        let (width, height) = match self {
            Self::Noise(side) => (format.width.div_ceil(side), format.height.div_ceil(side)),
            Self::Grey(_) => (1, 1),
        };
        let mut seed = 1u32;
        let value = || match self {
            Self::Grey(value) => value,
            Self::Noise(_) => {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 24) as u8
            }
        };
        let rgb: Vec<u8> = std::iter::repeat_with(value).take(width * height * 3).collect();
        let (full, orientation) = ((width, height), Default::default());
        Canvas::letterbox(Pixels { full, width, height, rgb: &rgb, orientation }, format)
    }
}
