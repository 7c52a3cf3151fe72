//! Lets a detector remove duplicates by itself: behind its outputs come boxes as corners, non-maximum suppression within
//! each class, and what stays, surest first, in four outputs as TensorRT's EfficientNMS writes them.

use crate::{
    GraphError, Model,
    build::{Builder, Value, fixed, value},
    onnx::onnx::{ValueInfoProto, tensor_proto::DataType, tensor_shape_proto::Dimension},
};

/// How a detector writes its boxes.
#[derive(Debug, Clone, PartialEq)]
pub enum Boxes {
    /// `[rows, 4 + classes, cells]`: centre, size, scores.
    Columns,
    /// `[rows, cells, 5 + classes]`: centre, size, objectness, scores.
    Cells,
    /// The same in the terms of a grid: for each cell its column, its row and its stride in pixels.
    Grid(Vec<[f32; 3]>),
    /// `[rows, anchors, 4]` as parts of an input of `width` and `height`, `y1, x1, y2, x2`; and `[rows, anchors, classes]`,
    /// where classes do not exclude one another and the first `background` are none.
    Anchors {
        /// Width of the input.
        width: usize,
        /// Height of the input.
        height: usize,
        /// Scores before that of the first class.
        background: usize,
    },
}

/// What is to be suppressed.
#[derive(Debug, Clone, PartialEq)]
pub struct Suppression {
    /// How the boxes are written.
    pub boxes: Boxes,
    /// The places of the outputs that hold them: one, or boxes and scores.
    pub outputs: Vec<usize>,
    /// How many classes there are.
    pub classes: usize,
    /// Least confidence.
    pub conf: f32,
    /// Overlap above which the weaker of two boxes of a class goes.
    pub iou: f32,
    /// Most boxes of a picture.
    pub max_det: usize,
}

const FLOAT: DataType = DataType::FLOAT;

/// Puts suppression behind the outputs of `model`, in place of which it then has `num_dets`, `det_boxes`, `det_scores` and
/// `det_classes`. Its first dimension may be free.
pub fn suppress(model: &mut Model, how: &Suppression) -> Result<(), GraphError> {
    model.needs_opset(11, "suppression in the graph")?;
    let outputs = &model.graph().output;
    let Some(read) = how.outputs.iter().map(|place| outputs.get(*place).cloned()).collect::<Option<Vec<_>>>() else {
        return Err(GraphError::Unsuitable(format!("it has {} outputs, and not those of its family", outputs.len())));
    };
    if let Some(odd) = read.iter().find(|output| output.type_.tensor_type().elem_type() != FLOAT as i32) {
        return Err(GraphError::Unsuitable(format!("its output {:?} holds no floats", odd.name())));
    }
    let rows = read.first().and_then(|output| output.type_.tensor_type().shape.dim.first()).cloned();
    let rows = rows.unwrap_or_else(|| fixed(1));

    let mut build = Builder::new(model, "suppress");
    let (corners, scores) = candidates(&mut build, how, &read);
    // ONNX keeps what is surer than the threshold; here what is as sure counts too.
    let [most, iou, conf] = [build.int(how.max_det as i64), build.float(how.iou), build.float(how.conf.next_down())];
    let picked = build.op("NonMaxSuppression", &[&corners, &scores, &most, &iou, &conf], &[]);
    let outputs = written(&mut build, how, &corners, &scores, &picked, &rows);
    let nodes = build.nodes;
    let graph = model.graph_mut();
    graph.node.extend(nodes);
    graph.output = outputs;
    Ok(())
}

/// Corners `[rows, cells, 4]` and scores `[rows, classes, cells]`.
fn candidates(build: &mut Builder<'_>, how: &Suppression, read: &[ValueInfoProto]) -> (String, String) {
    let first = read[0].name();
    let classes = how.classes as i64;
    match &how.boxes {
        Boxes::Columns => {
            let cells = build.op("Transpose", &[first], &[("perm", Value::Ints(&[0, 2, 1]))]);
            let [centre, size] = [(0, 2), (2, 4)].map(|(from, to)| build.slice(&cells, 2, from, to));
            let scores = build.slice(first, 1, 4, 4 + classes);
            (around(build, &centre, &size), best_alone(build, &scores, &scores, how.classes))
        }
        Boxes::Cells | Boxes::Grid(_) => {
            let [mut centre, mut size, sure, scores] =
                [(0, 2), (2, 4), (4, 5), (5, 5 + classes)].map(|(from, to)| build.slice(first, 2, from, to));
            if let Boxes::Grid(places) = &how.boxes {
                let starts: Vec<f32> = places.iter().flat_map(|[column, row, _]| [*column, *row]).collect();
                let strides: Vec<f32> = places.iter().map(|[_, _, stride]| *stride).collect();
                let starts = build.floats(&[1, places.len(), 2], &starts);
                let strides = build.floats(&[1, places.len(), 1], &strides);
                centre = build.op("Add", &[&centre, &starts], &[]);
                size = build.op("Exp", &[&size], &[]);
                [centre, size] = [centre, size].map(|part| build.op("Mul", &[&part, &strides], &[]));
            }
            let confidence = build.op("Mul", &[&sure, &scores], &[]);
            let [scores, confidence] =
                [scores, confidence].map(|part| build.op("Transpose", &[&part], &[("perm", Value::Ints(&[0, 2, 1]))]));
            (around(build, &centre, &size), best_alone(build, &scores, &confidence, how.classes))
        }
        Boxes::Anchors { width, height, background } => {
            let (width, height) = (*width as f32, *height as f32);
            let shape = build.ints(&[0, -1, 4]);
            let parts = build.op("Reshape", &[first, &shape], &[]);
            let order = build.ints(&[1, 0, 3, 2]);
            let parts = build.op("Gather", &[&parts, &order], &[("axis", Value::Int(2))]);
            let pixels = build.floats(&[4], &[width, height, width, height]);
            let corners = build.op("Mul", &[&parts, &pixels], &[]);
            let background = *background as i64;
            let scores = build.slice(read[1].name(), 2, background, background + classes);
            (corners, build.op("Transpose", &[&scores], &[("perm", Value::Ints(&[0, 2, 1]))]))
        }
    }
}

/// Corners of boxes of which centre and size are known.
fn around(build: &mut Builder<'_>, centre: &str, size: &str) -> String {
    let half = build.float(0.5);
    let half = build.op("Mul", &[size, &half], &[]);
    let [low, high] = ["Sub", "Add"].map(|op| build.op(op, &[centre, &half], &[]));
    build.op("Concat", &[&low, &high], &[("axis", Value::Int(2))])
}

/// `confidence` where the class is the cell's best by `scores`; elsewhere less than any threshold: a cell speaks for
/// its best class alone.
fn best_alone(build: &mut Builder<'_>, scores: &str, confidence: &str, classes: usize) -> String {
    let best = build.op("ArgMax", &[scores], &[("axis", Value::Int(1)), ("keepdims", Value::Int(1))]);
    let numbers: Vec<i64> = (0..classes as i64).collect();
    let numbers = build.constant(|name| crate::weights::of_i64(name, &[1, classes, 1], &numbers));
    let is_best = build.op("Equal", &[&best, &numbers], &[]);
    let never = build.float(-1.0);
    build.op("Where", &[&is_best, confidence, &never], &[])
}

/// The four outputs. `picked` holds row, class and cell of what stays, `[found, 3]`, in no order that says anything.
fn written(
    build: &mut Builder<'_>,
    how: &Suppression,
    corners: &str,
    scores: &str,
    picked: &str,
    rows: &Dimension,
) -> Vec<ValueInfoProto> {
    let most = how.max_det as i64;
    let confidence = build.op("GatherND", &[scores, picked], &[]);
    let found = build.op("Shape", &[&confidence], &[]);
    let [sorted, order] = [build.name("sorted"), build.name("order")];
    build.named("TopK", &[&confidence, &found], &[&sorted, &order], &[("axis", Value::Int(0))]);
    let picked = build.op("Gather", &[picked, &order], &[]);
    let row = build.slice(&picked, 1, 0, 1);

    // The place of each among those of its row: how many of that row have come so far.
    let shape = build.op("Shape", &[corners], &[]);
    let count = build.slice(&shape, 0, 0, 1);
    let scalar = build.ints(&[]);
    let count_scalar = build.op("Reshape", &[&count, &scalar], &[]);
    let [zero, one] = [build.int(0), build.int(1)];
    let numbers = build.op("Range", &[&zero, &count_scalar, &one], &[]);
    let own = build.op("Equal", &[&row, &numbers], &[]);
    let own = build.cast(&own, DataType::INT32);
    let so_far = build.op("CumSum", &[&own, &zero], &[]);
    let so_far = build.cast(&so_far, DataType::INT64);
    let place = build.op("GatherElements", &[&so_far, &row], &[("axis", Value::Int(1))]);
    let place = build.op("Sub", &[&place, &one], &[]);

    let last = build.int(most);
    let stays = build.op("Less", &[&place, &last], &[]);
    let flat = build.ints(&[-1]);
    let stays = build.op("Reshape", &[&stays, &flat], &[]);
    let kept = |build: &mut Builder<'_>, of: &str| build.op("Compress", &[of, &stays], &[("axis", Value::Int(0))]);
    let [picked, place, confidence] = [&picked, &place, &sorted].map(|of| kept(build, of));

    let row = build.slice(&picked, 1, 0, 1);
    let class = build.slice(&picked, 1, 1, 2);
    let class = build.op("Reshape", &[&class, &flat], &[]);
    let class = build.cast(&class, DataType::INT32);
    let cell = build.slice(&picked, 1, 2, 3);
    let where_from = build.op("Concat", &[&row, &cell], &[("axis", Value::Int(1))]);
    let where_to = build.op("Concat", &[&row, &place], &[("axis", Value::Int(1))]);
    let found = build.op("GatherND", &[corners, &where_from], &[]);

    let (most, four) = (build.ints(&[most]), build.ints(&[4]));
    let slots = build.op("Concat", &[&count, &most], &[("axis", Value::Int(0))]);
    let box_slots = build.op("Concat", &[&slots, &four], &[("axis", Value::Int(0))]);
    let names = ["num_dets", "det_boxes", "det_scores", "det_classes"].map(|name| build.model.fresh(name));
    let [number, boxes, confidences, classes] = &names;
    for (name, slots, values, kind) in [
        (boxes, &box_slots, &found, FLOAT),
        (confidences, &slots, &confidence, FLOAT),
        (classes, &slots, &class, DataType::INT32),
    ] {
        let empty = build.op("ConstantOfShape", &[slots], &[]);
        let empty = build.cast(&empty, kind);
        build.named("ScatterND", &[&empty, &where_to, values], &[name], &[]);
    }
    let nothing = build.float(0.0);
    let taken = build.op("Greater", &[confidences, &nothing], &[]);
    let taken = build.cast(&taken, FLOAT);
    let total = sum(build, &taken, 1);
    build.named("Cast", &[&total], &[number], &[("to", Value::Int(DataType::INT32 as i64))]);

    let most = how.max_det;
    vec![
        value(number, DataType::INT32, vec![rows.clone(), fixed(1)]),
        value(boxes, FLOAT, vec![rows.clone(), fixed(most), fixed(4)]),
        value(confidences, FLOAT, vec![rows.clone(), fixed(most)]),
        value(classes, DataType::INT32, vec![rows.clone(), fixed(most)]),
    ]
}

/// The sum along `axis`, which stays with a length of one. From opset 13 on the axis is an input.
fn sum(build: &mut Builder<'_>, of: &str, axis: i64) -> String {
    if build.model.opset() >= 13 {
        let axes = build.ints(&[axis]);
        return build.op("ReduceSum", &[of, &axes], &[]);
    }
    build.op("ReduceSum", &[of], &[("axes", Value::Ints(&[axis]))])
}
