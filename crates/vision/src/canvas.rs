//! A picture at the model's size: 8 bits a value, laid out as the model wants it.
//!
//! It is what waits in the queue: a few hundred kilobytes, however large the picture was. When its batch is
//! formed it is written, normalised, straight into its row.

use multiversion::multiversion;

use crate::{
    Fit, Geometry, Pixels,
    resize::{PlanarRow, resize},
};

/// Where the channels of a picture stand in a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `[3, height, width]`: one plane after the other.
    Planar,
    /// `[height, width, 3]`: pixel after pixel.
    Interleaved,
}

/// What a value of a picture is in a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// A float, normalised.
    F32,
    /// The same in 16 bits.
    F16,
    /// A byte, as it is: the network normalises by itself.
    U8,
}

/// How a large JPEG is decoded for a model that takes a small picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Decoding {
    /// Every pixel, as the trainers of models do.
    #[default]
    Full,
    /// At a half, a quarter or an eighth of its sides while that is large enough: quicker, and boxes drift.
    Reduced,
}

/// What kind of picture a model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputFormat {
    /// Its width.
    pub width: usize,
    /// Its height.
    pub height: usize,
    /// What its values are.
    pub element: Element,
    /// Where its channels stand.
    pub layout: Layout,
    /// Blue first instead of red.
    pub bgr: bool,
    /// How a picture is brought to this size.
    pub fit: Fit,
    /// Grey value where no picture is.
    pub pad: u8,
    /// How a large JPEG is decoded.
    pub decoding: Decoding,
}

impl InputFormat {
    /// Values of one picture.
    pub fn values(&self) -> usize {
        self.width * self.height * 3
    }
}

/// `value * scale + bias` for each channel, in the order in which the model takes them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalisation {
    /// Factors.
    pub scale: [f32; 3],
    /// Summands.
    pub bias: [f32; 3],
}

impl Normalisation {
    /// `(value * scale - mean) / std`.
    pub fn new(scale: f32, mean: [f32; 3], std: [f32; 3]) -> Self {
        let each = |f: fn(f32, f32, f32) -> f32| std::array::from_fn(|c| f(scale, mean[c], std[c]));
        Self { scale: each(|scale, _, std| scale / std), bias: each(|_, mean, std| -mean / std) }
    }
}

/// A picture at the model's size.
#[derive(Debug, Clone)]
pub struct Canvas {
    format: InputFormat,
    values: Vec<u8>,
    geometry: Geometry,
}

impl Canvas {
    /// Brings `pixels`, turned upright, to the size and layout of `format`.
    #[caudal_observe::profile]
    pub fn letterbox(pixels: Pixels<'_>, format: InputFormat) -> Self {
        let stored = (pixels.width, pixels.height);
        let upright = pixels.orientation.upright((pixels.full.0 as u32, pixels.full.1 as u32));
        let geometry = Geometry::new(upright, (format.width, format.height), format.fit);
        let mut canvas = Self { format, values: vec![format.pad; format.values()], geometry };
        let place = Placement::new(&pixels, &geometry, format.width);
        resize(pixels.rgb, stored, place.size, |y, row| canvas.put(row, place.row(y), place.step_x));
        canvas
    }

    /// Where the picture lies in it.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// What kind of picture it is.
    pub fn format(&self) -> &InputFormat {
        &self.format
    }

    /// Its values, as laid out by its format.
    pub fn values(&self) -> &[u8] {
        &self.values
    }

    /// Puts a row of pixels where it belongs: its first at pixel `at`, each next `step` further.
    fn put(&mut self, row: PlanarRow<'_>, at: usize, step: isize) {
        let plane = self.format.width * self.format.height;
        let row = if self.format.bgr { [row[2], row[1], row[0]] } else { row };
        for (channel, values) in row.into_iter().enumerate() {
            let (first, step) = match self.format.layout {
                Layout::Planar if step == 1 => {
                    self.values[channel * plane + at..][..values.len()].copy_from_slice(values);
                    continue;
                }
                Layout::Planar => (channel * plane + at, step),
                Layout::Interleaved => (at * 3 + channel, step * 3),
            };
            let mut position = first as isize;
            for value in values {
                self.values[position as usize] = *value;
                position += step;
            }
        }
    }

    /// Writes the picture, normalised, into `row`.
    ///
    /// # Panics
    /// When `row` has not as many values as the picture.
    #[caudal_observe::profile("normalise")]
    pub fn write(&self, normalisation: &Normalisation, row: &mut [f32]) {
        assert_eq!(row.len(), self.values.len(), "a row holds one picture");
        match self.format.layout {
            Layout::Planar => {
                let plane = self.format.width * self.format.height;
                let planes = row.chunks_exact_mut(plane).zip(self.values.chunks_exact(plane));
                for (channel, (row, values)) in planes.enumerate() {
                    let (scale, bias) = (normalisation.scale[channel], normalisation.bias[channel]);
                    normalise_plane(row, values, scale, bias);
                }
            }
            Layout::Interleaved => {
                for (row, values) in row.chunks_exact_mut(3).zip(self.values.chunks_exact(3)) {
                    for channel in 0..3 {
                        row[channel] =
                            f32::from(values[channel]) * normalisation.scale[channel] + normalisation.bias[channel];
                    }
                }
            }
        }
    }
}

#[multiversion(targets("x86_64+avx2+bmi1+bmi2+fma+lzcnt", "aarch64+neon"))]
fn normalise_plane(row: &mut [f32], values: &[u8], scale: f32, bias: f32) {
    for (target, value) in row.iter_mut().zip(values) {
        *target = f32::from(*value) * scale + bias;
    }
}

/// Where stored pixels, shrunk to `size`, land on the canvas: turning a picture upright costs nothing but the
/// direction in which its pixels are put.
struct Placement {
    /// Size of the content, as stored.
    size: (usize, usize),
    origin: isize,
    step_x: isize,
    step_y: isize,
}

impl Placement {
    fn new(pixels: &Pixels<'_>, geometry: &Geometry, canvas_width: usize) -> Self {
        let turn = pixels.orientation;
        let (width, height) = geometry.content;
        let (line, mut origin) =
            (canvas_width as isize, (geometry.offset.1 * canvas_width + geometry.offset.0) as isize);
        let (mut right, mut down) = (1, line);
        if turn.flip_x {
            origin += width as isize - 1;
            right = -1;
        }
        if turn.flip_y {
            origin += (height as isize - 1) * line;
            down = -line;
        }
        match turn.transpose {
            true => Self { size: (height, width), origin, step_x: down, step_y: right },
            false => Self { size: (width, height), origin, step_x: right, step_y: down },
        }
    }

    fn row(&self, y: usize) -> usize {
        (self.origin + y as isize * self.step_y) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Orientation;

    const FORMAT: InputFormat = InputFormat {
        width: 4,
        height: 4,
        element: Element::F32,
        layout: Layout::Interleaved,
        bgr: false,
        fit: Fit::Letterbox,
        pad: 114,
        decoding: Decoding::Full,
    };

    /// A picture of 4x2 pixels whose red is 10*y + x.
    fn picture() -> Vec<u8> {
        (0..8).flat_map(|i| [i / 4 * 10 + i % 4, 0, 200]).collect()
    }

    fn canvas(orientation: Orientation, format: InputFormat) -> Canvas {
        let rgb = picture();
        Canvas::letterbox(Pixels { full: (4, 2), width: 4, height: 2, rgb: &rgb, orientation }, format)
    }

    fn reds(orientation: Orientation) -> Vec<Vec<u8>> {
        let canvas = canvas(orientation, FORMAT);
        let red: Vec<u8> = canvas.values().chunks(3).map(|pixel| pixel[0]).collect();
        red.chunks(4).map(<[u8]>::to_vec).collect()
    }

    fn turned(transpose: bool, flip_x: bool, flip_y: bool) -> Orientation {
        Orientation { transpose, flip_x, flip_y }
    }

    #[test]
    fn content_is_centred_and_the_rest_padded() {
        const P: [u8; 4] = [114; 4];
        assert_eq!(reds(Orientation::UPRIGHT), [P, [0, 1, 2, 3], [10, 11, 12, 13], P]);
    }

    #[test]
    fn pictures_are_turned_upright() {
        const P: [u8; 4] = [114; 4];
        assert_eq!(reds(turned(false, true, false)), [P, [3, 2, 1, 0], [13, 12, 11, 10], P]);
        assert_eq!(reds(turned(false, true, true)), [P, [13, 12, 11, 10], [3, 2, 1, 0], P]);
        let columns = |a: [u8; 4], b: [u8; 4]| (0..4).map(|y| vec![114, a[y], b[y], 114]).collect::<Vec<_>>();
        assert_eq!(reds(turned(true, false, false)), columns([0, 1, 2, 3], [10, 11, 12, 13]));
        assert_eq!(reds(turned(true, true, false)), columns([10, 11, 12, 13], [0, 1, 2, 3]));
        assert_eq!(reds(turned(true, false, true)), columns([3, 2, 1, 0], [13, 12, 11, 10]));
        assert_eq!(reds(turned(true, true, true)), columns([13, 12, 11, 10], [3, 2, 1, 0]));
    }

    #[test]
    fn both_layouts_and_orders_hold_the_same_picture() {
        for orientation in [Orientation::UPRIGHT, turned(true, true, false)] {
            for bgr in [false, true] {
                let interleaved = canvas(orientation, InputFormat { bgr, ..FORMAT });
                let planar = canvas(orientation, InputFormat { bgr, layout: Layout::Planar, ..FORMAT });
                for (i, pixel) in interleaved.values().chunks(3).enumerate() {
                    assert_eq!(pixel, [planar.values()[i], planar.values()[16 + i], planar.values()[32 + i]]);
                }
                let pixel = &interleaved.values()[5 * 3..6 * 3];
                assert_eq!(pixel[if bgr { 0 } else { 2 }], 200, "blue is everywhere: {pixel:?}");
            }
        }
    }

    #[test]
    fn rows_are_normalised_channel_by_channel() {
        let normalisation = Normalisation::new(1.0, [0.0, 1.0, 100.0], [1.0, 2.0, 10.0]);
        for layout in [Layout::Planar, Layout::Interleaved] {
            let canvas = canvas(Orientation::UPRIGHT, InputFormat { layout, ..FORMAT });
            let mut row = vec![0.0; 48];
            canvas.write(&normalisation, &mut row);
            let at = |pixel: usize, channel: usize| match layout {
                Layout::Planar => row[channel * 16 + pixel],
                Layout::Interleaved => row[pixel * 3 + channel],
            };
            assert_eq!([at(9, 0), at(9, 1), at(9, 2)], [11.0, -0.5, 10.0]);
        }
    }
}
