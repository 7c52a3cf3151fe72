//! What a model is for, from its settings or from its names and shapes.

use std::sync::Arc;

use arc_swap::ArcSwap;
use caudal_engine::{
    Dim, ModelSpec, TensorSpec,
    repository::{self as settings, ChannelOrder, ModelSettings},
};
use caudal_types::{DType, Shape};
use caudal_vision::{
    Decoding, Element, Family, Fit, Habits, Head, InputFormat, Layout, MaskHead, Network, Normalisation, OutputShape,
    Thresholds,
};

use crate::{Look, PictureModel, Task, labels::parse_names};

/// The picture that the model's only input takes, if it takes pictures: four dimensions, three channels, floats or
/// bytes.
pub(crate) fn picture_input(spec: &ModelSpec, settings: &ModelSettings) -> Option<InputFormat> {
    let [input] = &spec.inputs[..] else { return None };
    let [_, a, b, c] = &input.dims[..] else { return None };
    let (layout, height, width) = match (a.fixed(), c.fixed()) {
        (Some(3), _) => (Layout::Planar, b, c),
        (_, Some(3)) => (Layout::Interleaved, a, b),
        _ => return None,
    };
    let element = match input.dtype {
        DType::F32 => Element::F32,
        DType::F16 => Element::F16,
        DType::U8 => Element::U8,
        _ => return None,
    };
    let pre = &settings.preprocessing;
    let habits = match (&settings.family, settings.kind.as_deref()) {
        (Some(name), _) => name.parse().map_or_else(|_| Habits::default(), Family::habits),
        (None, Some("classify" | "segment")) => WHOLE,
        _ => Habits::default(),
    };
    let usual = pre.size.unwrap_or([habits.side; 2]);
    Some(InputFormat {
        width: width.fixed().unwrap_or(usual[0]),
        height: height.fixed().unwrap_or(usual[1]),
        element,
        layout,
        bgr: pre.color == Some(ChannelOrder::Bgr),
        fit: pre.fit.map_or(Fit::Letterbox, fit),
        pad: pre.pad.unwrap_or(114),
        decoding: match pre.decode {
            Some(settings::Decode::Reduced) => Decoding::Reduced,
            _ => Decoding::Full,
        },
    })
}

fn fit(said: settings::Fit) -> Fit {
    match said {
        settings::Fit::Letterbox => Fit::Letterbox,
        settings::Fit::Corner => Fit::Corner,
        settings::Fit::Stretch => Fit::Stretch,
    }
}

/// The shape of each input for a warm-up of `rows` rows: what is free is one, or what the picture says.
pub(crate) fn warmup_shapes(spec: &ModelSpec, picture: Option<&InputFormat>, rows: usize) -> Vec<Shape> {
    let shape = |input: &TensorSpec| -> Shape {
        let mut shape: Shape = input.dims.iter().map(|dim| dim.fixed().unwrap_or(1)).collect();
        if let Some(picture) = picture {
            let sides = match picture.layout {
                Layout::Planar => [(2, picture.height), (3, picture.width)],
                Layout::Interleaved => [(1, picture.height), (2, picture.width)],
            };
            sides.into_iter().for_each(|(axis, length)| shape[axis] = length);
        }
        if let (Some(first), Some(Dim::Free(_))) = (shape.first_mut(), input.dims.first()) {
            *first = rows;
        }
        shape
    };
    spec.inputs.iter().map(shape).collect()
}

/// The shape of each input for one row, where what is free within it is `free` long.
pub(crate) fn row_shapes(spec: &ModelSpec, free: usize) -> Vec<Shape> {
    let shape = |input: &TensorSpec| -> Shape {
        let within = input.row_dims().iter().map(|dim| dim.fixed().unwrap_or(free));
        [1].into_iter().chain(within).collect()
    };
    spec.inputs.iter().map(shape).collect()
}

/// What the model is for; `outputs` are the shapes that its warm-up gave for one row, `file_labels` the class
/// names in its settings.
pub(crate) fn task(
    spec: &ModelSpec,
    settings: &ModelSettings,
    picture: Option<InputFormat>,
    outputs: Option<&[Shape]>,
    file_labels: Option<Vec<String>>,
) -> Result<Task, String> {
    let kind = settings.kind.as_deref().or(settings.family.as_ref().map(|_| "detect"));
    if kind == Some("tensors") {
        return Ok(Task::Tensors);
    }
    let labels = file_labels.or_else(|| spec.notes.get("names").and_then(|names| parse_names(names)));
    let found = Candidate::new(spec, settings, picture, outputs, labels).and_then(|candidate| candidate.model(kind));
    match found {
        Ok(model) => Ok(Task::See(Box::new(model))),
        Err(reason) if kind.is_some() => Err(reason),
        Err(_) => Ok(Task::Tensors),
    }
}

/// A model that takes pictures, and may be for them.
struct Candidate<'a> {
    settings: &'a ModelSettings,
    format: InputFormat,
    specs: &'a [TensorSpec],
    outputs: Vec<OutputShape<'a>>,
    labels: Option<Vec<String>>,
}

impl<'a> Candidate<'a> {
    fn new(
        spec: &'a ModelSpec,
        settings: &'a ModelSettings,
        picture: Option<InputFormat>,
        outputs: Option<&'a [Shape]>,
        labels: Option<Vec<String>>,
    ) -> Result<Self, String> {
        let format = picture
            .ok_or("it takes no pictures: one input of four dimensions, FP32, FP16 or UINT8, with three channels")?;
        if let Some(rows) = spec.inputs[0].dims[0].fixed().filter(|rows| *rows != 1) {
            return Err(format!("its first dimension is fixed at {rows}; export it with 1 or a free first dimension"));
        }
        let shapes = outputs.ok_or("its warm-up gave no output to recognise it by")?;
        if let Some(dims) = shapes.iter().find(|dims| dims.len() > 2 && dims[0] != 1) {
            return Err(format!("its output of {dims:?} for one picture does not begin with 1"));
        }
        let outputs = spec.outputs.iter().zip(shapes).map(|(output, dims)| OutputShape { name: &output.name, dims });
        Ok(Self { settings, format, specs: &spec.outputs, outputs: outputs.collect(), labels })
    }

    fn model(self, kind: Option<&str>) -> Result<PictureModel, String> {
        match kind {
            Some("detect") => self.detector(),
            Some("classify") => self.classifier(),
            Some("segment") => self.segmenter(),
            Some(other) => {
                Err(format!("kind {other:?} is not known; there are detect, classify, segment, embed, tensors"))
            }
            None if self.says(&["prob", "softmax", "logits", "class"]) && self.classes().is_some() => self.classifier(),
            None if self.says(&["mask", "seg"]) && self.mask_head().is_some() => self.segmenter(),
            None => self.detector(),
        }
    }

    /// Whether the only output says by its name what it holds.
    fn says(&self, words: &[&str]) -> bool {
        let [output] = &self.outputs[..] else { return false };
        let name = output.name.to_lowercase();
        words.iter().any(|word| name.contains(word))
    }

    /// How many classes the first output gives likelihoods for, if it can be a classifier's.
    fn classes(&self) -> Option<usize> {
        match self.outputs.first()?.dims {
            [1, classes] | [1, classes, 1, 1] if *classes > 1 => Some(*classes),
            _ => None,
        }
    }

    fn mask_head(&self) -> Option<MaskHead> {
        MaskHead::of(self.input(), self.outputs.first()?.dims)
    }

    fn input(&self) -> (usize, usize) {
        (self.format.width, self.format.height)
    }

    fn list(&self) -> String {
        self.outputs.iter().map(|output| format!("{} {:?}", output.name, output.dims)).collect::<Vec<_>>().join(", ")
    }

    fn detector(self) -> Result<PictureModel, String> {
        let classes = self.labels.as_ref().map(Vec::len);
        let network = Network { input: self.input(), outputs: &self.outputs, classes };
        let list = self.list();
        let head = match &self.settings.family {
            Some(name) => {
                let family: Family = name.parse()?;
                family.head(&network).ok_or_else(|| format!("its outputs ({list}) are not those of {family}"))?
            }
            None => Head::recognise(&network).ok_or_else(|| {
                format!("no family of detectors gives its outputs ({list}); say `kind` or `family` in model.yaml")
            })?,
        };
        self.numbers(head.outputs(), &[DType::F32, DType::F16, DType::I32, DType::I64])?;
        let habits = head.family().habits();
        self.finish(Look::Detect(Arc::new(head)), habits, Thresholds { conf: 0.25, iou: 0.45, max_det: 300 })
    }

    fn classifier(self) -> Result<PictureModel, String> {
        let classes =
            self.classes().ok_or_else(|| format!("its outputs ({}) are not one likelihood a class", self.list()))?;
        self.numbers(&[0], &[DType::F32, DType::F16])?;
        self.finish(Look::Classify { classes }, WHOLE, Thresholds { conf: 0.0, iou: 1.0, max_det: classes })
    }

    fn segmenter(self) -> Result<PictureModel, String> {
        let head = self.mask_head().ok_or_else(|| format!("its outputs ({}) do not cover the picture", self.list()))?;
        self.numbers(&[0], &[DType::F32, DType::F16])?;
        self.finish(Look::Segment(head), WHOLE, Thresholds { conf: 0.5, iou: 1.0, max_det: head.classes })
    }

    /// Checks that outputs `indices` hold one of `kinds` of numbers.
    fn numbers(&self, indices: &[usize], kinds: &[DType]) -> Result<(), String> {
        let odd = indices.iter().map(|index| &self.specs[*index]).find(|output| !kinds.contains(&output.dtype));
        odd.map_or(Ok(()), |odd| Err(format!("its output {odd} is not one of {kinds:?}")))
    }

    fn finish(self, look: Look, habits: Habits, defaults: Thresholds) -> Result<PictureModel, String> {
        let labels = match (self.labels, look.classes()) {
            (Some(labels), Some(classes)) if labels.len() != classes => {
                return Err(format!("it tells {classes} classes apart, and {} names are given", labels.len()));
            }
            (Some(labels), _) => labels,
            (None, classes) => (0..classes.unwrap_or(0)).map(|class| format!("class_{class}")).collect(),
        };
        let (pre, said) = (&self.settings.preprocessing, &self.settings.thresholds);
        let (scale, mean, std) =
            (pre.scale.unwrap_or(habits.scale), pre.mean.unwrap_or([0.0; 3]), pre.std.unwrap_or([1.0; 3]));
        Ok(PictureModel {
            look,
            format: InputFormat {
                fit: pre.fit.map_or(habits.fit, fit),
                bgr: pre.color.map_or(habits.bgr, |order| order == ChannelOrder::Bgr),
                ..self.format
            },
            normalisation: Normalisation::new(scale, mean, std),
            labels: labels.into_iter().map(Into::into).collect(),
            thresholds: ArcSwap::from_pointee(Thresholds {
                conf: said.conf.unwrap_or(defaults.conf),
                iou: said.iou.unwrap_or(defaults.iou),
                max_det: said.max_det.unwrap_or(defaults.max_det),
            }),
        })
    }
}

/// How models that judge the whole picture take it.
const WHOLE: Habits = Habits { fit: Fit::Stretch, bgr: false, scale: 1.0 / 255.0, side: 224 };

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dims: &[usize], rows: Dim) -> TensorSpec {
        let dims = [rows].into_iter().chain(dims.iter().map(|length| Dim::Fixed(*length))).collect();
        TensorSpec { name: "t".to_owned(), dtype: DType::F32, dims }
    }

    /// Recognises a detector of 64 by 64 pixels and two classes whose first dimensions are `input` and `output`, of
    /// which a warm-up gave `rows`.
    fn recognise(settings: &str, input: Dim, output: Dim, rows: usize) -> Result<Task, String> {
        let settings = ModelSettings::parse(settings, "model.yaml").unwrap();
        let (inputs, outputs) = (vec![tensor(&[3, 64, 64], input)], vec![tensor(&[6, 84], output)]);
        let spec = ModelSpec { inputs, outputs, ..Default::default() };
        task(&spec, &settings, picture_input(&spec, &settings), Some(&[vec![rows, 6, 84]]), None)
    }

    #[test]
    fn a_detector_takes_one_picture_or_any_number() {
        let free = || Dim::Free("batch".to_owned());
        for (input, output) in [(Dim::Fixed(1), Dim::Fixed(1)), (free(), free()), (Dim::Fixed(1), free())] {
            assert!(matches!(recognise("", input, output, 1), Ok(Task::See(_))));
        }
    }

    #[test]
    fn a_first_dimension_that_is_fixed_at_more_is_refused_in_words() {
        let words =
            |task: Result<Task, String>| task.map(|task| task.name().to_owned()).unwrap_or_else(|reason| reason);
        let four = |settings: &str| words(recognise(settings, Dim::Fixed(4), Dim::Fixed(4), 4));
        let expected = "its first dimension is fixed at 4; export it with 1 or a free first dimension";
        assert_eq!(four("kind: detect"), expected);
        assert_eq!(four("family: yolov8"), expected);
        assert_eq!(four(""), "tensors");
        let output = words(recognise("kind: detect", Dim::Fixed(1), Dim::Fixed(4), 4));
        assert_eq!(output, "its output of [4, 6, 84] for one picture does not begin with 1");
    }
}
