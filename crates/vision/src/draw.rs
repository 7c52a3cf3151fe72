//! Draws boxes with their labels onto a picture, and writes it as a JPEG.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, RasterizedChar, get_raster, get_raster_width};
use turbojpeg::{Compressor, Image, PixelFormat, Subsamp};

use crate::{BoxF, ImageError, Pixels, mask::ClassMap};

/// A box to draw.
#[derive(Debug, Clone)]
pub struct Label {
    /// Where, in pixels of the upright picture.
    pub rect: BoxF,
    /// What is written above it.
    pub text: String,
    /// Its class, which gives it its colour.
    pub class_id: usize,
}

/// Longest side that a JPEG can be written with here: libjpeg's limit.
pub const MAX_JPEG_SIDE: u32 = 65_500;

type Colour = [u8; 3];

/// Draws `labels` on `pixels` and returns the upright picture: width, height, and three bytes a pixel.
#[caudal_observe::profile]
pub fn draw(pixels: Pixels<'_>, labels: &[Label]) -> (usize, usize, Vec<u8>) {
    let (width, height, rgb) = upright(pixels);
    let mut picture = Picture { width, height, rgb };
    let style = Style::for_size(width.max(height));
    let places = places(labels, &style, (width, height));
    // The surest come first in answers; drawn last, they lie on top.
    labels.iter().rev().for_each(|label| picture.outline(label, &style));
    labels.iter().zip(places).rev().for_each(|(label, place)| picture.text(label, place, &style));
    (picture.width, picture.height, picture.rgb)
}

/// Lays the colour of its class over every pixel that `map` gives to one of `classes`, and returns the upright picture.
pub fn tint(pixels: Pixels<'_>, map: &ClassMap, classes: &[usize]) -> (usize, usize, Vec<u8>) {
    let (width, height, mut rgb) = upright(pixels);
    for (at, pixel) in rgb.as_chunks_mut::<3>().0.iter_mut().enumerate() {
        if let Some(class) = map.class(at).filter(|class| classes.contains(class)) {
            for (value, over) in pixel.iter_mut().zip(colour(class)) {
                *value = ((u16::from(*value) + u16::from(over)) / 2) as u8;
            }
        }
    }
    (width, height, rgb)
}

/// Writes a picture of three bytes a pixel, no side longer than [`MAX_JPEG_SIDE`], as a JPEG of good quality.
pub fn encode_jpeg(width: usize, height: usize, rgb: &[u8]) -> Result<Vec<u8>, ImageError> {
    let failed = |error: turbojpeg::Error| ImageError::Unsupported { format: "JPEG", reason: error.to_string() };
    let mut compressor = Compressor::new().map_err(failed)?;
    compressor.set_quality(90).map_err(failed)?;
    compressor.set_subsamp(Subsamp::Sub2x2).map_err(failed)?;
    let image = Image { pixels: rgb, width, pitch: width * 3, height, format: PixelFormat::RGB };
    compressor.compress_to_vec(image).map_err(failed)
}

fn upright(pixels: Pixels<'_>) -> (usize, usize, Vec<u8>) {
    let turn = pixels.orientation;
    let (width, height) = turn.upright((pixels.width as u32, pixels.height as u32));
    let (width, height) = (width as usize, height as usize);
    if turn == crate::Orientation::UPRIGHT {
        return (width, height, pixels.rgb.to_vec());
    }
    let mut rgb = Vec::with_capacity(pixels.rgb.len());
    for y in 0..height {
        for x in 0..width {
            let x = if turn.flip_x { width - 1 - x } else { x };
            let y = if turn.flip_y { height - 1 - y } else { y };
            let (x, y) = if turn.transpose { (y, x) } else { (x, y) };
            let at = (y * pixels.width + x) * 3;
            rgb.extend_from_slice(&pixels.rgb[at..at + 3]);
        }
    }
    (width, height, rgb)
}

struct Style {
    line: usize,
    text: RasterHeight,
}

impl Style {
    fn for_size(longest: usize) -> Self {
        let text = match longest {
            0..=600 => RasterHeight::Size16,
            601..=1000 => RasterHeight::Size20,
            1001..=1500 => RasterHeight::Size24,
            _ => RasterHeight::Size32,
        };
        Self { line: (longest / 300).clamp(2, 8), text }
    }
}

/// Colours far apart for classes side by side: the golden angle around the circle of hues.
fn colour(class_id: usize) -> Colour {
    let hue = (class_id as f32 * 137.508 + 210.0) % 360.0 / 60.0;
    let rising = ((1.0 - (hue % 2.0 - 1.0).abs()) * 255.0) as u8;
    match hue as u8 {
        0 => [255, rising, 0],
        1 => [rising, 255, 0],
        2 => [0, 255, rising],
        3 => [0, rising, 255],
        4 => [rising, 0, 255],
        _ => [255, 0, rising],
    }
}

/// Black or white, whichever can be read on `colour` (luma after ITU-R BT.601).
fn ink(colour: Colour) -> Colour {
    let [r, g, b] = colour.map(u32::from);
    if r * 299 + g * 587 + b * 114 > 140_000 { [0; 3] } else { [255; 3] }
}

/// Labels beyond these are no longer kept apart: with so many there is no room, and nobody could read them.
const KEPT_APART: usize = 500;
/// How many heights of a label it may stand away from its box.
const SHIFTS: usize = 8;

/// Where a label stands: left, top, width and height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
}

impl Place {
    fn covers(&self, other: &Self) -> bool {
        let overlap = |a: usize, length_a: usize, b: usize, length_b: usize| a < b + length_b && b < a + length_a;
        overlap(self.left, self.width, other.left, other.width)
            && overlap(self.top, self.height, other.top, other.height)
    }
}

/// Where each label stands in a picture of this size, so that none covers another as long as there is room: the surest
/// choose first.
fn places(labels: &[Label], style: &Style, size: (usize, usize)) -> Vec<Place> {
    let mut taken: Vec<Place> = Vec::with_capacity(labels.len());
    for label in labels {
        let wished = wishes(label, style, size);
        let apart = taken.len() < KEPT_APART;
        let free = wished.iter().find(|place| apart && !taken.iter().any(|other| place.covers(other)));
        taken.push(free.or(wished.first()).copied().unwrap_or(Place { left: 0, top: 0, width: 0, height: 0 }));
    }
    taken
}

/// Places for a label, the best first: above its box, within it, below it; at its left edge, at its right; then further
/// and further away. All within the picture, as far as it is wide enough.
fn wishes(label: &Label, style: &Style, (width, height): (usize, usize)) -> Vec<Place> {
    let (from, to) = corners(&label.rect, (width, height));
    let (long, high) = (text_width(label, style), style.text.val());
    let last_top = height.saturating_sub(high);
    let last_left = width.saturating_sub(long);
    let lefts = [from.0.min(last_left), to.0.saturating_sub(long).min(last_left)];
    let above = from.1.checked_sub(high);
    let beside = [above, Some(from.1), Some(to.1), to.1.checked_sub(high)];
    let away = (2..=SHIFTS).flat_map(|shift| [from.1.checked_sub(shift * high), Some(from.1 + (shift - 1) * high)]);
    let tops = beside.into_iter().chain(away).flatten().filter(|top| *top <= last_top);
    // In a picture lower than a label there is no such place.
    let tops: Vec<usize> = tops.chain([from.1.min(last_top)]).collect();
    let place = |left: usize, top: usize| Place { left, top, width: long, height: high };
    tops.into_iter().flat_map(|top| lefts.map(|left| place(left, top))).collect()
}

/// The corners of a box, in whole pixels within a picture of this size.
fn corners(rect: &BoxF, (width, height): (usize, usize)) -> ((usize, usize), (usize, usize)) {
    let within = |value: f32, most: usize| (value.max(0.0) as usize).min(most);
    ((within(rect.x1, width), within(rect.y1, height)), (within(rect.x2, width), within(rect.y2, height)))
}

fn text_width(label: &Label, style: &Style) -> usize {
    label.text.chars().count() * get_raster_width(FontWeight::Bold, style.text)
}

struct Picture {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Picture {
    fn outline(&mut self, label: &Label, style: &Style) {
        let (colour, line) = (colour(label.class_id), style.line);
        let ((x1, y1), (x2, y2)) = corners(&label.rect, (self.width, self.height));
        self.fill((x1, y1), (x2, y1 + line), colour);
        self.fill((x1, y2.saturating_sub(line)), (x2, y2), colour);
        self.fill((x1, y1), (x1 + line, y2), colour);
        self.fill((x2.saturating_sub(line), y1), (x2, y2), colour);
    }

    fn text(&mut self, label: &Label, place: Place, style: &Style) {
        let colour = colour(label.class_id);
        self.fill((place.left, place.top), (place.left + place.width, place.top + place.height), colour);
        self.write(&label.text, (place.left, place.top), style, ink(colour));
    }

    fn fill(&mut self, from: (usize, usize), to: (usize, usize), colour: Colour) {
        let (left, right) = (from.0.min(self.width), to.0.min(self.width));
        for y in from.1..to.1.min(self.height) {
            let row = &mut self.rgb[y * self.width * 3..(y + 1) * self.width * 3];
            if left < right {
                row[left * 3..right * 3].as_chunks_mut::<3>().0.fill(colour);
            }
        }
    }

    fn write(&mut self, text: &str, at: (usize, usize), style: &Style, ink: Colour) {
        for (i, letter) in text.chars().enumerate() {
            let raster = get_raster(letter, FontWeight::Bold, style.text)
                .or_else(|| get_raster('?', FontWeight::Bold, style.text));
            if let Some(raster) = raster {
                self.stamp(&raster, (at.0 + i * raster.width(), at.1), ink);
            }
        }
    }

    fn stamp(&mut self, letter: &RasterizedChar, at: (usize, usize), ink: Colour) {
        for (y, row) in letter.rows().enumerate().take_while(|(y, _)| at.1 + y < self.height) {
            for (x, cover) in row.iter().enumerate().take_while(|(x, _)| at.0 + x < self.width) {
                let from = ((at.1 + y) * self.width + at.0 + x) * 3;
                for (value, ink) in self.rgb[from..from + 3].iter_mut().zip(ink) {
                    let (old, ink, cover) = (u32::from(*value), u32::from(ink), u32::from(*cover));
                    *value = ((old * (255 - cover) + ink * cover) / 255) as u8;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Orientation;

    fn blank(orientation: Orientation, labels: &[Label]) -> (usize, usize, Vec<u8>) {
        let rgb = vec![0; 60 * 40 * 3];
        draw(Pixels { full: (60, 40), width: 60, height: 40, rgb: &rgb, orientation }, labels)
    }

    fn label(x1: f32, y1: f32, x2: f32, y2: f32) -> Label {
        Label { rect: BoxF { x1, y1, x2, y2 }, text: "cat 0.9".to_owned(), class_id: 3 }
    }

    #[test]
    fn a_box_is_drawn_where_it_is() {
        let (width, _, rgb) = blank(Orientation::UPRIGHT, &[label(10.0, 20.0, 50.0, 35.0)]);
        let at = |x: usize, y: usize| &rgb[(y * width + x) * 3..][..3];
        assert_eq!(at(10, 30), colour(3));
        assert_eq!(at(30, 34), colour(3));
        assert_eq!(at(30, 28), [0; 3]);
    }

    /// Labels of boxes at these corners, the surest first, in a picture of 400 by 300 pixels.
    fn placed(rects: &[(f32, f32, f32, f32)]) -> Vec<Place> {
        let labels: Vec<_> = rects.iter().map(|(x1, y1, x2, y2)| label(*x1, *y1, *x2, *y2)).collect();
        places(&labels, &Style::for_size(400), (400, 300))
    }

    #[track_caller]
    fn check_apart(rects: &[(f32, f32, f32, f32)]) {
        let places = placed(rects);
        for (i, place) in places.iter().enumerate() {
            assert!(place.left + place.width <= 400 && place.top + place.height <= 300, "{place:?} lies within");
            assert!(places[..i].iter().all(|other| !place.covers(other)), "{places:?}");
        }
    }

    #[test]
    fn labels_of_boxes_at_one_place_do_not_cover_each_other() {
        let high = Style::for_size(400).text.val();
        let first = placed(&[(100.0, 100.0, 200.0, 200.0)])[0];
        assert_eq!((first.left, first.top), (100, 100 - high), "above its box where nothing is in the way");
        assert_eq!(placed(&[(100.0, 3.0, 200.0, 200.0)])[0].top, 3, "within it where there is no room above");
        check_apart(&[(100.0, 100.0, 200.0, 200.0), (102.0, 103.0, 210.0, 190.0)]);
        check_apart(&[(100.0, 100.0, 200.0, 200.0); 12]);
        check_apart(&[(0.0, 0.0, 400.0, 300.0); 12]);
        check_apart(&[(390.0, 290.0, 400.0, 300.0), (395.0, 295.0, 399.0, 299.0), (380.0, 280.0, 399.0, 299.0)]);
        let crowd: Vec<_> =
            (0..20).map(|i| (20.0 * i as f32, 150.0 + i as f32, 20.0 * i as f32 + 15.0, 180.0)).collect();
        check_apart(&crowd);
    }

    #[test]
    fn label_of_the_surest_box_is_whole_where_there_is_no_room_for_all() {
        let many = vec![(100.0, 100.0, 200.0, 200.0); 2000];
        assert_eq!(placed(&many)[0], placed(&many[..1])[0]);
        let tiny = [label(0.0, 0.0, 8.0, 8.0), label(0.0, 0.0, 8.0, 8.0)];
        assert_eq!(places(&tiny, &Style::for_size(8), (8, 8)).len(), 2);
    }

    #[test]
    fn boxes_and_letters_off_the_edge_are_cut() {
        for rect in [
            (-50.0, -50.0, 500.0, 500.0),
            (59.0, 39.0, 60.0, 40.0),
            (f32::NAN, 0.0, 1.0, f32::INFINITY),
            (f32::INFINITY, 0.0, 1.0, 9.0),
        ] {
            blank(Orientation::UPRIGHT, &[label(rect.0, rect.1, rect.2, rect.3)]);
        }
    }

    #[test]
    fn what_was_stored_on_its_side_is_drawn_upright_and_can_be_written() {
        let (width, height, rgb) = blank(Orientation { transpose: true, flip_x: true, flip_y: false }, &[]);
        assert_eq!((width, height), (40, 60));
        let jpeg = encode_jpeg(width, height, &rgb).unwrap();
        assert_eq!(jpeg[..2], [0xff, 0xd8]);
    }

    #[test]
    fn the_longest_side_that_can_be_written_is_known() {
        let encode = |width: u32| encode_jpeg(width as usize, 1, &vec![0; width as usize * 3]);
        assert!(encode(MAX_JPEG_SIDE).is_ok());
        assert!(encode(MAX_JPEG_SIDE + 1).is_err());
    }
}
