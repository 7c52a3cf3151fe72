//! Fusing non-maximum suppression (NMS): behind a detector's outputs the graph converts boxes to corners, suppresses
//! within each class, and gives the remaining boxes, most confident first, in four outputs like TensorRT's
//! EfficientNMS.

use crate::{
    GraphError, Model,
    builder::{AttributeValue, GraphBuilder, fixed_dim, make_value_info},
    onnx::onnx::{ValueInfoProto, tensor_proto::DataType, tensor_shape_proto::Dimension},
};

/// The layout of a detector's boxes.
#[derive(Debug, Clone, PartialEq)]
pub enum BoxLayout {
    /// `[rows, 4 + classes, cells]`: centre, size, scores.
    Columns,
    /// `[rows, cells, 5 + classes]`: centre, size, objectness, scores.
    Cells,
    /// Like `Cells`, relative to a grid: for each cell its column, its row and its stride in pixels.
    Grid(Vec<[f32; 3]>),
    /// `[rows, anchors, 4]` relative to an input of `width` and `height`, `y1, x1, y2, x2`; and `[rows, anchors,
    /// classes]`, where classes are not exclusive and the first `background` scores are not classes.
    Anchors {
        /// Width of the input.
        width: usize,
        /// Height of the input.
        height: usize,
        /// Number of scores before that of the first class.
        background: usize,
    },
}

/// Parameters of the suppression.
#[derive(Debug, Clone, PartialEq)]
pub struct NmsSpec {
    /// The layout of the boxes.
    pub boxes: BoxLayout,
    /// Indices of the outputs that hold them: one, or boxes and scores.
    pub outputs: Vec<usize>,
    /// Number of classes.
    pub classes: usize,
    /// Lowest confidence of a box.
    pub conf: f32,
    /// IoU above which the less confident of two boxes of a class is removed.
    pub iou: f32,
    /// Maximum number of boxes per image.
    pub max_det: usize,
}

const FLOAT_TYPE: DataType = DataType::FLOAT;

/// Adds NMS to `model`, whose outputs are then `num_dets`, `det_boxes`, `det_scores` and `det_classes`. Its first
/// dimension may be free.
pub fn fuse_nms(model: &mut Model, spec: &NmsSpec) -> Result<(), GraphError> {
    model.require_opset(11, "suppression in the graph")?;
    let outputs = &model.graph().output;
    let Some(read) = spec.outputs.iter().map(|place| outputs.get(*place).cloned()).collect::<Option<Vec<_>>>() else {
        return Err(GraphError::Unsuitable(format!("it has {} outputs, and not those of its family", outputs.len())));
    };
    if let Some(odd) = read.iter().find(|output| output.type_.tensor_type().elem_type() != FLOAT_TYPE as i32) {
        return Err(GraphError::Unsuitable(format!("its output {:?} holds no floats", odd.name())));
    }
    let rows = read.first().and_then(|output| output.type_.tensor_type().shape.dim.first()).cloned();
    let rows = rows.unwrap_or_else(|| fixed_dim(1));

    let mut build = GraphBuilder::new(model, "suppress");
    let (corners, scores) = add_candidates(&mut build, spec, &read);
    // ONNX keeps scores above the threshold; here a score equal to it counts too.
    let [most, iou, conf] = [
        build.int_scalar(spec.max_det as i64),
        build.float_scalar(spec.iou),
        build.float_scalar(spec.conf.next_down()),
    ];
    let picked = build.add_op("NonMaxSuppression", &[&corners, &scores, &most, &iou, &conf], &[]);
    let outputs = add_outputs(&mut build, spec, &corners, &scores, &picked, &rows);
    let nodes = build.nodes;
    let graph = model.graph_mut();
    graph.node.extend(nodes);
    graph.output = outputs;
    Ok(())
}

/// Adds corners `[rows, cells, 4]` and scores `[rows, classes, cells]`.
fn add_candidates(build: &mut GraphBuilder<'_>, spec: &NmsSpec, read: &[ValueInfoProto]) -> (String, String) {
    let first = read[0].name();
    let classes = spec.classes as i64;
    match &spec.boxes {
        BoxLayout::Columns => {
            let cells = build.add_op("Transpose", &[first], &[("perm", AttributeValue::Ints(&[0, 2, 1]))]);
            let [centre, size] = [(0, 2), (2, 4)].map(|(from, to)| build.add_slice(&cells, 2, from, to));
            let scores = build.add_slice(first, 1, 4, 4 + classes);
            (add_corners(build, &centre, &size), add_best_class_mask(build, &scores, &scores, spec.classes))
        }
        BoxLayout::Cells | BoxLayout::Grid(_) => {
            let [mut centre, mut size, sure, scores] =
                [(0, 2), (2, 4), (4, 5), (5, 5 + classes)].map(|(from, to)| build.add_slice(first, 2, from, to));
            if let BoxLayout::Grid(places) = &spec.boxes {
                let starts: Vec<f32> = places.iter().flat_map(|[column, row, _]| [*column, *row]).collect();
                let strides: Vec<f32> = places.iter().map(|[_, _, stride]| *stride).collect();
                let starts = build.float_tensor(&[1, places.len(), 2], &starts);
                let strides = build.float_tensor(&[1, places.len(), 1], &strides);
                centre = build.add_op("Add", &[&centre, &starts], &[]);
                size = build.add_op("Exp", &[&size], &[]);
                [centre, size] = [centre, size].map(|part| build.add_op("Mul", &[&part, &strides], &[]));
            }
            let confidence = build.add_op("Mul", &[&sure, &scores], &[]);
            let [scores, confidence] = [scores, confidence]
                .map(|part| build.add_op("Transpose", &[&part], &[("perm", AttributeValue::Ints(&[0, 2, 1]))]));
            (add_corners(build, &centre, &size), add_best_class_mask(build, &scores, &confidence, spec.classes))
        }
        BoxLayout::Anchors { width, height, background } => {
            let (width, height) = (*width as f32, *height as f32);
            let shape = build.int_vector(&[0, -1, 4]);
            let parts = build.add_op("Reshape", &[first, &shape], &[]);
            let order = build.int_vector(&[1, 0, 3, 2]);
            let parts = build.add_op("Gather", &[&parts, &order], &[("axis", AttributeValue::Int(2))]);
            let pixels = build.float_tensor(&[4], &[width, height, width, height]);
            let corners = build.add_op("Mul", &[&parts, &pixels], &[]);
            let background = *background as i64;
            let scores = build.add_slice(read[1].name(), 2, background, background + classes);
            (corners, build.add_op("Transpose", &[&scores], &[("perm", AttributeValue::Ints(&[0, 2, 1]))]))
        }
    }
}

/// Corners of boxes from centre and size.
fn add_corners(build: &mut GraphBuilder<'_>, centre: &str, size: &str) -> String {
    let half = build.float_scalar(0.5);
    let half = build.add_op("Mul", &[size, &half], &[]);
    let [low, high] = ["Sub", "Add"].map(|op| build.add_op(op, &[centre, &half], &[]));
    build.add_op("Concat", &[&low, &high], &[("axis", AttributeValue::Int(2))])
}

/// `confidence` where the class has the cell's highest score, elsewhere less than any threshold: each cell gives only
/// its best class.
fn add_best_class_mask(build: &mut GraphBuilder<'_>, scores: &str, confidence: &str, classes: usize) -> String {
    let best =
        build.add_op("ArgMax", &[scores], &[("axis", AttributeValue::Int(1)), ("keepdims", AttributeValue::Int(1))]);
    let numbers: Vec<i64> = (0..classes as i64).collect();
    let numbers = build.add_constant(|name| crate::tensors::of_i64(name, &[1, classes, 1], &numbers));
    let is_best = build.add_op("Equal", &[&best, &numbers], &[]);
    let never = build.float_scalar(-1.0);
    build.add_op("Where", &[&is_best, confidence, &never], &[])
}

/// The names of the values of the remaining boxes.
struct Selection {
    /// Row, class and cell of each box, `[found, 3]`, most confident first.
    picked: String,
    /// The index of each box within its row.
    place: String,
    confidence: String,
    /// The number of rows.
    rows: String,
}

/// Sorts the boxes by confidence and limits them to `max_det` per row. `picked` holds row, class and cell of the boxes
/// that NMS keeps, `[found, 3]`, in no particular order.
fn add_selection(build: &mut GraphBuilder<'_>, max_det: usize, corners: &str, scores: &str, picked: &str) -> Selection {
    let confidence = build.add_op("GatherND", &[scores, picked], &[]);
    let found = build.add_op("Shape", &[&confidence], &[]);
    let [sorted, order] = [build.prefixed_name("sorted"), build.prefixed_name("order")];
    build.add_named_op("TopK", &[&confidence, &found], &[&sorted, &order], &[("axis", AttributeValue::Int(0))]);
    let picked = build.add_op("Gather", &[picked, &order], &[]);
    let row = build.add_slice(&picked, 1, 0, 1);

    // The index of each box within its row: the number of earlier boxes of that row.
    let shape = build.add_op("Shape", &[corners], &[]);
    let rows = build.add_slice(&shape, 0, 0, 1);
    let scalar = build.int_vector(&[]);
    let rows_scalar = build.add_op("Reshape", &[&rows, &scalar], &[]);
    let [zero, one] = [build.int_scalar(0), build.int_scalar(1)];
    let numbers = build.add_op("Range", &[&zero, &rows_scalar, &one], &[]);
    let own = build.add_op("Equal", &[&row, &numbers], &[]);
    let own = build.add_cast(&own, DataType::INT32);
    let so_far = build.add_op("CumSum", &[&own, &zero], &[]);
    let so_far = build.add_cast(&so_far, DataType::INT64);
    let place = build.add_op("GatherElements", &[&so_far, &row], &[("axis", AttributeValue::Int(1))]);
    let place = build.add_op("Sub", &[&place, &one], &[]);

    let last = build.int_scalar(max_det as i64);
    let stays = build.add_op("Less", &[&place, &last], &[]);
    let flat = build.int_vector(&[-1]);
    let stays = build.add_op("Reshape", &[&stays, &flat], &[]);
    let [picked, place, confidence] = [&picked, &place, &sorted]
        .map(|value| build.add_op("Compress", &[value, &stays], &[("axis", AttributeValue::Int(0))]));
    Selection { picked, place, confidence, rows }
}

/// Adds the four outputs with the boxes that NMS has `picked`.
fn add_outputs(
    build: &mut GraphBuilder<'_>,
    spec: &NmsSpec,
    corners: &str,
    scores: &str,
    picked: &str,
    rows: &Dimension,
) -> Vec<ValueInfoProto> {
    let selection = add_selection(build, spec.max_det, corners, scores, picked);
    let row = build.add_slice(&selection.picked, 1, 0, 1);
    let class = build.add_slice(&selection.picked, 1, 1, 2);
    let flat = build.int_vector(&[-1]);
    let class = build.add_op("Reshape", &[&class, &flat], &[]);
    let class = build.add_cast(&class, DataType::INT32);
    let cell = build.add_slice(&selection.picked, 1, 2, 3);
    let where_from = build.add_op("Concat", &[&row, &cell], &[("axis", AttributeValue::Int(1))]);
    let where_to = build.add_op("Concat", &[&row, &selection.place], &[("axis", AttributeValue::Int(1))]);
    let found = build.add_op("GatherND", &[corners, &where_from], &[]);

    let (most, four) = (build.int_vector(&[spec.max_det as i64]), build.int_vector(&[4]));
    let slots = build.add_op("Concat", &[&selection.rows, &most], &[("axis", AttributeValue::Int(0))]);
    let box_slots = build.add_op("Concat", &[&slots, &four], &[("axis", AttributeValue::Int(0))]);
    let names = ["num_dets", "det_boxes", "det_scores", "det_classes"].map(|name| build.model.unused_name(name));
    let [number, boxes, confidences, classes] = &names;
    for (name, slots, values, kind) in [
        (boxes, &box_slots, &found, FLOAT_TYPE),
        (confidences, &slots, &selection.confidence, FLOAT_TYPE),
        (classes, &slots, &class, DataType::INT32),
    ] {
        let empty = build.add_op("ConstantOfShape", &[slots], &[]);
        let empty = build.add_cast(&empty, kind);
        build.add_named_op("ScatterND", &[&empty, &where_to, values], &[name], &[]);
    }
    let nothing = build.float_scalar(0.0);
    let taken = build.add_op("Greater", &[confidences, &nothing], &[]);
    let taken = build.add_cast(&taken, FLOAT_TYPE);
    let total = add_sum(build, &taken, 1);
    build.add_named_op("Cast", &[&total], &[number], &[("to", AttributeValue::Int(DataType::INT32 as i64))]);

    let most = spec.max_det;
    vec![
        make_value_info(number, DataType::INT32, vec![rows.clone(), fixed_dim(1)]),
        make_value_info(boxes, FLOAT_TYPE, vec![rows.clone(), fixed_dim(most), fixed_dim(4)]),
        make_value_info(confidences, FLOAT_TYPE, vec![rows.clone(), fixed_dim(most)]),
        make_value_info(classes, DataType::INT32, vec![rows.clone(), fixed_dim(most)]),
    ]
}

/// The sum along `axis`, which remains with length one. From opset 13 on the axis is an input.
fn add_sum(build: &mut GraphBuilder<'_>, of: &str, axis: i64) -> String {
    if build.model.opset() >= 13 {
        let axes = build.int_vector(&[axis]);
        return build.add_op("ReduceSum", &[of, &axes], &[]);
    }
    build.add_op("ReduceSum", &[of], &[("axes", AttributeValue::Ints(&[axis]))])
}
