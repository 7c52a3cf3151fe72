//! What a model is for, from its settings or from its names and shapes.

use std::sync::Arc;

use arc_swap::ArcSwap;
use caudal_engine::{
    Dim, ModelSpec, TensorSpec,
    repository::{self as settings, ChannelOrder, ModelSettings},
};
use caudal_types::{DType, Shape, shorten};
use caudal_vision::{
    Activation, Decoding, Element, Family, Fit, Habits, Head, InputFormat, Layout, MaskHead, Network, Normalisation,
    OutputShape, Thresholds,
};

use crate::{
    Dropped, Look, Notice, PictureModel, Task,
    labels::{parse_names, unnamed, wrong_count},
    resembles::resembles,
};

/// What a model is for, and what should be known of that.
#[derive(Debug)]
pub(crate) struct Recognised {
    pub(crate) task: Task,
    pub(crate) notice: Option<Notice>,
    /// Whether settings, names or notes say what it is, so that its numbers need not show it.
    pub(crate) certain: bool,
}

impl Recognised {
    fn tensors(notice: Option<Notice>) -> Self {
        Self { task: Task::Tensors, notice, certain: true }
    }
}

/// Why a model is not one that looks at pictures.
enum Unfit {
    /// Names were given, and their number is not that of the classes; it is a detector all the same.
    Names(String),
    /// Anything else.
    Other(String),
}

impl Unfit {
    fn reason(self) -> String {
        match self {
            Self::Names(reason) | Self::Other(reason) => reason,
        }
    }
}

impl From<String> for Unfit {
    fn from(reason: String) -> Self {
        Self::Other(reason)
    }
}

impl From<&str> for Unfit {
    fn from(reason: &str) -> Self {
        Self::Other(reason.to_owned())
    }
}

/// The longest side of a picture that a file's own notes may ask for.
const MAX_SIDE: usize = 16_384;

/// The picture that the model's only input takes, if it takes pictures: four dimensions, three channels, floats or
/// bytes.
pub(crate) fn picture_input(spec: &ModelSpec, settings: &ModelSettings) -> Option<InputFormat> {
    let [input] = &spec.inputs[..] else { return None };
    let [_, a, b, c] = &input.dims[..] else { return None };
    let (layout, height, width) = match (a.fixed_length(), c.fixed_length()) {
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
    let habits = match (&settings.family, settings.kind.as_deref().or(noted_task(spec))) {
        (Some(name), _) => name.parse().map_or_else(|_| Habits::default(), Family::habits),
        (None, Some("classify" | "segment")) => WHOLE,
        _ => Habits::default(),
    };
    let usual = pre.size.or_else(|| noted_size(spec)).unwrap_or([habits.side; 2]);
    Some(InputFormat {
        width: width.fixed_length().unwrap_or(usual[0]),
        height: height.fixed_length().unwrap_or(usual[1]),
        element,
        layout,
        bgr: pre.color == Some(ChannelOrder::Bgr),
        fit: pre.fit.map_or(Fit::Letterbox, fit),
        pad: pre.pad.unwrap_or(114),
        decoding: match pre.decode {
            Some(settings::JpegDecoding::Reduced) => Decoding::Reduced,
            _ => Decoding::Full,
        },
    })
}

/// What the exporter notes that the model is for: Ultralytics' `task`.
fn noted_task(spec: &ModelSpec) -> Option<&str> {
    let task = spec.metadata.get("task").map(String::as_str);
    if spec.metadata.contains_key("kpt_shape") { Some("pose") } else { task }
}

/// Whether the exporter notes that the graph removes duplicates: Ultralytics' `end2end`, or `nms` among its arguments.
fn is_noted_end_to_end(spec: &ModelSpec) -> bool {
    let end2end = spec.metadata.get("end2end").is_some_and(|note| note.trim().eq_ignore_ascii_case("true"));
    let arguments = spec.metadata.get("args").map_or("", String::as_str);
    let suppresses = |item: &str| {
        let Some((name, value)) = item.split_once(':') else { return false };
        let letters = |text: &str| text.trim_matches(|letter: char| !letter.is_alphanumeric()).to_lowercase();
        letters(name) == "nms" && letters(value) == "true"
    };
    end2end || arguments.split(',').any(suppresses)
}

/// Width and height that the exporter notes: Ultralytics' `imgsz`, one number for both or height before width.
pub(crate) fn noted_size(spec: &ModelSpec) -> Option<[usize; 2]> {
    let text = spec.metadata.get("imgsz")?.trim().trim_matches(['[', ']', '(', ')']);
    let numbers = text.split(',').map(str::trim).filter(|number| !number.is_empty());
    let numbers = numbers.map(|number| number.parse().ok()).collect::<Option<Vec<usize>>>()?;
    let size = match numbers[..] {
        [side] => [side; 2],
        [height, width] => [width, height],
        _ => return None,
    };
    size.iter().all(|side| (1..=MAX_SIDE).contains(side)).then_some(size)
}

fn fit(said: settings::ResizeMode) -> Fit {
    match said {
        settings::ResizeMode::Letterbox => Fit::Letterbox,
        settings::ResizeMode::Corner => Fit::Corner,
        settings::ResizeMode::Stretch => Fit::Stretch,
    }
}

/// The shape of each input for a warm-up of `rows` rows: what is free is one, or what the picture says.
pub(crate) fn warmup_shapes(spec: &ModelSpec, picture: Option<&InputFormat>, rows: usize) -> Vec<Shape> {
    let shape = |input: &TensorSpec| -> Shape {
        let mut shape: Shape = input.dims.iter().map(|dim| dim.fixed_length().unwrap_or(1)).collect();
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
        let within = input.row_dims().iter().map(|dim| dim.fixed_length().unwrap_or(free));
        [1].into_iter().chain(within).collect()
    };
    spec.inputs.iter().map(shape).collect()
}

/// What the model is for; `outputs` are the shapes that its warm-up gave for one row, `given` the class names in its folder.
pub(crate) fn task(
    spec: &ModelSpec,
    settings: &ModelSettings,
    picture: Option<InputFormat>,
    outputs: Option<&[Shape]>,
    given: Option<Vec<String>>,
) -> Result<Recognised, String> {
    let kind = settings.kind.as_deref().or(settings.family.as_ref().map(|_| "detect"));
    if kind == Some("tensors") {
        return Ok(Recognised::tensors(None));
    }
    let names_are_given = given.is_some();
    let noted = spec.metadata.get("names").filter(|names| !names_are_given && !names.trim().is_empty());
    let labels = given.or_else(|| noted.and_then(|names| parse_names(names)));
    let notice = noted.filter(|_| labels.is_none()).map(|names| names_unread(names));
    let found = Candidate::new(spec, settings, picture, outputs, labels).and_then(|candidate| candidate.model(kind));
    match found {
        Ok((model, certain)) => Ok(Recognised { task: Task::See(Box::new(model)), notice, certain }),
        Err(unfit) if kind.is_some() => Err(unfit.reason()),
        Err(Unfit::Names(reason)) if names_are_given => Err(reason),
        Err(unfit) => Ok(Recognised::tensors(picture.map(|_| tensors_instead(spec, outputs, unfit.reason())))),
    }
}

/// That the class names in a file's notes are written in no form that is known.
fn names_unread(names: &str) -> Notice {
    Notice {
        problem: format!(
            "the class names in its file cannot be read, so classes are called class_0, class_1, …: expected \
             {{0: 'person', 1: 'car'}} or ['person', 'car'], got {:?}",
            shorten(names)
        ),
        mend: "say `labels` in model.yaml, or put them into labels.txt, one a line".to_owned(),
    }
}

/// Why a model that takes pictures serves tensors.
fn tensors_instead(spec: &ModelSpec, outputs: Option<&[Shape]>, reason: String) -> Notice {
    let outputs = spec.outputs.iter().zip(outputs.unwrap_or_default());
    let outputs: Vec<_> = outputs.map(|(output, dims)| OutputShape { name: &output.name, dims }).collect();
    let seems = resembles(noted_task(spec), &outputs);
    let like = seems.map_or_else(String::new, |seems| format!("; it looks like {}", seems.what));
    let mend = seems.map_or("if it looks at pictures, say `kind` or `family` in model.yaml", |seems| seems.mend);
    let mend = format!("{mend}; POST /v2/models/{{model}}/infer takes tensors, and `kind: tensors` settles that");
    Notice { problem: format!("it serves tensors: {reason}{like}"), mend }
}

/// A model that takes pictures, and may be for them.
struct Candidate<'a> {
    settings: &'a ModelSettings,
    format: InputFormat,
    specs: &'a [TensorSpec],
    noted_task: Option<&'a str>,
    noted_end_to_end: bool,
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
    ) -> Result<Self, Unfit> {
        let format = picture
            .ok_or("it takes no pictures: one input of four dimensions, FP32, FP16 or UINT8, with three channels")?;
        if let Some(rows) = spec.inputs[0].dims[0].fixed_length().filter(|rows| *rows != 1) {
            return Err(
                format!("its first dimension is fixed at {rows}; export it with 1 or a free first dimension").into()
            );
        }
        let shapes = outputs.ok_or("its warm-up gave no output to recognise it by")?;
        if let Some(dims) = shapes.iter().find(|dims| dims.len() > 2 && dims[0] != 1) {
            return Err(format!("its output of {dims:?} for one picture does not begin with 1").into());
        }
        let outputs = spec.outputs.iter().zip(shapes).map(|(output, dims)| OutputShape { name: &output.name, dims });
        let (specs, outputs) = (&spec.outputs[..], outputs.collect());
        let (noted_task, noted_end_to_end) = (noted_task(spec), is_noted_end_to_end(spec));
        Ok(Self { settings, format, specs, noted_task, noted_end_to_end, outputs, labels })
    }

    /// The model, and whether it is one for certain.
    fn model(self, kind: Option<&str>) -> Result<(PictureModel, bool), Unfit> {
        let certain = |model| (model, true);
        match kind {
            Some("detect") => self.detector(),
            Some("classify") => self.classifier().map(certain),
            Some("segment") => self.segmenter().map(certain),
            Some(other) => {
                Err(format!("kind {other:?} is not known; there are detect, classify, segment, embed, tensors").into())
            }
            None if self.noted_task == Some("classify") => self.classifier().map(certain),
            None if self.noted_task.is_some_and(|task| ["segment", "pose", "obb"].contains(&task)) => {
                let task = self.noted_task.unwrap_or_default();
                Err(format!("its file says that its task is {task}, which is not read here").into())
            }
            None if self.says(&["prob", "softmax", "logits", "class"]) && self.classes().is_some() => {
                self.classifier().map(certain)
            }
            None if self.says(&["mask", "seg"]) && self.mask_head().is_some() => self.segmenter().map(certain),
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

    fn detector(self) -> Result<(PictureModel, bool), Unfit> {
        let classes = self.labels.as_ref().map(Vec::len);
        let network = Network { input: self.input(), outputs: &self.outputs, classes };
        let head = self.head(&network)?;
        let certain = self.settings.family.is_some() || self.is_certain(&head, &network);
        self.numbers(head.outputs(), &[DType::F32, DType::F16, DType::I32, DType::I64])?;
        let habits = head.family().habits();
        let defaults = Thresholds { conf: 0.25, iou: 0.45, max_det: 300 };
        Ok((self.finish(Look::Detect(Arc::new(head)), habits, defaults)?, certain))
    }

    /// The family that settings or notes name, else the one whose shapes its outputs have.
    fn head(&self, network: &Network<'_>) -> Result<Head, Unfit> {
        let list = self.list();
        if let Some(name) = &self.settings.family {
            let family: Family = name.parse()?;
            let head = family.head(network);
            return Ok(head.ok_or_else(|| format!("its outputs ({list}) are not those of {family}"))?);
        }
        let noted = self.noted_end_to_end.then(|| END_TO_END.parse::<Family>().ok()?.head(network)).flatten();
        let head = noted
            .or_else(|| Head::recognise(network))
            // With more or fewer names than classes it is one all the same, and that is said.
            .or_else(|| Head::recognise(&Network { classes: None, ..*network }));
        Ok(head.ok_or_else(|| format!("no family of detectors that is read here gives its outputs ({list})"))?)
    }

    /// Whether names or notes say that the network, which has the shapes of `head`, is of its family. Shapes alone are alike
    /// in many families.
    fn is_certain(&self, head: &Head, network: &Network<'_>) -> bool {
        if head.is_named(network) {
            return true;
        }
        match head.family().name() {
            // An RT-DETR that Ultralytics exports has a score for each of its classes behind the four sides.
            END_TO_END => {
                let sides_and_scores = self.labels.as_ref().is_none_or(|labels| labels.len() <= 2);
                self.noted_end_to_end || self.noted_task == Some("detect") && !sides_and_scores
            }
            _ => self.labels.is_some() && head.classes().is_some(),
        }
    }

    fn classifier(self) -> Result<PictureModel, Unfit> {
        let classes =
            self.classes().ok_or_else(|| format!("its outputs ({}) are not one likelihood a class", self.list()))?;
        self.numbers(&[0], &[DType::F32, DType::F16])?;
        self.finish(Look::Classify { classes }, WHOLE, Thresholds { conf: 0.0, iou: 1.0, max_det: classes })
    }

    fn segmenter(self) -> Result<PictureModel, Unfit> {
        let head = self.mask_head().ok_or_else(|| format!("its outputs ({}) do not cover the picture", self.list()))?;
        self.numbers(&[0], &[DType::F32, DType::F16])?;
        self.finish(Look::Segment(head), WHOLE, Thresholds { conf: 0.5, iou: 1.0, max_det: head.classes })
    }

    /// Checks that outputs `indices` hold one of `kinds` of numbers.
    fn numbers(&self, indices: &[usize], kinds: &[DType]) -> Result<(), String> {
        let odd = indices.iter().map(|index| &self.specs[*index]).find(|output| !kinds.contains(&output.dtype));
        odd.map_or(Ok(()), |odd| Err(format!("its output {odd} is not one of {kinds:?}")))
    }

    fn finish(self, look: Look, habits: Habits, defaults: Thresholds) -> Result<PictureModel, Unfit> {
        let labels = match (self.labels, look.classes()) {
            (Some(labels), Some(classes)) if labels.len() != classes => {
                return Err(Unfit::Names(wrong_count(&labels, classes)));
            }
            (Some(labels), _) => labels,
            (None, classes) => (0..classes.unwrap_or(0)).map(unnamed).collect(),
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
            // Until it has shown its numbers.
            activation: Activation::Softmax,
            dropped: Dropped::default(),
            thresholds: ArcSwap::from_pointee(Thresholds {
                conf: said.conf.unwrap_or(defaults.conf),
                iou: said.iou.unwrap_or(defaults.iou),
                max_det: said.max_det.unwrap_or(defaults.max_det),
            }),
        })
    }
}

/// The family of networks that remove duplicates in their graph.
const END_TO_END: &str = "end2end";

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
    fn recognise(settings: &str, input: Dim, output: Dim, rows: usize) -> Result<Recognised, String> {
        let settings = ModelSettings::parse(settings, "model.yaml").unwrap();
        let (inputs, outputs) = (vec![tensor(&[3, 64, 64], input)], vec![tensor(&[6, 84], output)]);
        let spec = ModelSpec { inputs, outputs, ..Default::default() };
        task(&spec, &settings, picture_input(&spec, &settings), Some(&[vec![rows, 6, 84]]), None)
    }

    #[test]
    fn a_detector_takes_one_picture_or_any_number() {
        let free = || Dim::Free("batch".to_owned());
        for (input, output) in [(Dim::Fixed(1), Dim::Fixed(1)), (free(), free()), (Dim::Fixed(1), free())] {
            assert!(matches!(recognise("", input, output, 1), Ok(Recognised { task: Task::See(_), .. })));
        }
    }

    /// Recognises a detector of 64 by 64 pixels with an output of `dims`, of which its file has `notes`.
    fn noted(dims: &[usize], notes: &[(&str, &str)]) -> Recognised {
        let notes = notes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let (inputs, outputs) = (vec![tensor(&[3, 64, 64], Dim::Fixed(1))], vec![tensor(&dims[1..], Dim::Fixed(1))]);
        let settings = ModelSettings::parse("", "model.yaml").unwrap();
        let spec = ModelSpec { inputs, outputs, metadata: notes };
        task(&spec, &settings, picture_input(&spec, &settings), Some(&[dims.to_vec()]), None).unwrap()
    }

    #[test]
    fn notes_of_a_file_say_for_certain_that_a_network_picks_its_boxes() {
        let three = ("names", "{0: 'a', 1: 'b', 2: 'c'}");
        for (notes, certain) in [
            (&[("end2end", "True")][..], true),
            (&[("args", "{'batch': 1, 'half': False, 'nms': True}")], true),
            (&[("task", "detect"), three], true),
            (&[("end2end", "False"), ("args", "{'nms': False}")], false),
            (&[("task", "detect"), ("names", "{0: 'a', 1: 'b'}")], false),
            (&[three], false),
            (&[("task", "detect")], false),
            (&[], false),
        ] {
            let found = noted(&[1, 300, 6], notes);
            let Task::See(model) = &found.task else { panic!("{notes:?}: {found:?}") };
            assert_eq!((model.look.family(), found.certain), (Some("end2end"), certain), "{notes:?}");
        }
        // A note counts more than the shape, which is that of a YOLOX with one class.
        for (notes, family) in [(&[("end2end", "true")][..], "end2end"), (&[], "yolox")] {
            let found = noted(&[1, 84, 6], notes);
            assert!(matches!(&found.task, Task::See(model) if model.look.family() == Some(family)), "{found:?}");
        }
    }

    #[test]
    fn names_of_as_many_classes_as_a_grid_has_make_it_certain() {
        assert!(noted(&[1, 6, 84], &[("names", "['a', 'b']")]).certain);
        assert!(!noted(&[1, 6, 84], &[]).certain);
    }

    #[test]
    fn names_that_cannot_be_read_are_mentioned() {
        let notice = noted(&[1, 6, 84], &[("names", "person;car")]).notice.unwrap();
        assert!(notice.problem.contains("expected {0: 'person', 1: 'car'} or ['person', 'car'], got \"person;car\""));
        for names in ["{0: 'a', 1: 'b'}", "\u{feff}{0: u'a', 1: u'b'}", " "] {
            assert_eq!(noted(&[1, 6, 84], &[("names", names)]).notice, None, "{names}");
        }
        let Task::See(sparse) = noted(&[1, 7, 84], &[("names", "{0:'a',2:'c'}")]).task else { panic!() };
        assert_eq!(sparse.labels.iter().map(|label| &**label).collect::<Vec<_>>(), ["a", "class_1", "c"]);
    }

    #[test]
    fn a_first_dimension_that_is_fixed_at_more_is_refused_in_words() {
        let words =
            |task: Result<Recognised, String>| task.map_or_else(|reason| reason, |found| found.task.name().to_owned());
        let four = |settings: &str| words(recognise(settings, Dim::Fixed(4), Dim::Fixed(4), 4));
        let expected = "its first dimension is fixed at 4; export it with 1 or a free first dimension";
        assert_eq!(four("kind: detect"), expected);
        assert_eq!(four("family: yolov8"), expected);
        assert_eq!(four(""), "tensors");
        let output = words(recognise("kind: detect", Dim::Fixed(1), Dim::Fixed(4), 4));
        assert_eq!(output, "its output of [4, 6, 84] for one picture does not begin with 1");
    }
}
