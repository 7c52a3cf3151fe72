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
        // Not `>`: what is not a number is no near miss.
        !same && !((one - other).abs() <= relative * one.abs() + of_largest * largest)
    })
}

/// Tries whether texts keep their vectors when they share a run and are padded to the longest of it.
pub(crate) fn try_texts(bench: &Bench<'_>, instance: &mut dyn Instance, text: &TextModel) -> Result<(), String> {
    let most = text.tokenizer.max_tokens();
    let lengths = [SENTENCE, 5, 9].map(|length| length.min(most));
    let mut failed = None;
    for top in IDS {
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
            part.fill(index, bytemuck::cast_slice_mut(values));
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
    let read = |(values, tokens): (&[f32], &usize)| text.head.read(values, *tokens, text.head.width);
    Ok(values.chunks_exact(row).zip(&lengths).map(read).collect())
}
