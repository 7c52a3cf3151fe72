//! How the networks of one family write their boxes. A family is one file: which outputs are its own, what pictures
//! it was trained on, how its numbers are read. Everything before and after is shared.

mod end_to_end;
mod shown;
mod ssd;
mod yolov5;
mod yolov8;
mod yolox;

pub use shown::{Shown, Span};
pub use yolox::places;

use std::{fmt, str::FromStr};

use shown::Unit;

use crate::{Detection, Fit, classify::sound_confidence};

/// What a detection must have to count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Least confidence.
    pub conf: f32,
    /// Overlap above which the weaker of two boxes of a class goes.
    pub iou: f32,
    /// Most boxes.
    pub max_det: usize,
}

/// Boxes in pixels of the model's input, before duplicates are removed.
pub type Candidates = Vec<Detection>;

/// More candidates than this are no detections but noise; the surest are kept.
const MAX_CANDIDATES: usize = 30_000;

/// What is known of a network when its family is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Network<'a> {
    /// Width and height of its input.
    pub input: (usize, usize),
    /// Its outputs.
    pub outputs: &'a [OutputShape<'a>],
    /// How many classes it tells apart, if that is known.
    pub classes: Option<usize>,
}

/// An output: its name, and its dimensions as one run gave them for one row.
#[derive(Debug, Clone, Copy)]
pub struct OutputShape<'a> {
    /// Its name in the graph.
    pub name: &'a str,
    /// Its dimensions, the first counting rows.
    pub dims: &'a [usize],
}

/// An output of one row.
#[derive(Debug, Clone, Copy)]
pub struct Output<'a> {
    /// Its dimensions.
    pub dims: &'a [usize],
    /// Its numbers, row-major.
    pub values: Values<'a>,
}

/// Numbers of one of the kinds that detectors give.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum Values<'a> {
    F32(&'a [f32]),
    I32(&'a [i32]),
    I64(&'a [i64]),
}

impl<'a> Values<'a> {
    /// Those that are floats; none where they are whole numbers.
    pub fn floats(self) -> &'a [f32] {
        if let Self::F32(values) = self { values } else { &[] }
    }

    fn get(self, index: usize) -> Option<f32> {
        match self {
            Self::F32(values) => values.get(index).copied(),
            Self::I32(values) => values.get(index).map(|value| *value as f32),
            Self::I64(values) => values.get(index).map(|value| *value as f32),
        }
    }
}

/// What a family's file says.
trait Reader: Sync {
    /// Its names in `model.yaml`, ours first.
    fn names(&self) -> &'static [&'static str];

    /// The pictures that its networks were trained on.
    fn habits(&self) -> Habits {
        Habits::default()
    }

    /// Whether its networks remove duplicates themselves.
    fn suppresses(&self) -> bool {
        false
    }

    /// Its outputs among those of `network`; none if they cannot be this family's.
    fn find(&self, network: &Network<'_>) -> Option<Parts>;

    /// Whether `network`, of which `parts` could be this family's, is so without doubt.
    fn is_sure(&self, network: &Network<'_>, parts: &Parts) -> bool;

    /// Whether the names of the outputs of `network`, which [`Self::is_sure`], say that it is of this family.
    fn is_named(&self, _network: &Network<'_>) -> bool {
        false
    }

    /// Whether `shown` holds numbers that only networks of this family give, where nothing contradicts it.
    fn is_proved_by(&self, shown: &Shown) -> bool {
        shown.scores.has_numbers() && shown.sides.has_numbers()
    }

    /// In what its boxes are given.
    fn unit(&self) -> Unit {
        Unit::Pixels
    }

    /// What its numbers show of one run; the outputs come in the order of [`Parts::outputs`].
    fn shown(&self, outputs: &[Output<'_>], input: (usize, usize)) -> Shown;

    /// Reads boxes, in pixels of an input of size `input`, that are at least `conf` sure; the outputs come in the order
    /// of [`Parts::outputs`].
    fn candidates(&self, outputs: &[Output<'_>], parts: &Parts, input: (usize, usize), conf: f32) -> Candidates;
}

/// Which outputs of a network a family reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Parts {
    /// Their places among all, in the order in which they are read.
    outputs: Vec<usize>,
    /// Classes that they tell apart; none where they do not say.
    classes: Option<usize>,
    /// Scores before that of the first class: one, where nothing is a class too.
    background: usize,
}

/// How a family wants its pictures, where nobody says otherwise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Habits {
    /// How a picture is brought to the model's size.
    pub fit: Fit,
    /// Blue first.
    pub bgr: bool,
    /// Factor for 8-bit values.
    pub scale: f32,
    /// Width and height where the model leaves them free.
    pub side: usize,
}

impl Default for Habits {
    fn default() -> Self {
        Self { fit: Fit::Letterbox, bgr: false, scale: 1.0 / 255.0, side: 640 }
    }
}

/// A kind of detector, by the layout of its outputs.
#[derive(Clone, Copy)]
pub struct Family(&'static dyn Reader);

/// In the order in which they are tried.
const ALL: [Family; 5] = [
    Family(&yolov8::YoloV8),
    Family(&yolov5::YoloV5),
    Family(&yolox::YoloX),
    Family(&ssd::Ssd),
    Family(&end_to_end::EndToEnd),
];

impl Family {
    /// Its name in `model.yaml`.
    pub fn name(self) -> &'static str {
        self.0.names()[0]
    }

    /// The pictures that its networks were trained on.
    pub fn habits(self) -> Habits {
        self.0.habits()
    }

    /// This family's way to read `network`, if its outputs can be read so.
    pub fn head(self, network: &Network<'_>) -> Option<Head> {
        self.0.find(network).map(|parts| Head { family: self, parts, input: network.input })
    }
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PartialEq for Family {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl FromStr for Family {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = ALL.into_iter().find(|family| family.0.names().contains(&name));
        found.ok_or_else(|| {
            let names: Vec<_> = ALL.into_iter().map(Self::name).collect();
            format!("family {name:?} is not known; there are {}", names.join(", "))
        })
    }
}

/// The outputs of one network, and how they are read.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    family: Family,
    parts: Parts,
    input: (usize, usize),
}

impl Head {
    /// The head of `network`, if it is one of a known family without doubt.
    pub fn recognise(network: &Network<'_>) -> Option<Self> {
        ALL.into_iter().find_map(|family| {
            let head = family.head(network)?;
            let known = match (network.classes, head.parts.classes) {
                (Some(known), Some(told)) => known == told,
                _ => true,
            };
            (known && family.0.is_sure(network, &head.parts)).then_some(head)
        })
    }

    /// Whether the names of the outputs of `network`, whose head this is, say so.
    pub fn is_named(&self, network: &Network<'_>) -> bool {
        self.family.0.is_named(network) && self.family.0.is_sure(network, &self.parts)
    }

    /// Its family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The places of the outputs that it reads, in order.
    pub fn outputs(&self) -> &[usize] {
        &self.parts.outputs
    }

    /// How many classes it tells apart, where its outputs say so.
    pub fn classes(&self) -> Option<usize> {
        self.parts.classes
    }

    /// Scores before that of the first class: one, where nothing is a class too.
    pub fn background(&self) -> usize {
        self.parts.background
    }

    /// Whether the network removes duplicates itself.
    pub fn suppresses(&self) -> bool {
        self.family.0.suppresses()
    }

    /// What the numbers of one row's outputs, given in the order of [`Self::outputs`], show.
    pub fn shown(&self, outputs: &[Output<'_>]) -> Shown {
        self.family.0.shown(outputs, self.input)
    }

    /// What in `shown` cannot be of a network of this family, in words.
    pub fn contradiction(&self, shown: &Shown) -> Option<String> {
        self.family.0.unit().contradiction(shown, self.input)
    }

    /// Whether `shown` holds numbers that prove the family, where nothing contradicts it.
    pub fn is_proved_by(&self, shown: &Shown) -> bool {
        self.family.0.is_proved_by(shown)
    }

    /// Reads the boxes out of one row's outputs, given in the order of [`Self::outputs`], that are at least `conf` sure; and
    /// says how many were dropped because their confidence is not between 0 and 1, or a side is no number.
    pub fn candidates(&self, outputs: &[Output<'_>], conf: f32) -> (Candidates, usize) {
        let mut found = self.family.0.candidates(outputs, &self.parts, self.input, conf);
        let before = found.len();
        found.retain_mut(make_sound);
        let dropped = before - found.len();
        if found.len() > MAX_CANDIDATES {
            found.select_nth_unstable_by(MAX_CANDIDATES, |a, b| b.confidence.total_cmp(&a.confidence));
            found.truncate(MAX_CANDIDATES);
        }
        (found, dropped)
    }
}

/// Whether `found` has numbers that can be told; what rounding has added to its confidence is taken away.
fn make_sound(found: &mut Detection) -> bool {
    let rect = found.rect;
    match sound_confidence(found.confidence) {
        Some(confidence) if [rect.x1, rect.y1, rect.x2, rect.y2].into_iter().all(f32::is_finite) => {
            found.confidence = confidence;
            true
        }
        _ => false,
    }
}

/// The strides of the three grids that most of these networks lay over their input.
const STRIDES: [usize; 3] = [8, 16, 32];

/// Cells of these grids.
fn grid_cells((width, height): (usize, usize)) -> usize {
    STRIDES.iter().map(|stride| width.div_ceil(*stride) * height.div_ceil(*stride)).sum()
}

/// The dimensions of a network's only output.
fn only<'a>(network: &Network<'a>) -> Option<&'a [usize]> {
    if let [output] = network.outputs { Some(output.dims) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recognise(input: (usize, usize), outputs: &[(&str, &[usize])], classes: Option<usize>) -> Option<&'static str> {
        let outputs: Vec<_> = outputs.iter().map(|(name, dims)| OutputShape { name, dims }).collect();
        Head::recognise(&Network { input, outputs: &outputs, classes }).map(|head| head.family().name())
    }

    fn check(input: (usize, usize), dims: &[usize], classes: Option<usize>, expected: Option<&str>) {
        assert_eq!(recognise(input, &[("output", dims)], classes), expected, "{dims:?}");
    }

    #[test]
    fn families_are_told_apart_by_shapes() {
        check((640, 640), &[1, 84, 8400], None, Some("yolov8"));
        check((416, 416), &[1, 84, 3549], Some(80), Some("yolov8"));
        check((640, 640), &[1, 25200, 85], Some(80), Some("yolov5"));
        check((640, 384), &[1, 5, 5040], Some(1), Some("yolov8"));
        check((416, 416), &[1, 3549, 85], Some(80), Some("yolox"));
        check((416, 416), &[1, 3549, 6], None, Some("yolox"));
        check((640, 640), &[1, 300, 6], None, Some("end2end"));
        check((640, 640), &[1, 84, 8400], Some(79), None);
        check((640, 640), &[1, 25200, 85], Some(79), None);
        check((224, 224), &[1, 1000], None, None);
        check((224, 224), &[1, 6], None, None);
        check((640, 640), &[1, 4, 8400], None, None);
    }

    #[test]
    fn several_outputs_are_told_apart_by_names_and_shapes() {
        let ssd: [(&str, &[usize]); 2] =
            [("Postprocessor/convert_scores", &[1, 1917, 90]), ("Postprocessor/ExpandDims_1", &[1, 1917, 1, 4])];
        assert_eq!(recognise((300, 300), &ssd, Some(90)), Some("ssd"));
        assert_eq!(recognise((300, 300), &ssd, Some(89)), Some("ssd"), "the first may be that nothing is there");
        assert_eq!(recognise((300, 300), &ssd, Some(80)), None);
        let fused: [(&str, &[usize]); 4] =
            [("num_dets", &[1, 1]), ("det_boxes", &[1, 100, 4]), ("det_scores", &[1, 100]), ("det_classes", &[1, 100])];
        assert_eq!(recognise((640, 640), &fused, Some(80)), Some("end2end"));
        let two: [(&str, &[usize]); 2] = [("output0", &[1, 116, 8400]), ("output1", &[1, 32, 160, 160])];
        assert_eq!(recognise((640, 640), &two, Some(80)), None);
    }

    #[test]
    fn detectors_of_other_families_are_none_of_ours() {
        let none: [&[(&str, &[usize])]; 8] = [
            &[("logits", &[1, 300, 80]), ("pred_boxes", &[1, 300, 4])],
            &[("boxes", &[1, 8400, 4]), ("scores", &[1, 8400, 80])],
            &[("scores", &[1, 3000, 21]), ("boxes", &[1, 3000, 4])],
            &[
                ("num_detections", &[1]),
                ("detection_boxes", &[1, 100, 4]),
                ("detection_scores", &[1, 100]),
                ("detection_classes", &[1, 100]),
            ],
            &[("output0", &[1, 116, 8400]), ("output1", &[1, 32, 160, 160])],
            &[("dets", &[1, 100, 5]), ("labels", &[1, 100])],
            &[("output", &[0, 6])],
            &[("output", &[0, 7])],
        ];
        for outputs in none {
            assert_eq!(recognise((640, 640), outputs, None), None, "{outputs:?}");
        }
    }

    fn contradiction(family: &str, outputs: &[Output<'_>]) -> Option<String> {
        let shapes: Vec<_> = outputs.iter().map(|output| OutputShape { name: "o", dims: output.dims }).collect();
        let network = Network { input: (64, 64), outputs: &shapes, classes: None };
        let head = family.parse::<Family>().unwrap().head(&network).unwrap();
        head.contradiction(&head.shown(outputs))
    }

    #[track_caller]
    fn check_numbers(family: &str, dims: &[usize], values: &[f32], words: Option<&str>) {
        let said = contradiction(family, &[Output { dims, values: Values::F32(values) }]);
        match words {
            None => assert_eq!(said, None, "{values:?}"),
            Some(words) => assert!(said.as_ref().is_some_and(|said| said.contains(words)), "{words}: {said:?}"),
        }
    }

    #[test]
    fn numbers_of_other_layouts_contradict_the_family_that_shapes_say() {
        // One cell: centre, size, two scores; then what else stands in such a place.
        let v8 = |values: [f32; 6], words| check_numbers("yolov8", &[1, 6, 1], &values, words);
        v8([30.0, 20.0, 8.0, 8.0, 0.9, 0.1], None);
        v8([30.0, 20.0, 8.0, 8.0, 0.001, 0.0], None);
        v8([0.0; 6], None);
        v8([30.0, f32::NAN, 8.0, 8.0, f32::INFINITY, 0.5], None);
        v8([30.0, 20.0, 8.0, 8.0, 0.9, 46.0], Some("scores lie between 0.9 and 46, expected 0 to 1"));
        v8([30.0, 20.0, 8.0, 8.0, 0.9, -6.0], Some("scores lie between -6"));
        v8([0.5, 0.4, 0.1, 0.2, 0.9, 0.1], Some("expected pixels of an input of 64x64"));
        v8([30.0, 20.0, 8e9, 8.0, 0.9, 0.1], Some("boxes reach to"));
        let v5 = |values: [f32; 7], words| check_numbers("yolov5", &[1, 1, 7], &values, words);
        v5([30.0, 20.0, 8.0, 8.0, 0.9, 0.1, 0.2], None);
        v5([30.0, 20.0, 8.0, 8.0, -4.0, 0.1, 0.2], Some("scores lie between"));
        // Decoded boxes read as if they were still in the grid's terms.
        let grid = |cell: [f32; 7]| [&cell[..], &[0.0; 7 * 83]].concat();
        check_numbers("yolox", &[1, 84, 7], &grid([0.5, 0.5, 0.1, 0.7, 1.0, 0.1, 0.9]), None);
        check_numbers("yolox", &[1, 84, 7], &grid([24.0, 36.0, 32.0, 40.0, 1.0, 0.1, 0.9]), Some("boxes reach to"));
        let e2e = |values: [f32; 6], words| check_numbers("end2end", &[1, 1, 6], &values, words);
        e2e([8.0, 16.0, 40.0, 56.0, 0.9, 5.0], None);
        e2e([0.0, 0.0, 0.0, 0.0, 0.0, -1.0], None);
        e2e([5.0, 0.9, 8.0, 16.0, 40.0, 56.0], Some("scores lie between"));
        e2e([24.0, 36.0, 8.0, 9.0, 0.9, 5.0], Some("turned inside out"));
        e2e([8.0, 16.0, 40.0, 56.0, 0.9, 0.3], Some("no whole number"));
        e2e([8.0, 16.0, 40.0, 56.0, 0.9, -2.0], Some("no whole number"));
    }

    #[test]
    fn only_a_box_proves_a_network_that_picks_its_boxes() {
        let network =
            Network { input: (64, 64), outputs: &[OutputShape { name: "o", dims: &[1, 1, 6] }], classes: None };
        let head = Head::recognise(&network).unwrap();
        let proves = |values: [f32; 6]| {
            let shown = head.shown(&[Output { dims: &[1, 1, 6], values: Values::F32(&values) }]);
            assert_eq!(head.contradiction(&shown), None, "{values:?}");
            head.is_proved_by(&shown)
        };
        assert!(proves([8.0, 16.0, 40.0, 56.0, 0.9, 5.0]));
        assert!(!proves([0.0, 0.0, 0.0, 0.0, 0.0, -1.0]));
        assert!(!proves([8.0, 16.0, 40.0, 56.0, 0.01, 0.3]));
        assert!(!head.is_proved_by(&Shown::default()) && !head.is_named(&network));
    }

    #[test]
    fn parts_of_a_picture_and_its_pixels_are_told_apart() {
        let scores = Output { dims: &[1, 1, 2], values: Values::F32(&[0.1, 0.8]) };
        let ssd =
            |sides: &[f32; 4]| contradiction("ssd", &[Output { dims: &[1, 1, 4], values: Values::F32(sides) }, scores]);
        assert_eq!(ssd(&[0.1, 0.2, 0.5, 0.6]), None);
        assert!(ssd(&[8.0, 16.0, 40.0, 56.0]).unwrap().contains("expected parts of the input"));
    }

    #[test]
    fn what_cannot_be_told_is_dropped_and_counted() {
        let odd = [f32::NAN, 1.0, 5.0, 6.0, 0.9, 0.0, 1.0, 1.0, 5.0, 6.0, f32::INFINITY, 0.0];
        let more = [8.0, 16.0, 40.0, 56.0, 46.0, 1.0, 8.0, 16.0, 40.0, 56.0, 1.004, 1.0];
        let values = [odd, more].concat();
        let output = Output { dims: &[1, 4, 6], values: Values::F32(&values) };
        let network =
            Network { input: (64, 64), outputs: &[OutputShape { name: "o", dims: &[1, 4, 6] }], classes: None };
        let head = Head::recognise(&network).unwrap();
        let (found, dropped) = head.candidates(&[output], 0.25);
        assert_eq!((found.len(), found[0].confidence, dropped), (1, 1.0, 3));
    }

    #[test]
    fn names_read_back() {
        for family in ALL {
            for name in family.0.names() {
                assert_eq!(name.parse(), Ok(family));
            }
        }
        assert!("retina".parse::<Family>().unwrap_err().contains("yolov8, yolov5, yolox"));
    }
}
