//! Likely family of a model that takes images and is not supported as an image model.

use caudal_vision::OutputShape;

/// What a model seems to be, and what can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seems {
    pub(crate) what: &'static str,
    pub(crate) mend: &'static str,
}

const fn seems(what: &'static str, mend: &'static str) -> Option<Seems> {
    Some(Seems { what, mend })
}

const NOT_READ: &str = "it is not read here: export it as one of the families in docs/models.md";

/// By what its file notes as its task, by the names of its outputs and by their shapes for one picture.
pub(crate) fn resembles(noted_task: Option<&str>, outputs: &[OutputShape<'_>]) -> Option<Seems> {
    let named = |word: &str| outputs.iter().any(|output| output.name.contains(word));
    match noted_task {
        Some("segment") => return seems("a YOLO that segments objects", NOT_READ),
        Some("pose") => return seems("a YOLO that finds poses", NOT_READ),
        Some("obb") => return seems("a YOLO with turned boxes", NOT_READ),
        _ => {}
    }
    if named("pred_boxes") && named("logits") {
        return seems("a DETR or RT-DETR", NOT_READ);
    }
    if named("detection_boxes") {
        return seems(
            "a detector of TensorFlow's zoo, with duplicates removed and boxes as `y1, x1, y2, x2`",
            NOT_READ,
        );
    }
    by_shapes(outputs)
}

fn by_shapes(outputs: &[OutputShape<'_>]) -> Option<Seems> {
    let dims: Vec<&[usize]> = outputs.iter().map(|output| output.dims).collect();
    match dims[..] {
        [[_, count, 4], [_, scores, _]] | [[_, scores, _], [_, count, 4]] if count == scores => seems(
            "a detector with boxes and scores (SSD, YOLO-NAS, DETR)",
            "if its boxes are `y1, x1, y2, x2` between 0 and 1 and its scores too, say `family: ssd` in model.yaml",
        ),
        [[_, _, _], [_, _, _, _]] | [[_, _, _, _], [_, _, _]] => seems("a YOLO that segments objects", NOT_READ),
        [[_, 6]] => seems(
            "a detector or a classifier",
            "if a row is a box's corners in pixels, its score and its class, say `family: end2end` in model.yaml; if it is \
             scores of six classes, `kind: classify`",
        ),
        [[1, _]] | [[1, _, 1, 1]] => seems("a classifier", "if it is one, say `kind: classify` in model.yaml"),
        [[_, _, _]] => seems(
            "a detector whose outputs lie in another order or in other units",
            "if it is one of the families in docs/models.md, say `family` in model.yaml",
        ),
        [[_, _, _, _]] => seems("a segmentation", "if it is one, say `kind: segment` in model.yaml"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(task: Option<&str>, outputs: &[(&str, &[usize])], words: &str, mend: &str) {
        let outputs: Vec<_> = outputs.iter().map(|(name, dims)| OutputShape { name, dims }).collect();
        let seems = resembles(task, &outputs).unwrap();
        assert!(seems.what.contains(words) && seems.mend.contains(mend), "{seems:?}");
    }

    #[test]
    fn detectors_that_are_not_read_are_called_by_their_names() {
        check(None, &[("logits", &[1, 300, 80]), ("pred_boxes", &[1, 300, 4])], "DETR", "not read here");
        let zoo: [(&str, &[usize]); 2] = [("num_detections", &[1]), ("detection_boxes", &[1, 100, 4])];
        check(None, &zoo, "TensorFlow", "not read here");
        check(None, &[("boxes", &[1, 84, 4]), ("scores", &[1, 84, 80])], "YOLO-NAS", "`family: ssd`");
        check(None, &[("output0", &[1, 116, 8400]), ("output1", &[1, 32, 160, 160])], "segments objects", "");
        check(Some("pose"), &[("output0", &[1, 56, 8400])], "poses", "");
        check(Some("obb"), &[("output0", &[1, 20, 8400])], "turned boxes", "");
        check(None, &[("output", &[0, 6])], "detector", "`family: end2end`");
        check(None, &[("output", &[1, 1000])], "classifier", "`kind: classify`");
        check(None, &[("output", &[1, 21, 64, 64])], "segmentation", "`kind: segment`");
    }
}
