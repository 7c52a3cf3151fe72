//! Where a picture lies within a model's input, and how boxes find back.

use crate::BoxF;

/// How a picture is brought to the model's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fit {
    /// Its aspect is kept, it is centred, what is left is padded: as YOLO's trainers do.
    #[default]
    Letterbox,
    /// Its aspect is kept, it lies in the upper left corner, what is left is padded: as YOLOX's trainers do.
    Corner,
    /// Each axis is scaled by itself.
    Stretch,
}

/// Where an upright picture of a given size lies within a model's input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// The picture's size.
    pub source: (u32, u32),
    /// Size of its content within the input.
    pub content: (usize, usize),
    /// Where the content begins within the input.
    pub offset: (usize, usize),
    /// Input pixels per picture pixel, for each axis.
    pub scale: (f32, f32),
}

impl Geometry {
    /// The place of a picture of size `source` within an input of size `input`.
    ///
    /// A letterbox scales by `r = min(W/w, H/h)`, its content measures `round(w*r)` by `round(h*r)`, and of an odd
    /// rest the larger half lies right and below. In a corner it measures `floor(w*r)` by `floor(h*r)`.
    pub fn new(source: (u32, u32), input: (usize, usize), fit: Fit) -> Self {
        let (w, h) = (f64::from(source.0), f64::from(source.1));
        let (fit_x, fit_y) = (input.0 as f64 / w, input.1 as f64 / h);
        match fit {
            Fit::Stretch => Self { source, content: input, offset: (0, 0), scale: (fit_x as f32, fit_y as f32) },
            Fit::Corner => {
                let r = fit_x.min(fit_y);
                let side = |length: f64, limit: usize| ((length * r) as usize).clamp(1, limit);
                let content = (side(w, input.0), side(h, input.1));
                Self { source, content, offset: (0, 0), scale: (r as f32, r as f32) }
            }
            Fit::Letterbox => {
                let r = fit_x.min(fit_y);
                let side = |length: f64, limit: usize| (length * r).round_ties_even().clamp(1.0, limit as f64) as usize;
                let content = (side(w, input.0), side(h, input.1));
                let offset = ((input.0 - content.0) / 2, (input.1 - content.1) / 2);
                Self { source, content, offset, scale: (r as f32, r as f32) }
            }
        }
    }

    /// A box of the model's input as a box of the picture, cut at its edges.
    pub fn to_source(&self, input: BoxF) -> BoxF {
        let x = |x: f32| ((x - self.offset.0 as f32) / self.scale.0).clamp(0.0, self.source.0 as f32);
        let y = |y: f32| ((y - self.offset.1 as f32) / self.scale.1).clamp(0.0, self.source.1 as f32);
        BoxF { x1: x(input.x1), y1: y(input.y1), x2: x(input.x2), y2: y(input.y2) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(source: (u32, u32), content: (usize, usize), offset: (usize, usize)) {
        let geometry = Geometry::new(source, (640, 640), Fit::Letterbox);
        assert_eq!((geometry.content, geometry.offset), (content, offset), "{source:?}");
    }

    #[test]
    fn content_is_centred_and_keeps_its_aspect() {
        check((1920, 1080), (640, 360), (0, 140));
        check((640, 480), (640, 480), (0, 80));
        check((480, 640), (480, 640), (80, 0));
        check((1, 1), (640, 640), (0, 0));
        check((546, 413), (640, 484), (0, 78));
        check((20_000, 1), (640, 1), (0, 319));
    }

    #[test]
    fn content_in_a_corner_is_cut_to_whole_pixels() {
        let geometry = Geometry::new((546, 413), (416, 416), Fit::Corner);
        assert_eq!((geometry.content, geometry.offset), ((416, 314), (0, 0)));
    }

    proptest! {
        #[test]
        fn boxes_find_back(w in 1u32..5000, h in 1u32..5000, fx in 0f32..1.0, fy in 0f32..1.0, fit in 0usize..3) {
            let fit = [Fit::Stretch, Fit::Letterbox, Fit::Corner][fit];
            let geometry = Geometry::new((w, h), (640, 416), fit);
            let (x, y) = (fx * w as f32, fy * h as f32);
            let there = BoxF {
                x1: x * geometry.scale.0 + geometry.offset.0 as f32,
                y1: y * geometry.scale.1 + geometry.offset.1 as f32,
                x2: 1e6,
                y2: 1e6,
            };
            let back = geometry.to_source(there);
            let tolerance = 2e-3 * (w.max(h) as f32).max(1.0);
            prop_assert!((back.x1 - x).abs() <= tolerance && (back.y1 - y).abs() <= tolerance, "{back:?} {x} {y}");
            prop_assert_eq!((back.x2, back.y2), (w as f32, h as f32));
        }
    }
}
