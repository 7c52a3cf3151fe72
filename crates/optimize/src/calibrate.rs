//! Which numbers the values of a graph take on the user's pictures, and on which range of them bytes are spent best.

use std::collections::HashMap;

use caudal_engine::{Backend, Instance, LoadOptions, repository::Workshop};
use caudal_graph::{Model, Range};
use caudal_tasks::PictureModel;
use caudal_types::DType;
use caudal_vision::Canvas;

use crate::{OptimizeError, bench::Input};

/// Values looked at in one run: they are all in memory at once.
const TOGETHER: usize = 32;

/// Numbers are counted by their upper 16 bits: sign, exponent and 7 bits of the mantissa. So no range need be known before.
const BINS: usize = 1 << 16;

/// How a range is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// From the least to the most.
    Extremes,
    /// So that squares of what rounding and cutting off do sum up to the least.
    LeastSquares,
}

/// How often a value was which number.
#[derive(Clone)]
pub(crate) struct Seen {
    min: f32,
    max: f32,
    counts: Vec<u32>,
}

impl Seen {
    fn new() -> Self {
        Self { min: f32::INFINITY, max: f32::NEG_INFINITY, counts: vec![0; BINS] }
    }

    fn add(&mut self, numbers: impl Iterator<Item = f32>) {
        for number in numbers.filter(|number| number.is_finite()) {
            self.min = self.min.min(number);
            self.max = self.max.max(number);
            self.counts[(number.to_bits() >> 16) as usize] += 1;
        }
    }

    pub(crate) fn range(&self, rule: Rule) -> Range {
        if self.min > self.max {
            return Range { min: 0.0, max: 0.0 };
        }
        let whole = Range { min: self.min, max: self.max };
        if rule == Rule::Extremes {
            return whole;
        }
        let bins: Vec<(f32, f64)> = self
            .counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(bin, count)| (middle(bin), f64::from(*count)))
            .collect();
        let shrunk = (0..60).map(|step| {
            let (below, above) = (1.0 - (step % 3) as f32 * 0.25, 1.0 - (step / 3) as f32 * 0.04);
            Range { min: whole.min * below, max: whole.max * above }
        });
        shrunk.min_by(|a, b| error(&bins, *a).total_cmp(&error(&bins, *b))).unwrap_or(whole)
    }
}

/// The number in the middle of a bin.
fn middle(bin: usize) -> f32 {
    f32::from_bits((bin as u32) << 16 | 0x8000)
}

/// What bytes over `range` do to the numbers in `bins`, in squares.
fn error(bins: &[(f32, f64)], range: Range) -> f64 {
    let (scale, zero) = range.grid();
    let zero = f32::from(zero);
    let each = bins.iter().map(|(number, count)| {
        let byte = (number / scale + zero).round_ties_even();
        // Within a bin numbers lie anywhere: rounding costs a twelfth of a step, as long as nothing is cut off.
        let lost = if (0.0..=255.0).contains(&byte) {
            f64::from(scale).powi(2) / 12.0
        } else {
            f64::from(number - (byte.clamp(0.0, 255.0) - zero) * scale).powi(2)
        };
        count * lost
    });
    each.sum()
}

/// What the values `names` of `model` are while it looks at `pictures` as `seer` does; `tell` hears how many of the runs
/// are done.
pub(crate) fn observe(
    model: &Model,
    names: &[String],
    (seer, pictures): (&PictureModel, &[Canvas]),
    (backend, threads, workshop): (&dyn Backend, usize, &Workshop),
    tell: &mut dyn FnMut(usize, usize),
) -> Result<HashMap<String, Seen>, OptimizeError> {
    let unwritable = |error| OptimizeError::Io(workshop.file("calibrate"), error);
    let changed = |reason| OptimizeError::Graph { model: "being calibrated".to_owned(), reason };
    let mut all = HashMap::new();
    let total = names.len().div_ceil(TOGETHER) * pictures.len();
    for (round, names) in names.chunks(TOGETHER).enumerate() {
        let revealed = model.reveal(names).to_bytes().map_err(changed)?;
        let version = workshop.write("calibrate", &revealed).map_err(unwritable)?;
        let opened = backend.load(&version.file, &LoadOptions::cpu(threads))?;
        let places: Vec<Option<usize>> =
            names.iter().map(|name| opened.spec().outputs.iter().position(|output| output.name == *name)).collect();
        let mut seen = vec![Seen::new(); names.len()];
        let mut instance = opened.instance(threads)?;
        for (done, canvas) in pictures.iter().enumerate() {
            count(&mut *instance, &Input::of(canvas, seer), &places, &mut seen)?;
            tell(round * pictures.len() + done + 1, total);
        }
        all.extend(names.iter().cloned().zip(seen));
    }
    Ok(all)
}

fn count(
    instance: &mut dyn Instance,
    input: &Input,
    places: &[Option<usize>],
    seen: &mut [Seen],
) -> Result<(), OptimizeError> {
    let mut look = |outputs: &[caudal_types::TensorView<'_>]| {
        for (place, seen) in places.iter().zip(seen.iter_mut()) {
            let view = place.and_then(|place| outputs.get(place)).filter(|view| view.dtype == DType::F32);
            let numbers = view.map_or(&[][..], |view| view.bytes.as_chunks::<4>().0);
            seen.add(numbers.iter().map(|bytes| f32::from_ne_bytes(*bytes)));
        }
    };
    Ok(instance.run(&[input.view()], &mut look)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(numbers: &[f32]) -> Seen {
        let mut seen = Seen::new();
        seen.add(numbers.iter().copied());
        seen
    }

    #[test]
    fn one_odd_number_among_a_million_is_cut_off() {
        let even: Vec<f32> = (0..1_000_000).map(|i| (i % 1000) as f32 / 1000.0 - 0.5).collect();
        let range = seen(&even).range(Rule::LeastSquares);
        assert!(range.min <= -0.45 && range.max >= 0.45, "{range:?}");
        let odd = seen(&[&even[..], &[2.0]].concat());
        assert_eq!(odd.range(Rule::Extremes), Range { min: -0.5, max: 2.0 });
        assert!(odd.range(Rule::LeastSquares).max < 1.0, "{:?}", odd.range(Rule::LeastSquares));
    }

    #[test]
    fn what_was_never_seen_has_no_range() {
        assert_eq!(seen(&[]).range(Rule::LeastSquares), Range { min: 0.0, max: 0.0 });
        assert_eq!(seen(&[f32::NAN, f32::INFINITY]).range(Rule::Extremes), Range { min: 0.0, max: 0.0 });
    }
}
