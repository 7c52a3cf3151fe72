//! The way in and the way out of a picture: decode, letterbox, normalise, read the output, suppress.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::hint::black_box;

use caudal_vision::{
    BoxF, Canvas, Decoder, Decoding, Detection, Element, Fit, Head, InputFormat, Layout, Limits, Network,
    Normalisation, Output, OutputShape, Pixels, Reduction, Values, encode_jpeg, probe, suppress,
};
use criterion::{Criterion, criterion_group, criterion_main};

const LIMITS: Limits = Limits { max_pixels: 64_000_000 };
const FORMAT: InputFormat = InputFormat {
    width: 640,
    height: 640,
    element: Element::F32,
    layout: Layout::Planar,
    bgr: false,
    fit: Fit::Letterbox,
    pad: 114,
    decoding: Decoding::Full,
};

/// The bus of the fixtures, tiled to `width` by `height` with a camera's noise.
fn photograph(width: usize, height: usize) -> Vec<u8> {
    let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/double_decker_bus.jpg")).unwrap();
    let header = probe(&bytes, &LIMITS).unwrap();
    let mut decoder = Decoder::default();
    let bus = decoder.decode(&bytes, &header, Reduction::FULL).unwrap();
    let mut noise = 1u32;
    let mut rgb = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let from = ((y * bus.height / height) * bus.width + x * bus.width / width) * 3;
            for value in &bus.rgb[from..from + 3] {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                rgb.push(value.saturating_add((noise >> 29) as u8));
            }
        }
    }
    encode_jpeg(width, height, &rgb).unwrap()
}

fn way_in(criterion: &mut Criterion) {
    for (name, width, height) in
        [("4000x3000", 4000, 3000), ("1920x1080", 1920, 1080), ("1600x1200", 1600, 1200), ("640x480", 640, 480)]
    {
        let jpeg = photograph(width, height);
        let header = probe(&jpeg, &LIMITS).unwrap();
        let mut decoder = Decoder::default();
        let mut group = criterion.benchmark_group(name);
        group.bench_function("probe", |bencher| bencher.iter(|| probe(black_box(&jpeg), &LIMITS)));
        let full = Reduction::FULL;
        group.bench_function("decode", |bencher| bencher.iter(|| decoder.decode(&jpeg, &header, full).unwrap().width));
        let reduction = Reduction::for_model(&header, &FORMAT);
        if reduction != full {
            group.bench_function(format!("decode 1/{}", reduction.divisor()), |bencher| {
                bencher.iter(|| decoder.decode(&jpeg, &header, reduction).unwrap().width);
            });
        }
        let rgb = decoder.decode(&jpeg, &header, full).unwrap().rgb.to_vec();
        let pixels = Pixels { full: (width, height), width, height, rgb: &rgb, orientation: header.orientation };
        group.bench_function("letterbox", |bencher| bencher.iter(|| Canvas::letterbox(black_box(pixels), FORMAT)));
        let canvas = Canvas::letterbox(pixels, FORMAT);
        let mut row = vec![0.0; FORMAT.values()];
        let normalisation = Normalisation::new(1.0 / 255.0, [0.0; 3], [1.0; 3]);
        group.bench_function("normalise", |bencher| bencher.iter(|| canvas.write(&normalisation, black_box(&mut row))));
        group.finish();
    }
}

/// An output of 8400 cells and 80 classes in which 301 cells are sure, in clusters as real ones are.
fn output() -> Vec<f32> {
    let cells = 8400;
    let mut values = vec![0.001; 84 * cells];
    for i in 0..301 {
        let cell = i * 27;
        let (cluster, within) = (i / 20, i % 20);
        let side = [40.0 * cluster as f32 + within as f32, 300.0, 50.0, 80.0];
        side.into_iter().enumerate().for_each(|(channel, value)| values[channel * cells + cell] = value);
        values[(4 + cluster % 3) * cells + cell] = 0.3 + 0.002 * i as f32;
    }
    values
}

fn way_out(criterion: &mut Criterion) {
    let (values, dims) = (output(), [1, 84, 8400]);
    let shape = OutputShape { name: "output0", dims: &dims };
    let head = Head::recognise(&Network { input: (640, 640), outputs: &[shape], classes: None }).unwrap();
    let outputs = || [Output { dims: &dims, values: Values::F32(black_box(&values)) }];
    let mut group = criterion.benchmark_group("yolov8");
    group.bench_function("candidates", |bencher| {
        bencher.iter(|| head.candidates(&outputs(), 0.25));
    });
    let (candidates, _) = head.candidates(&outputs(), 0.25);
    assert_eq!(candidates.len(), 301);
    group.bench_function("nms of 301", |bencher| bencher.iter(|| suppress(black_box(candidates.clone()), 0.45, 300)));
    group.finish();
}

/// 30,000 boxes of one class as a network gives them on noise: about `side` pixels wide and high, anywhere.
fn crowd(side: f32) -> Vec<Detection> {
    let mut noise = 1u32;
    let mut next = || {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (noise >> 8) as f32 / (1 << 24) as f32
    };
    let mut one = || Detection {
        rect: BoxF::around(1280.0 * next(), 1280.0 * next(), side * (0.5 + next()), side * (0.5 + next())),
        confidence: next(),
        class_id: 0,
    };
    (0..30_000).map(|_| one()).collect()
}

/// What a request can ask at worst: no least confidence, all boxes.
fn crowded(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("nms of 30000");
    group.sample_size(10);
    for (name, side) in [("small", 20.0), ("middling", 120.0), ("large", 900.0)] {
        let candidates = crowd(side);
        for iou in [0.45, 0.7, 0.9, 0.99, 1.0] {
            group.bench_function(format!("{name}, iou {iou}"), |bencher| {
                bencher.iter(|| suppress(black_box(candidates.clone()), iou, 30_000));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, way_in, way_out, crowded);
criterion_main!(benches);
