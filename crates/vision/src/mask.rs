//! Which pixels belong to what: from a network's grid of scores to masks of the picture's size.

use png::{BitDepth, ColorType, Compression, Encoder};

use crate::{Activation, Geometry, Layout};

/// More classes than a byte can number are no segmentation.
pub const MAX_MASK_CLASSES: usize = 255;

/// The class of a pixel that belongs to none.
const NONE: u8 = u8::MAX;

/// How a network writes its scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskHead {
    /// Width and height of its grid.
    pub grid: (usize, usize),
    /// Scores of each cell: one, which says how likely the only class is, or one for each class.
    pub classes: usize,
    /// Where the scores of a cell stand.
    pub layout: Layout,
    /// Width and height of the network's input, which the grid covers.
    pub input: (usize, usize),
}

impl MaskHead {
    /// The head that gives an output of `dims` (the first counting rows) for an input of size `input`, if its grid covers
    /// that: `[1, classes, height, width]`, `[1, height, width, classes]` or `[1, height, width]`.
    pub fn of(input: (usize, usize), dims: &[usize]) -> Option<Self> {
        let head = |classes, height, width, layout| {
            let covers = width > 0 && height > 0 && width * input.1 == height * input.0;
            let head = Self { grid: (width, height), classes, layout, input };
            (covers && (1..=MAX_MASK_CLASSES).contains(&classes)).then_some(head)
        };
        match *dims {
            [1, a, b, c] => head(a, b, c, Layout::Planar).or_else(|| head(c, a, b, Layout::Interleaved)),
            [1, height, width] => head(1, height, width, Layout::Planar),
            _ => None,
        }
    }

    /// Values of one row of its output.
    pub fn values(&self) -> usize {
        self.grid.0 * self.grid.1 * self.classes
    }

    /// What the network says of each cell. `activation` makes likelihoods of the scores of an only class; of several the
    /// best is the best with any.
    ///
    /// # Panics
    /// When there are not as many `scores` as the head has.
    pub fn read(&self, scores: &[f32], activation: Activation) -> Grid {
        assert_eq!(scores.len(), self.values(), "an output has as many numbers as its dimensions say");
        let cells = match (self.classes, activation) {
            (1, Activation::None) => Cells::Likely(scores.to_vec()),
            (1, _) => Cells::Likely(Activation::Sigmoid.apply(scores)),
            _ => Cells::Best(self.best(scores)),
        };
        Grid { head: *self, cells }
    }

    /// The best class of each cell; of equal ones the first, of those without a score none.
    fn best(&self, scores: &[f32]) -> Vec<u8> {
        let cells = self.grid.0 * self.grid.1;
        let mut best = vec![NONE; cells];
        match self.layout {
            Layout::Planar => {
                // Class after class, as they lie in memory.
                let mut highest = vec![f32::NEG_INFINITY; cells];
                for (class, plane) in scores.chunks_exact(cells).enumerate() {
                    for ((score, highest), best) in plane.iter().zip(&mut highest).zip(&mut best) {
                        if *score > *highest {
                            (*highest, *best) = (*score, class as u8);
                        }
                    }
                }
            }
            Layout::Interleaved => {
                for (scores, best) in scores.chunks_exact(self.classes).zip(&mut best) {
                    let mut highest = f32::NEG_INFINITY;
                    for (class, score) in scores.iter().enumerate() {
                        if *score > highest {
                            (highest, *best) = (*score, class as u8);
                        }
                    }
                }
            }
        }
        best
    }
}

/// What a network said of each cell of its grid.
#[derive(Debug, Clone)]
pub struct Grid {
    head: MaskHead,
    cells: Cells,
}

#[derive(Debug, Clone)]
enum Cells {
    Likely(Vec<f32>),
    Best(Vec<u8>),
}

impl Grid {
    /// Brings the grid to the size of the picture, which lies in the input as `geometry` says. Likelihoods are sampled as
    /// OpenCV's `INTER_LINEAR` and count from `threshold` on; of several classes each pixel takes that of its nearest
    /// cell.
    pub fn spread(&self, geometry: &Geometry, threshold: f32) -> ClassMap {
        let (width, height) = (geometry.source.0 as usize, geometry.source.1 as usize);
        let columns = axis(width, geometry.scale.0, geometry.offset.0, self.head.input.0, self.head.grid.0);
        let rows = axis(height, geometry.scale.1, geometry.offset.1, self.head.input.1, self.head.grid.1);
        let mut classes = Vec::with_capacity(width * height);
        for row in &rows {
            match &self.cells {
                Cells::Likely(likely) => {
                    let line = |row: usize| &likely[row * self.head.grid.0..][..self.head.grid.0];
                    let (upper, lower) = (line(row.low), line(row.high));
                    classes.extend(columns.iter().map(|column| {
                        let mix =
                            |line: &[f32]| line[column.low] + (line[column.high] - line[column.low]) * column.part;
                        let (upper, lower) = (mix(upper), mix(lower));
                        if upper + (lower - upper) * row.part >= threshold { 0 } else { NONE }
                    }));
                }
                Cells::Best(best) => {
                    let line = &best[row.nearest() * self.head.grid.0..][..self.head.grid.0];
                    classes.extend(columns.iter().map(|column| line[column.nearest()]));
                }
            }
        }
        ClassMap { width, height, classes }
    }
}

/// Between which cells a pixel lies.
struct Between {
    low: usize,
    high: usize,
    /// How far on the way from one to the other.
    part: f32,
}

impl Between {
    fn nearest(&self) -> usize {
        if self.part < 0.5 { self.low } else { self.high }
    }
}

/// The place on a grid of `cells` cells of each of `pixels` pixels that lie scaled and moved in an input `input` long.
fn axis(pixels: usize, scale: f32, offset: usize, input: usize, cells: usize) -> Vec<Between> {
    let place = |pixel: usize| {
        let within = (pixel as f32 + 0.5) * scale + offset as f32;
        let at = (within * cells as f32 / input as f32 - 0.5).clamp(0.0, (cells - 1) as f32);
        let low = at as usize;
        Between { low, high: (low + 1).min(cells - 1), part: at - low as f32 }
    };
    (0..pixels).map(place).collect()
}

/// The class of each pixel of a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassMap {
    width: usize,
    height: usize,
    classes: Vec<u8>,
}

/// How a mask is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MaskForm {
    /// A PNG of one channel: 255 within, 0 outside.
    #[default]
    Png,
    /// COCO's run lengths: column after column, the first run outside. (Lin et al., "Microsoft COCO", 2014.)
    Rle,
}

/// A mask, written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mask {
    /// The bytes of a PNG.
    Png(Vec<u8>),
    /// Run lengths.
    Rle(Vec<u32>),
}

impl ClassMap {
    /// Its pixels.
    pub fn pixels(&self) -> usize {
        self.classes.len()
    }

    /// How many pixels each class has, by number.
    pub fn areas(&self) -> Vec<usize> {
        let mut areas = vec![0; MAX_MASK_CLASSES];
        self.classes.iter().filter(|class| **class != NONE).for_each(|class| areas[usize::from(*class)] += 1);
        areas
    }

    /// The pixels of `class`.
    pub fn mask(&self, class: usize, form: MaskForm) -> Mask {
        let within = |at: &u8| usize::from(*at) == class;
        match form {
            MaskForm::Png => Mask::Png(self.png(within)),
            MaskForm::Rle => Mask::Rle(self.runs(within)),
        }
    }

    fn png(&self, within: impl Fn(&u8) -> bool) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = Encoder::new(&mut file, self.width as u32, self.height as u32);
        encoder.set_color(ColorType::Grayscale);
        encoder.set_depth(BitDepth::Eight);
        encoder.set_compression(Compression::Fast);
        let pixels: Vec<u8> = self.classes.iter().map(|class| if within(class) { 255 } else { 0 }).collect();
        let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&pixels));
        debug_assert!(written.is_ok(), "memory takes what is written to it");
        file
    }

    fn runs(&self, within: impl Fn(&u8) -> bool) -> Vec<u32> {
        let (mut runs, mut inside, mut length) = (Vec::new(), false, 0);
        for x in 0..self.width {
            for y in 0..self.height {
                if within(&self.classes[y * self.width + x]) != inside {
                    runs.push(length);
                    (inside, length) = (!inside, 0);
                }
                length += 1;
            }
        }
        runs.push(length);
        runs
    }

    /// The class of the pixel at `at`, an index row after row; none if it belongs to none.
    pub(crate) fn class(&self, at: usize) -> Option<usize> {
        self.classes.get(at).filter(|class| **class != NONE).map(|class| usize::from(*class))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fit;

    fn head(classes: usize, layout: Layout) -> MaskHead {
        MaskHead { grid: (2, 2), classes, layout, input: (8, 8) }
    }

    #[test]
    fn heads_are_told_by_their_grid() {
        let of = |dims: &[usize]| MaskHead::of((256, 128), dims).map(|head| (head.grid, head.classes, head.layout));
        assert_eq!(of(&[1, 1, 128, 256]), Some(((256, 128), 1, Layout::Planar)));
        assert_eq!(of(&[1, 128, 256, 1]), Some(((256, 128), 1, Layout::Interleaved)));
        assert_eq!(of(&[1, 21, 16, 32]), Some(((32, 16), 21, Layout::Planar)));
        assert_eq!(of(&[1, 64, 128]), Some(((128, 64), 1, Layout::Planar)));
        assert_eq!(of(&[1, 1000]), None);
        assert_eq!(of(&[1, 21, 16, 33]), None);
    }

    #[test]
    fn likelihoods_are_sampled_between_cells() {
        let grid = head(1, Layout::Planar).read(&[0.0, 1.0, 0.0, 1.0], Activation::None);
        let geometry = Geometry::new((4, 4), (8, 8), Fit::Stretch);
        let map = grid.spread(&geometry, 0.5);
        // Columns 0 and 1 lie at -0.25 and 0.25 of the way, 2 and 3 at 0.75 and 1.25.
        assert_eq!(map.classes[..4], [NONE, NONE, 0, 0]);
        assert_eq!(map.areas()[0], 8);
        assert_eq!(map.mask(0, MaskForm::Rle), Mask::Rle(vec![8, 8]));
    }

    #[test]
    fn both_layouts_say_the_same_and_padding_says_nothing() {
        let read = |layout, scores: [f32; 12]| head(3, layout).read(&scores, Activation::Softmax);
        let planar = read(Layout::Planar, [9.0, 0.0, 0.0, 0.0, 1.0, 1.0, 9.0, 0.0, 0.0, 2.0, 1.0, 1.0]);
        let interleaved = read(Layout::Interleaved, [9.0, 1.0, 0.0, 0.0, 1.0, 2.0, 0.0, 9.0, 1.0, 0.0, 0.0, 1.0]);
        // A wide picture lies in the middle of the input: its rows meet both rows of the grid.
        let geometry = Geometry::new((4, 2), (8, 8), Fit::Letterbox);
        let maps = [planar, interleaved].map(|grid| grid.spread(&geometry, 0.5));
        assert_eq!(maps[0], maps[1]);
        assert_eq!(maps[0].classes, [0, 0, 2, 2, 1, 1, 2, 2]);
        assert_eq!(maps[0].mask(1, MaskForm::Rle), Mask::Rle(vec![1, 1, 1, 1, 4]));
    }

    #[test]
    fn pixel_without_a_score_belongs_to_no_class() {
        let geometry = Geometry::new((2, 2), (8, 8), Fit::Stretch);
        let classes =
            |head: MaskHead, scores: &[f32], activation| head.read(scores, activation).spread(&geometry, 0.5).classes;
        let nan = f32::NAN;
        let planar = [nan, 1.0, nan, 2.0, nan, 2.0, 1.0, nan];
        assert_eq!(classes(head(2, Layout::Planar), &planar, Activation::None), [NONE, 1, 1, 0]);
        let interleaved = [nan, nan, 1.0, 2.0, nan, 1.0, 2.0, nan];
        assert_eq!(classes(head(2, Layout::Interleaved), &interleaved, Activation::None), [NONE, 1, 1, 0]);
        let one = |scores: &[f32], activation| classes(head(1, Layout::Planar), scores, activation);
        assert_eq!(one(&[nan, 0.3, 0.7, 1.0], Activation::None), [NONE, NONE, 0, 0]);
        assert_eq!(one(&[nan, 0.3, -0.7, 9.0], Activation::Sigmoid), [NONE, 0, NONE, 0], "logits");
    }

    #[test]
    fn a_mask_is_a_picture_too() {
        let map = ClassMap { width: 3, height: 1, classes: vec![4, NONE, 4] };
        let Mask::Png(file) = map.mask(4, MaskForm::Png) else { panic!("a PNG was asked for") };
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let mut pixels = [0; 3];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels, [255, 0, 255]);
    }
}
