//! Picture maths, pure and synchronous: what lies between the bytes of a photograph and a model's input,
//! and between a model's output and boxes on that photograph.
//!
//! On the way in: [`probe`] reads the header and checks limits before a pixel is decoded; a [`Decoder`] turns
//! bytes into pixels; [`Canvas::letterbox`] brings them to the model's size; [`Canvas::write`] writes them,
//! normalised, into the batch. On the way out: a [`Head`] knows how the networks of one [`Family`] write their boxes,
//! [`suppress`] removes duplicates, [`Geometry`] carries them back onto the picture, [`draw`] shows them; [`likeliest`]
//! reads a classifier, a [`MaskHead`] a segmentation.

mod boxes;
mod canvas;
mod classify;
mod decode;
mod draw;
mod error;
mod exif;
mod families;
mod geometry;
mod header;
mod jpeg;
mod mask;
mod nms;
mod other;
mod png;
mod resize;
mod segments;
mod simd;
mod tidy;
mod webp;

pub use boxes::{BoxF, Detection};
pub use canvas::{Canvas, Decoding, Element, InputFormat, Layout, Normalisation};
pub use classify::{Activation, Likely, likeliest};
pub use decode::{Decoder, Pixels, Reduction};
pub use draw::{Label, MAX_JPEG_SIDE, draw, encode_jpeg, tint};
pub use error::ImageError;
pub use exif::Orientation;
pub use families::{
    Candidates, Family, Habits, Head, Network, Output, OutputShape, Shown, Span, Thresholds, Values, places,
};
pub use geometry::{Fit, Geometry};
pub use header::{Format, Header, Limits, probe};
pub use mask::{ClassMap, Grid, MAX_MASK_CLASSES, Mask, MaskForm, MaskHead};
pub use nms::suppress;
pub use simd::{JPEG_SIMD, instructions};
