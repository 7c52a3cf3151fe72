//! Calibration: histograms of a graph's values on sample images, and the choice of their quantization ranges.

use std::collections::HashMap;

use caudal_engine::{Backend, Instance, LoadOptions, repository::VersionWorkspace};
use caudal_graph::{Model, ValueRange};
use caudal_tasks::PictureModel;
use caudal_types::DType;
use caudal_vision::Canvas;

use crate::{OptimizeError, bench::ModelInput};

/// Number of values observed per run, because all of them are in memory together.
const MAX_VALUES_PER_RUN: usize = 32;

/// Histogram bins: the upper 16 bits of a number, which are sign, exponent and 7 bits of the mantissa. So no range need
/// be known before.
const HISTOGRAM_BINS: usize = 1 << 16;

/// The rule by which a range is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RangeRule {
    /// From the minimum to the maximum.
    Extremes,
    /// Least sum of the squared errors of rounding and clipping.
    LeastSquares,
}

/// Histogram of one value.
#[derive(Clone)]
pub(crate) struct ValueHistogram {
    min: f32,
    max: f32,
    counts: Vec<u32>,
}

impl ValueHistogram {
    fn new() -> Self {
        Self { min: f32::INFINITY, max: f32::NEG_INFINITY, counts: vec![0; HISTOGRAM_BINS] }
    }

    fn add_values(&mut self, numbers: impl Iterator<Item = f32>) {
        for number in numbers.filter(|number| number.is_finite()) {
            self.min = self.min.min(number);
            self.max = self.max.max(number);
            self.counts[(number.to_bits() >> 16) as usize] += 1;
        }
    }

    pub(crate) fn choose_range(&self, rule: RangeRule) -> ValueRange {
        if self.min > self.max {
            return ValueRange { min: 0.0, max: 0.0 };
        }
        let whole = ValueRange { min: self.min, max: self.max };
        if rule == RangeRule::Extremes {
            return whole;
        }
        let bins: Vec<(f32, f64)> = self
            .counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(bin, count)| (bin_center(bin), f64::from(*count)))
            .collect();
        let shrunk = (0..60).map(|step| {
            let (below, above) = (1.0 - (step % 3) as f32 * 0.25, 1.0 - (step / 3) as f32 * 0.04);
            ValueRange { min: whole.min * below, max: whole.max * above }
        });
        shrunk.min_by(|a, b| quantization_error(&bins, *a).total_cmp(&quantization_error(&bins, *b))).unwrap_or(whole)
    }
}

/// The number at the centre of a bin.
fn bin_center(bin: usize) -> f32 {
    f32::from_bits((bin as u32) << 16 | 0x8000)
}

/// Squared error of quantizing the numbers in `bins` over `range`.
fn quantization_error(bins: &[(f32, f64)], range: ValueRange) -> f64 {
    let (scale, zero) = range.scale_and_zero_point();
    let zero = f32::from(zero);
    let each = bins.iter().map(|(number, count)| {
        let byte = (number / scale + zero).round_ties_even();
        // Numbers are spread evenly within a bin: rounding costs a twelfth of a squared step unless they are clipped.
        let lost = if (0.0..=255.0).contains(&byte) {
            f64::from(scale).powi(2) / 12.0
        } else {
            f64::from(number - (byte.clamp(0.0, 255.0) - zero) * scale).powi(2)
        };
        count * lost
    });
    each.sum()
}

/// Histograms of the values `names` of `model` on `pictures`; `tell` is called with the number of completed runs.
pub(crate) fn collect_histograms(
    model: &Model,
    names: &[String],
    (seer, pictures): (&PictureModel, &[Canvas]),
    (backend, threads, workshop): (&dyn Backend, usize, &VersionWorkspace),
    tell: &mut dyn FnMut(usize, usize),
) -> Result<HashMap<String, ValueHistogram>, OptimizeError> {
    let unwritable = |error| OptimizeError::Io(workshop.file("calibrate"), error);
    let changed = |reason| OptimizeError::Graph { model: "being calibrated".to_owned(), reason };
    let mut all = HashMap::new();
    let total = names.len().div_ceil(MAX_VALUES_PER_RUN) * pictures.len();
    for (round, names) in names.chunks(MAX_VALUES_PER_RUN).enumerate() {
        let revealed = model.with_extra_outputs(names).to_bytes().map_err(changed)?;
        let version = workshop.write("calibrate", &revealed).map_err(unwritable)?;
        let opened = backend.load_model(&version.file, &LoadOptions::for_cpu(threads))?;
        let places: Vec<Option<usize>> =
            names.iter().map(|name| opened.spec().outputs.iter().position(|output| output.name == *name)).collect();
        let mut seen = vec![ValueHistogram::new(); names.len()];
        let mut instance = opened.create_instance(threads)?;
        for (done, canvas) in pictures.iter().enumerate() {
            record_run(&mut *instance, &ModelInput::from_canvas(canvas, seer), &places, &mut seen)?;
            tell(round * pictures.len() + done + 1, total);
        }
        all.extend(names.iter().cloned().zip(seen));
    }
    Ok(all)
}

fn record_run(
    instance: &mut dyn Instance,
    input: &ModelInput,
    places: &[Option<usize>],
    seen: &mut [ValueHistogram],
) -> Result<(), OptimizeError> {
    let mut look = |outputs: &[caudal_types::TensorView<'_>]| {
        for (place, seen) in places.iter().zip(seen.iter_mut()) {
            let view = place.and_then(|place| outputs.get(place)).filter(|view| view.dtype == DType::F32);
            let numbers = view.map_or(&[][..], |view| view.bytes.as_chunks::<4>().0);
            seen.add_values(numbers.iter().map(|bytes| f32::from_ne_bytes(*bytes)));
        }
    };
    Ok(instance.run(&[input.tensor_view()], &mut look)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram_of(numbers: &[f32]) -> ValueHistogram {
        let mut seen = ValueHistogram::new();
        seen.add_values(numbers.iter().copied());
        seen
    }

    #[test]
    fn least_squares_range_excludes_outlier() {
        let even: Vec<f32> = (0..1_000_000).map(|i| (i % 1000) as f32 / 1000.0 - 0.5).collect();
        let range = histogram_of(&even).choose_range(RangeRule::LeastSquares);
        assert!(range.min <= -0.45 && range.max >= 0.45, "{range:?}");
        let odd = histogram_of(&[&even[..], &[2.0]].concat());
        assert_eq!(odd.choose_range(RangeRule::Extremes), ValueRange { min: -0.5, max: 2.0 });
        assert!(odd.choose_range(RangeRule::LeastSquares).max < 1.0, "{:?}", odd.choose_range(RangeRule::LeastSquares));
    }

    #[test]
    fn empty_histogram_has_zero_range() {
        assert_eq!(histogram_of(&[]).choose_range(RangeRule::LeastSquares), ValueRange { min: 0.0, max: 0.0 });
        assert_eq!(
            histogram_of(&[f32::NAN, f32::INFINITY]).choose_range(RangeRule::Extremes),
            ValueRange { min: 0.0, max: 0.0 }
        );
    }
}
