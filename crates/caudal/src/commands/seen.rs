//! What was seen in a picture, for a terminal and for programs.

use std::{collections::BTreeMap, fmt::Write, path::Path};

use caudal_tasks::{Found, Mask, PictureModel, Seen, ServedModel};
use serde_json::{Value, json};

/// A line of JSON, with the names of the server's answers.
pub(super) fn line(file: &Path, model: &ServedModel, seer: &PictureModel, seen: &Seen, drawn: Option<&Path>) -> String {
    let timings = seen.stamps.iter().map(|(stage, spent)| (stage.name(), spent.as_secs_f64() * 1e3));
    let mut line = json!({
        "file": file, "model": model.name, "version": model.version.to_string(),
        "image_size": { "width": seen.size.0, "height": seen.size.1 },
        "timings_ms": timings.collect::<BTreeMap<_, _>>(),
        "drawn": drawn,
    });
    let (name, found) = found(seer, seen);
    line[name] = found;
    format!("{line}\n")
}

fn found(seer: &PictureModel, seen: &Seen) -> (&'static str, Value) {
    match &seen.found {
        Found::Objects(found) => {
            let each = found.iter().map(|found| {
                json!({
                    "x1": found.rect.x1, "y1": found.rect.y1, "x2": found.rect.x2, "y2": found.rect.y2,
                    "confidence": found.confidence, "class_id": found.class_id, "class": seer.label(found.class_id),
                })
            });
            ("detections", each.collect())
        }
        Found::Classes(found) => {
            let each = found.iter().map(|found| {
                json!({
                    "class_id": found.class_id, "class": seer.label(found.class_id), "confidence": found.confidence,
                })
            });
            ("classifications", each.collect())
        }
        Found::Segments(found) => {
            let (width, height) = seen.size;
            let each = found.iter().map(|found| {
                let mut segment = json!({
                    "class_id": found.class_id, "class": seer.label(found.class_id), "area": found.area,
                });
                if let Mask::Rle(counts) = &found.mask {
                    segment["mask"] = json!({ "encoding": "rle", "size": [height, width], "counts": counts });
                }
                segment
            });
            ("segments", each.collect())
        }
    }
}

/// A table for people.
pub(super) fn table(file: &Path, seer: &PictureModel, seen: &Seen, drawn: Option<&Path>) -> String {
    let mut text = format!("{} ({}x{})\n", file.display(), seen.size.0, seen.size.1);
    let classes: Vec<usize> = match &seen.found {
        Found::Objects(found) => found.iter().map(|found| found.class_id).collect(),
        Found::Classes(found) => found.iter().map(|found| found.class_id).collect(),
        Found::Segments(found) => found.iter().map(|found| found.class_id).collect(),
    };
    let width = classes.iter().map(|class| seer.label(*class).len()).max().unwrap_or(0).max(5);
    let head = match &seen.found {
        _ if classes.is_empty() => "  nothing found".to_owned(),
        Found::Objects(_) => format!("  {:width$}  conf      x1      y1      x2      y2", "class"),
        Found::Classes(_) => format!("  {:width$}  conf", "class"),
        Found::Segments(_) => format!("  {:width$}  of the picture", "class"),
    };
    let _ = writeln!(text, "{head}");
    for (index, class) in classes.into_iter().enumerate() {
        let _ = write!(text, "  {:width$}  ", seer.label(class));
        let _ = match &seen.found {
            Found::Objects(found) => {
                let (rect, confidence) = (found[index].rect, found[index].confidence);
                let corners = [rect.x1, rect.y1, rect.x2, rect.y2].map(|side| format!("{side:6.1}")).join("  ");
                writeln!(text, "{confidence:.2}  {corners}")
            }
            Found::Classes(found) => writeln!(text, "{:.4}", found[index].confidence),
            Found::Segments(found) => writeln!(text, "{:.1} %", found[index].area * 100.0),
        };
    }
    let stages: Vec<String> =
        seen.stamps.iter().map(|(stage, spent)| format!("{} {:.1}", stage.name(), spent.as_secs_f64() * 1e3)).collect();
    let _ = writeln!(text, "  {:.1} ms: {}", seen.stamps.total().as_secs_f64() * 1e3, stages.join(", "));
    if let Some(drawn) = drawn {
        let _ = writeln!(text, "  drawn: {}", drawn.display());
    }
    text
}
