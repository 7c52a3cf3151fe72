//! How the networks of one family write their boxes. A family is one file: how it is recognised, and how its
//! output is read; everything before and after is shared.

mod yolov5;
mod yolov8;

use std::{fmt, str::FromStr};

use crate::Detection;

/// A kind of detector, by the layout of its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// YOLOv8, v9 and v11 as Ultralytics exports them.
    YoloV8,
    /// YOLOv5 and v7.
    YoloV5,
}

/// An output's dimensions, as one run gave them for one row.
pub type OutputDims<'a> = &'a [usize];

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

impl Family {
    /// All families.
    pub const ALL: [Self; 2] = [Self::YoloV8, Self::YoloV5];

    /// Its name in `model.yaml`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::YoloV8 => "yolov8",
            Self::YoloV5 => "yolov5",
        }
    }

    /// The family whose networks, fed with `width` by `height` pixels, give one output of `dims` for `classes`
    /// classes (if their number is known).
    pub fn recognise((width, height): (usize, usize), dims: OutputDims<'_>, classes: Option<usize>) -> Option<Self> {
        Self::ALL.into_iter().find(|family| match family {
            Self::YoloV8 => yolov8::recognise(width, height, dims, classes),
            Self::YoloV5 => yolov5::recognise(width, height, dims, classes),
        })
    }

    /// How many classes an output of `dims` tells apart; none if the dimensions are not this family's.
    pub fn classes(self, dims: OutputDims<'_>) -> Option<usize> {
        match self {
            Self::YoloV8 => yolov8::classes(dims),
            Self::YoloV5 => yolov5::classes(dims),
        }
    }

    /// Reads the boxes out of one row's output `values` of `dims` (the first being 1) that are at least `conf` sure.
    pub fn candidates(self, values: &[f32], dims: OutputDims<'_>, conf: f32) -> Candidates {
        let mut found = match self {
            Self::YoloV8 => yolov8::candidates(values, dims, conf),
            Self::YoloV5 => yolov5::candidates(values, dims, conf),
        };
        if found.len() > MAX_CANDIDATES {
            found.select_nth_unstable_by(MAX_CANDIDATES, |a, b| b.confidence.total_cmp(&a.confidence));
            found.truncate(MAX_CANDIDATES);
        }
        found
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Family {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "yolov5" | "yolov7" => Ok(Self::YoloV5),
            "yolov8" | "yolov9" | "yolov11" | "yolo11" => Ok(Self::YoloV8),
            _ => Err(format!("family {name:?} is not known; yolov8 and yolov5 are")),
        }
    }
}

/// Cells of the three grids (strides 8, 16 and 32) that these networks lay over their input.
fn grid_cells(width: usize, height: usize) -> usize {
    [8, 16, 32].iter().map(|stride| width.div_ceil(*stride) * height.div_ceil(*stride)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: (usize, usize), dims: &[usize], classes: Option<usize>, expected: Option<Family>) {
        assert_eq!(Family::recognise(input, dims, classes), expected, "{dims:?}");
    }

    #[test]
    fn families_are_told_apart_by_shapes() {
        check((640, 640), &[1, 84, 8400], None, Some(Family::YoloV8));
        check((416, 416), &[1, 84, 3549], Some(80), Some(Family::YoloV8));
        check((640, 640), &[1, 25200, 85], Some(80), Some(Family::YoloV5));
        check((640, 384), &[1, 5, 5040], Some(1), Some(Family::YoloV8));
        check((640, 640), &[1, 84, 8400], Some(79), None);
        check((640, 640), &[1, 25200, 85], Some(79), None);
        check((224, 224), &[1, 1000], None, None);
        check((640, 640), &[1, 300, 6], None, None);
        check((640, 640), &[1, 4, 8400], None, None);
    }

    #[test]
    fn names_read_back() {
        for family in Family::ALL {
            assert_eq!(family.name().parse(), Ok(family));
        }
        assert!("ssd".parse::<Family>().unwrap_err().contains("yolov8 and yolov5"));
    }
}
