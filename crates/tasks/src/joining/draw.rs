//! Rows of random values for trial runs, the same in each process.

use caudal_engine::{ModelSpec, TensorSpec};
use caudal_types::{DType, Shape};
use half::{bf16, f16};

/// How the rows of a trial differ from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spread {
    /// Each has a magnitude of its own: what a run takes from its largest value shows in the small ones.
    Mixed,
    /// All lie between 0 and 1.
    Even,
}

/// What a row is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drawing {
    /// The length of axes that are free and count no rows.
    pub(super) free: usize,
    /// The largest whole number: a model may look it up in a table.
    pub(super) top: u64,
}

/// Magnitudes of the rows of [`Spread::Mixed`].
const MAGNITUDES: [f64; 3] = [0.05, 1.0, 30.0];

/// Numbers that look random (xorshift).
pub(super) struct Draw(u64);

impl Draw {
    pub(super) fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From 0 to 1, 1 excluded.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// From 0 to `top`.
    pub(super) fn whole(&mut self, top: u64) -> u64 {
        (self.next() >> 33) % (top + 1)
    }

    /// The inputs of row `row`, which have `shapes`.
    pub(super) fn row(
        &mut self,
        spec: &ModelSpec,
        shapes: &[Shape],
        row: usize,
        drawing: Drawing,
        spread: Spread,
    ) -> Vec<Vec<u8>> {
        let each = spec.inputs.iter().zip(shapes);
        each.map(|(input, shape)| match input.name.to_lowercase().contains("mask") {
            true => mask(input.dtype, shape, row),
            false => self.values(input, shape.iter().product(), row, drawing, spread),
        })
        .collect()
    }

    fn values(&mut self, input: &TensorSpec, count: usize, row: usize, drawing: Drawing, spread: Spread) -> Vec<u8> {
        let magnitude = MAGNITUDES[row % MAGNITUDES.len()];
        let name = input.name.to_lowercase();
        let lengths = name.contains("len");
        let top = match (lengths, spread) {
            (true, _) => drawing.free.max(1) as u64,
            (false, Spread::Even) => drawing.top,
            (false, Spread::Mixed) => (drawing.top >> row).max(1),
        };
        let mut bytes = Vec::with_capacity(count * input.dtype.size());
        for _ in 0..count {
            let float = match spread {
                Spread::Mixed => (2.0 * self.unit() - 1.0) * magnitude,
                Spread::Even => self.unit(),
            };
            let whole = if lengths { 1 + self.whole(top - 1) } else { self.whole(top) };
            // Bytes are pictures far more often than places in a table.
            let byte = if drawing.top >= 100 { (self.whole(255) >> row) as u8 } else { whole as u8 };
            write(&mut bytes, input.dtype, float, whole, byte);
        }
        bytes
    }
}

/// Ones, with as many zeros behind them as the row's number says: so is a text masked that is shorter than another.
fn mask(dtype: DType, shape: &[usize], row: usize) -> Vec<u8> {
    let length = shape.last().copied().unwrap_or(1).max(1);
    let kept = length.saturating_sub(row).max(1);
    let mut bytes = Vec::new();
    for at in 0..shape.iter().product::<usize>() {
        let one = u8::from(at % length < kept);
        write(&mut bytes, dtype, f64::from(one), u64::from(one), one);
    }
    bytes
}

fn write(into: &mut Vec<u8>, dtype: DType, float: f64, whole: u64, byte: u8) {
    match dtype {
        DType::Bool => into.push(byte & 1),
        DType::U8 => into.push(byte),
        DType::I8 => into.push(whole.min(127) as u8),
        DType::U16 | DType::I16 => into.extend((whole as u16).to_ne_bytes()),
        DType::U32 | DType::I32 => into.extend((whole as u32).to_ne_bytes()),
        DType::U64 | DType::I64 => into.extend(whole.to_ne_bytes()),
        DType::F16 => into.extend(f16::from_f64(float).to_ne_bytes()),
        DType::BF16 => into.extend(bf16::from_f64(float).to_ne_bytes()),
        DType::F32 => into.extend((float as f32).to_ne_bytes()),
        DType::F64 => into.extend(float.to_ne_bytes()),
        // Models that take strings are not opened.
        DType::Bytes => {}
    }
}
