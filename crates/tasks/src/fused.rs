//! What a graph does by itself that is done outside of others: notes beside it, which `caudal models fuse` writes and
//! which stand above `model.yaml`, for that speaks of all versions of a model.

use caudal_engine::{
    ModelSpec,
    repository::{ChannelOrder, Fit, ModelSettings},
};

/// The note of a graph that takes bytes, red first, and does the rest by itself: how pictures are fitted to its size.
pub const PIXELS: &str = "caudal.pixels";

/// The note of a graph that removes duplicates by itself: the family as which it is read.
pub const FAMILY: &str = "caudal.family";

/// What `fit` is called in a note.
pub fn fit_name(fit: caudal_vision::Fit) -> &'static str {
    match fit {
        caudal_vision::Fit::Letterbox => "letterbox",
        caudal_vision::Fit::Corner => "corner",
        caudal_vision::Fit::Stretch => "stretch",
    }
}

/// Brings `settings` in line with what the notes in `spec` say.
pub(crate) fn settle(settings: &mut ModelSettings, spec: &ModelSpec) {
    if let Some(fit) = spec.notes.get(PIXELS) {
        settings.preprocessing.color = Some(ChannelOrder::Rgb);
        settings.preprocessing.fit.get_or_insert(match fit.as_str() {
            "corner" => Fit::Corner,
            "stretch" => Fit::Stretch,
            _ => Fit::Letterbox,
        });
    }
    if let Some(family) = spec.notes.get(FAMILY) {
        settings.family = Some(family.clone());
    }
}
