//! Models that look at pictures: what they know beside their weights, what may be asked of them, what they answer.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use caudal_types::StageTimes;
use caudal_vision::{
    Activation, Detection, Head, InputFormat, Likely, Mask, MaskForm, MaskHead, Normalisation, Thresholds,
};

use crate::labels::unnamed;

/// A model that looks at pictures.
#[derive(Debug)]
pub struct PictureModel {
    /// What it looks for.
    pub look: Look,
    /// The picture it takes.
    pub format: InputFormat,
    /// What happens to the picture's values.
    pub normalisation: Normalisation,
    /// Class names; none where neither the model nor its settings tell them.
    pub labels: Vec<Arc<str>>,
    /// What makes likelihoods of a classifier's scores, or of a segmentation's with one class.
    pub activation: Activation,
    /// What it found and could not be told.
    pub dropped: Dropped,
    pub(crate) thresholds: ArcSwap<Thresholds>,
}

/// Counts what a model found and cannot be told: confidences outside 0 to 1, sides of boxes that are no numbers.
#[derive(Debug, Default)]
pub struct Dropped(AtomicU64);

impl Dropped {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts `found` more of `model`; the first is logged.
    pub(crate) fn add(&self, model: &str, found: usize) {
        if found > 0 && self.0.fetch_add(found as u64, Ordering::Relaxed) == 0 {
            tracing::warn!(
                model,
                found,
                "what was found is dropped: a confidence is not between 0 and 1, or a number is none; GET \
                 /admin/models/{{model}} counts further ones"
            );
        }
    }
}

/// What a model looks for, and in which of its outputs it says what it found.
#[derive(Debug)]
pub enum Look {
    /// Objects.
    Detect(Arc<Head>),
    /// What the whole picture shows; likelihoods in the first output.
    Classify {
        /// How many classes it tells apart.
        classes: usize,
    },
    /// Which pixels belong to what; scores in the first output.
    Segment(MaskHead),
}

impl Look {
    /// Its name in settings and answers.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Detect(_) => "detect",
            Self::Classify { .. } => "classify",
            Self::Segment(_) => "segment",
        }
    }

    /// How many classes it tells apart, where that is known.
    pub fn classes(&self) -> Option<usize> {
        match self {
            Self::Detect(head) => head.classes(),
            Self::Classify { classes } => Some(*classes),
            Self::Segment(head) => Some(head.classes),
        }
    }

    /// The layout of its outputs, where there are several.
    pub fn family(&self) -> Option<&'static str> {
        if let Self::Detect(head) = self { Some(head.family().name()) } else { None }
    }
}

impl PictureModel {
    /// Thresholds of requests that name none, as they are now.
    pub fn thresholds(&self) -> Thresholds {
        **self.thresholds.load()
    }

    pub(crate) fn set_thresholds(&self, thresholds: Thresholds) {
        self.thresholds.store(Arc::new(thresholds));
    }

    /// The name of class `class_id`.
    pub fn label(&self, class_id: usize) -> Cow<'_, str> {
        match self.labels.get(class_id) {
            Some(label) => Cow::Borrowed(label),
            None => Cow::Owned(unnamed(class_id)),
        }
    }

    /// The classes called `name`, of which there may be several, or the one of that number; none if there is no such class.
    pub fn classes(&self, name: &str) -> Vec<usize> {
        let known = self.look.classes().unwrap_or(usize::MAX);
        match name.parse().ok().filter(|class| *class < known) {
            Some(class) => vec![class],
            None => (0..self.labels.len()).filter(|class| *self.labels[*class] == *name).collect(),
        }
    }

    /// The class that stands for nothing, where there is one.
    pub(crate) fn nothing(&self) -> Option<usize> {
        self.labels.iter().position(|label| matches!(&**label, "background" | "__background__"))
    }
}

/// What a request wants.
#[derive(Debug, Clone)]
pub struct Ask {
    /// What a detection must have; of a segmentation, how likely a pixel must be.
    pub thresholds: Thresholds,
    /// The classes that count; all when empty.
    pub classes: Vec<usize>,
    /// Most classes of a classification.
    pub top_k: usize,
    /// How masks are written down.
    pub masks: MaskForm,
    /// Whether the picture is wanted back with what was found on it.
    pub draw: bool,
}

/// The answer to one picture.
#[derive(Debug)]
pub struct Seen {
    /// What was found.
    pub found: Found,
    /// Width and height of the upright picture.
    pub size: (u32, u32),
    /// The picture with what was found on it, as a JPEG, if that was asked for.
    pub drawn: Option<Vec<u8>>,
    /// Where the time went.
    pub stamps: StageTimes,
}

/// What was found in a picture.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// Objects, surest first, in pixels of the upright picture.
    Objects(Vec<Detection>),
    /// What the whole picture shows, likeliest first.
    Classes(Vec<Likely>),
    /// Which pixels belong to what, by class.
    Segments(Vec<Segment>),
}

impl Found {
    /// Things found.
    pub fn count(&self) -> usize {
        match self {
            Self::Objects(found) => found.len(),
            Self::Classes(found) => found.len(),
            Self::Segments(found) => found.len(),
        }
    }
}

/// The pixels of one class.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Which class.
    pub class_id: usize,
    /// How much of the picture belongs to it, 0 to 1.
    pub area: f32,
    /// Which pixels.
    pub mask: Mask,
}
