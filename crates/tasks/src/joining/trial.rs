//! Runs random rows alone and together: rows are joined only where each keeps its answer.

use std::time::Duration;

use caudal_batcher::Job as _;
use caudal_engine::{Dim, Instance, ModelSpec, RunError, TensorSpec};
use caudal_types::{DType, Shape, TensorView};

use super::draw::{Draw, Drawing, Spread};
use crate::{TextModel, embed::Part, limit::run_within, load::SENTENCE, numbers::number};

/// Rows of a trial.
const ROWS: usize = 3;

/// The order in which they run together. It neither rises nor falls, so a model that sorts its rows moves some of them.
const ORDER: [usize; ROWS] = [1, 2, 0];

/// A trial that would take longer than this makes do with its more telling half.
const SHORT: Duration = Duration::from_millis(200);

/// Largest whole numbers that are tried: a token, a class, a flag.
const TOPS: [u64; 3] = [100, 8, 1];

/// Lengths that are tried for axes that are free.
const LENGTHS: [usize; 3] = [5, 16, 1];

/// Token ids that are tried, up to.
const IDS: [u64; 3] = [1000, 30, 4];

/// What runs of a trial keep to.
pub(crate) struct Bench<'a> {
    /// What the model takes and gives.
    pub(crate) spec: &'a ModelSpec,
    /// Longest that a run may take.
    pub(crate) limit: Duration,
}

/// One output of a run.
struct Output {
    dtype: DType,
    shape: Shape,
    bytes: Vec<u8>,
}

/// Tries whether rows keep their answers with others beside them, and says which output changed if they do not.
/// `shapes` gives the shape of each input for one row, by the length of axes that are free; a run of one row took
/// `one_row`.
pub(crate) fn try_rows(
    bench: &Bench<'_>,
    instance: &mut dyn Instance,
    shapes: &dyn Fn(usize) -> Vec<Shape>,
    one_row: Duration,
) -> Result<(), String> {
    let brief = one_row * (2 * 2 * ROWS) as u32 > SHORT;
    let mut telling = false;
    for spread in [Spread::Mixed, Spread::Even] {
        if telling && brief {
            break;
        }
        telling |= try_spread(bench, instance, shapes, spread)?;
    }
    match telling {
        true => Ok(()),
        false => Err("its answers to random rows are all the same, so a trial shows nothing".to_owned()),
    }
}

/// Whether the rows had different answers, which they kept.
fn try_spread(
    bench: &Bench<'_>,
    instance: &mut dyn Instance,
    shapes: &dyn Fn(usize) -> Vec<Shape>,
    spread: Spread,
) -> Result<bool, String> {
    let spec = bench.spec;
    let (rows, shapes, alone) = run_alone(bench, instance, shapes, spread)?;
    let joined_shapes: Vec<Shape> = shapes.iter().map(|shape| with_rows(shape, ROWS)).collect();
    let inputs: Vec<Vec<u8>> =
        (0..spec.inputs.len()).map(|input| ORDER.iter().flat_map(|row| rows[*row][input].clone()).collect()).collect();
    let together = run(bench, instance, &joined_shapes, &inputs)
        .map_err(|error| format!("{ROWS} rows do not run together, and each ran alone: {error}"))?;
    for (index, output) in spec.outputs.iter().enumerate() {
        for (place, row) in ORDER.into_iter().enumerate() {
            compare(output, &alone[row][index], &together[index], place)?;
        }
    }
    let differs = |index: usize| alone.iter().any(|answer| answer[index].bytes != alone[0][index].bytes);
    Ok((0..spec.outputs.len()).any(differs))
}

type Alone = (Vec<Vec<Vec<u8>>>, Vec<Shape>, Vec<Vec<Output>>);

/// Draws rows that the model takes and runs each by itself.
fn run_alone(
    bench: &Bench<'_>,
    instance: &mut dyn Instance,
    shapes: &dyn Fn(usize) -> Vec<Shape>,
    spread: Spread,
) -> Result<Alone, String> {
    let spec = bench.spec;
    let mut failed = None;
    for drawing in drawings(spec) {
        let shapes = shapes(drawing.free);
        let mut draw = Draw::new();
        let rows: Vec<Vec<Vec<u8>>> = (0..ROWS).map(|row| draw.row(spec, &shapes, row, drawing, spread)).collect();
        match rows.iter().map(|row| run(bench, instance, &shapes, row)).collect() {
            Ok(alone) => return Ok((rows, shapes, alone)),
            // Others may take as long.
            Err(RunError::Interrupted) => return Err("a trial run did not come to its end in time".to_owned()),
            Err(error) => failed = Some(error),
        }
    }
    let why = failed.map_or_else(String::new, |error: RunError| format!(": {error}"));
    Err(format!("no random rows were found that it runs, so joining them could not be tried{why}"))
}

/// What rows may be made of, the most telling first.
fn drawings(spec: &ModelSpec) -> Vec<Drawing> {
    let free = spec.inputs.iter().flat_map(TensorSpec::row_dims).any(|dim| matches!(dim, Dim::Free(_)));
    let floats = [DType::F16, DType::BF16, DType::F32, DType::F64];
    let whole = spec.inputs.iter().any(|input| !floats.contains(&input.dtype));
    let lengths = if free { &LENGTHS[..] } else { &LENGTHS[..1] };
    let tops = if whole { &TOPS[..] } else { &TOPS[..1] };
    lengths.iter().flat_map(|free| tops.iter().map(|top| Drawing { free: *free, top: *top })).collect()
}

fn with_rows(shape: &[usize], rows: usize) -> Shape {
    let mut shape = shape.to_vec();
    if let Some(first) = shape.first_mut() {
        *first = rows;
    }
    shape
}

fn run(
    bench: &Bench<'_>,
    instance: &mut dyn Instance,
    shapes: &[Shape],
    inputs: &[Vec<u8>],
) -> Result<Vec<Output>, RunError> {
    let views: Vec<TensorView<'_>> = bench
        .spec
        .inputs
        .iter()
        .zip(shapes)
        .zip(inputs)
        .map(|((input, shape), bytes)| TensorView { dtype: input.dtype, shape, bytes })
        .collect();
    let mut outputs = Vec::new();
    run_within(bench.limit, instance, &views, &mut |given| {
        outputs = given
            .iter()
            .map(|view| Output { dtype: view.dtype, shape: view.shape.to_vec(), bytes: view.bytes.to_vec() })
            .collect();
    })?;
    Ok(outputs)
}

/// Whether row `place` of `together` is what the row gave alone.
fn compare(spec: &TensorSpec, alone: &Output, together: &Output, place: usize) -> Result<(), String> {
    if together.shape.first() != Some(&ROWS)
        || alone.shape.first() != Some(&1)
        || alone.shape[1..] != together.shape[1..]
    {
        let (one, all) = (&alone.shape, &together.shape);
        return Err(format!("its output {:?} is {one:?} for one row and {all:?} for {ROWS}", spec.name));
    }
    let row = together.bytes.len() / ROWS;
    let own = &together.bytes[place * row..(place + 1) * row];
    match first_difference(alone.dtype, &alone.bytes, own) {
        None => Ok(()),
        Some((one, other)) => {
            Err(format!("its output {:?} of a row depends on the rows beside it: {one} becomes {other}", spec.name))
        }
    }
}

/// By how much floats may differ, relative to themselves and to the largest of their row. Kernels add up in another
/// order when they have more rows: that shows in the last digits. What a row takes from its neighbours, the scale of a
/// dynamic quantisation included, shows in the first three.
fn tolerance(dtype: DType) -> Option<(f64, f64)> {
    match dtype {
        DType::F32 | DType::F64 => Some((2e-4, 5e-5)),
        DType::F16 => Some((4e-3, 2e-3)),
        DType::BF16 => Some((3e-2, 2e-2)),
        _ => None,
    }
}

/// The first value that is not the same in `alone` and `beside`, with what it became.
fn first_difference(dtype: DType, alone: &[u8], beside: &[u8]) -> Option<(f64, f64)> {
    let count = alone.len() / dtype.size().max(1);
    let pairs = || (0..count).map(|at| (number(dtype, alone, at), number(dtype, beside, at)));
    let (relative, of_largest) = tolerance(dtype).unwrap_or_default();
    let largest = pairs().map(|(one, _)| one.abs()).filter(|one| one.is_finite()).fold(0.0, f64::max);
    pairs().find(|(one, other)| {
        let same = one == other || (one.is_nan() && other.is_nan());
        let difference = (one - other).abs();
        // A number beside NaN or infinity is no near miss.
        !same && (!difference.is_finite() || difference > relative * one.abs() + of_largest * largest)
    })
}

/// Tries whether texts keep their vectors when they share a run and are padded to the longest of it.
pub(crate) fn try_texts(bench: &Bench<'_>, instance: &mut dyn Instance, text: &TextModel) -> Result<(), String> {
    let most = text.tokenizer.max_tokens();
    let lengths = [SENTENCE, 5, 9].map(|length| length.min(most));
    let mut failed = None;
    let known = u64::from(text.tokenizer.vocabulary_size()).saturating_sub(1).max(1);
    for top in IDS.map(|top| top.min(known)) {
        let mut draw = Draw::new();
        let texts = lengths.map(|length| (0..length).map(|_| 1 + draw.whole(top - 1) as u32).collect::<Vec<u32>>());
        let parts = texts.map(|tokens| Part::new(text, vec![(0, tokens)], text.head.width));
        match parts.iter().map(|part| vectors(bench, instance, text, &[part])).collect::<Result<Vec<_>, _>>() {
            Err(error) => failed = Some(error),
            Ok(alone) => return compare_texts(bench, instance, text, &parts, &alone),
        }
    }
    let why = failed.map_or_else(String::new, |error| format!(": {error}"));
    Err(format!("no random texts were found that it runs, so joining them could not be tried{why}"))
}

fn compare_texts(
    bench: &Bench<'_>,
    instance: &mut dyn Instance,
    text: &TextModel,
    parts: &[Part; ROWS],
    alone: &[Vec<Vec<f32>>],
) -> Result<(), String> {
    let joined = ORDER.map(|row| &parts[row]);
    let together = vectors(bench, instance, text, &joined)
        .map_err(|error| format!("{ROWS} texts do not run together, and each ran alone: {error}"))?;
    for (vector, row) in together.iter().zip(ORDER) {
        let (one, beside) = (bytemuck::cast_slice(&alone[row][0]), bytemuck::cast_slice(vector));
        if let Some((one, other)) = first_difference(DType::F32, one, beside) {
            return Err(format!("the vector of a text depends on the texts beside it: {one} becomes {other}"));
        }
    }
    if alone.iter().all(|vectors| vectors == &alone[0]) {
        return Err("its vectors of random texts are all the same, so a trial shows nothing".to_owned());
    }
    Ok(())
}

/// The vectors of `parts`, each of one text, from one run.
fn vectors(
    bench: &Bench<'_>,
    instance: &mut dyn Instance,
    text: &TextModel,
    parts: &[&Part],
) -> Result<Vec<Vec<f32>>, String> {
    let lengths: Vec<usize> = parts.iter().map(|part| part.tokens()).collect();
    let longest = lengths.iter().copied().max().unwrap_or(1);
    let shapes = text.inputs.shapes(parts.len(), longest);
    let fill = |(index, shape): (usize, &Shape)| {
        let mut values = vec![0i64; shape.iter().product()];
        let row = values.len() / parts.len();
        for (part, values) in parts.iter().zip(values.chunks_exact_mut(row)) {
            part.write_rows(index, bytemuck::cast_slice_mut(values));
        }
        bytemuck::cast_slice(&values).to_vec()
    };
    let inputs: Vec<Vec<u8>> = shapes.iter().enumerate().map(fill).collect();
    let outputs = run(bench, instance, &shapes, &inputs).map_err(|error| error.to_string())?;
    let odd = || "its output has another shape than at warm-up".to_owned();
    let output = outputs.get(text.output).filter(|output| output.dtype == DType::F32).ok_or_else(odd)?;
    let values: Vec<f32> = bytemuck::pod_collect_to_vec(&output.bytes);
    let row = values.len() / parts.len();
    let least = if text.head.pooling.is_some() { longest } else { 1 } * text.head.width;
    if output.shape.first() != Some(&parts.len()) || row < least {
        return Err(odd());
    }
    let read = |(values, tokens): (&[f32], &usize)| text.head.pool_tokens(values, *tokens, text.head.width);
    Ok(values.chunks_exact(row).zip(&lengths).map(read).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use caudal_engine::{Interrupt, OutputSink};
    use caudal_testkit::{f32_bytes, f32_values};

    use super::*;

    /// A model of one input [n, 2] that makes an output of it.
    struct Fake<F>(F);

    struct Unstoppable;

    impl Interrupt for Unstoppable {
        fn stop_run(&self) {}
        fn allow_runs(&self) {}
    }

    impl<F: FnMut(&TensorView<'_>) -> Result<(Shape, Vec<f32>), RunError> + Send> Instance for Fake<F> {
        fn run(&mut self, inputs: &[TensorView<'_>], outputs: &mut OutputSink<'_>) -> Result<(), RunError> {
            let (shape, values) = (self.0)(&inputs[0])?;
            outputs(&[TensorView { dtype: DType::F32, shape: &shape, bytes: &f32_bytes(&values) }]);
            Ok(())
        }

        fn interrupt_handle(&self) -> Arc<dyn Interrupt> {
            Arc::new(Unstoppable)
        }
    }

    fn try_fake(
        dtype: DType,
        model: impl FnMut(&TensorView<'_>) -> Result<(Shape, Vec<f32>), RunError> + Send,
    ) -> Result<(), String> {
        let tensor = |name: &str, dtype| TensorSpec {
            name: name.to_owned(),
            dtype,
            dims: vec![Dim::Free("batch".to_owned()), Dim::Fixed(2)],
        };
        let spec = ModelSpec {
            inputs: vec![tensor("x", dtype)],
            outputs: vec![tensor("y", DType::F32)],
            ..Default::default()
        };
        let bench = Bench { spec: &spec, limit: Duration::from_secs(60) };
        try_rows(&bench, &mut Fake(model), &|_| vec![vec![1, 2]], Duration::ZERO)
    }

    /// The same of one that makes floats of all its floats.
    fn try_floats(make: impl Fn(&[f32]) -> Vec<f32> + Send) -> Result<(), String> {
        try_fake(DType::F32, move |view| Ok((view.shape.to_vec(), make(&f32_values(view.bytes)))))
    }

    fn check_apart(tried: Result<(), String>, words: &str) {
        let reason = tried.unwrap_err();
        assert!(reason.contains(words), "{reason}");
    }

    #[test]
    fn rows_that_keep_their_answers_are_joined_whatever_the_last_digits_say() {
        assert_eq!(try_floats(<[f32]>::to_vec), Ok(()));
        let rounded = |values: &[f32]| values.iter().map(|value| value * (1.0 + 1e-6 * values.len() as f32)).collect();
        assert_eq!(try_floats(rounded), Ok(()));
    }

    #[test]
    fn rows_whose_answers_follow_from_others_are_not() {
        let words = "\"y\" of a row depends on the rows beside it";
        check_apart(try_floats(|values| values.iter().map(|value| value - values[0]).collect()), words);
        let largest = |values: &[f32]| values.iter().fold(0f32, |most, value| most.max(value.abs()));
        // A scale of 8 bits for all that a run is given.
        let quantise = |values: &[f32]| {
            let step = largest(values) / 127.0;
            values.iter().map(|value| (value / step).round() * step).collect()
        };
        check_apart(try_floats(quantise), words);
        // Only what is large mixes.
        let leak = |values: &[f32]| values.iter().map(|value| value + (largest(values) - 10.0).max(0.0)).collect();
        check_apart(try_floats(leak), words);
    }

    #[test]
    fn an_output_that_does_not_count_rows_is_seen() {
        let one_for_all = |view: &TensorView<'_>| Ok((vec![1, 2], f32_values(view.bytes)[..2].to_vec()));
        check_apart(try_fake(DType::F32, one_for_all), "is [1, 2] for one row and [1, 2] for 3");
        let none = |view: &TensorView<'_>| Ok((vec![view.shape[0], 2], vec![0.0; view.shape[0] * 2]));
        check_apart(try_fake(DType::F32, none), "all the same");
        let fussy = |view: &TensorView<'_>| match view.shape[0] {
            1 => Ok((vec![1, 2], f32_values(view.bytes))),
            _ => Err(RunError::Failed("one row".to_owned())),
        };
        check_apart(try_fake(DType::F32, fussy), "do not run together, and each ran alone: ");
    }

    #[test]
    fn whole_numbers_are_tried_as_small_as_the_model_needs_them() {
        let look_up = |view: &TensorView<'_>| {
            let values: Vec<i64> = bytemuck::pod_collect_to_vec(view.bytes);
            match values.iter().all(|value| (0..4).contains(value)) {
                true => Ok((view.shape.to_vec(), values.into_iter().map(|value| value as f32).collect())),
                false => Err(RunError::Failed("out of range".to_owned())),
            }
        };
        assert_eq!(try_fake(DType::I64, look_up), Ok(()));
        let never = |_: &TensorView<'_>| Err(RunError::Failed("out of range".to_owned()));
        check_apart(try_fake(DType::I64, never), "no random rows were found that it runs");
    }
}
