//! What a graph does by itself that is done outside of others. Notes beside the graph, which `caudal models fuse` writes,
//! say so; they stand above `model.yaml`, which speaks of all versions of a model.

use caudal_engine::{
    ModelSpec,
    repository::{self as settings, ChannelOrder, ModelSettings},
};
use caudal_vision::{Family, Fit};

use crate::recognise::noted_size;

/// The note of a graph that takes bytes, red first, and normalises by itself: how a picture is fitted to its size.
pub const PIXELS: &str = "caudal.pixels";

/// The note of a graph that removes duplicates by itself: the family whose boxes they were.
pub const SUPPRESSED: &str = "caudal.suppressed";

/// What `fit` is called in a note.
pub fn fit_name(fit: Fit) -> &'static str {
    match fit {
        Fit::Letterbox => "letterbox",
        Fit::Corner => "corner",
        Fit::Stretch => "stretch",
    }
}

fn said(fit: Fit) -> settings::ResizeMode {
    match fit {
        Fit::Letterbox => settings::ResizeMode::Letterbox,
        Fit::Corner => settings::ResizeMode::Corner,
        Fit::Stretch => settings::ResizeMode::Stretch,
    }
}

/// Brings `settings` in line with the notes in `spec`.
pub(crate) fn settle(settings: &mut ModelSettings, spec: &ModelSpec) {
    let pre = &mut settings.preprocessing;
    if let Some(fit) = spec.metadata.get(PIXELS) {
        pre.color = Some(ChannelOrder::Rgb);
        let fit = [Fit::Letterbox, Fit::Corner, Fit::Stretch].into_iter().find(|known| fit_name(*known) == fit);
        pre.fit = pre.fit.or(fit.map(said));
    }
    if let Some(name) = spec.metadata.get(SUPPRESSED) {
        // Its boxes are read in another way, its pictures are what they were.
        if let Ok(family) = name.parse::<Family>() {
            let habits = family.habits();
            pre.fit.get_or_insert(said(habits.fit));
            pre.color.get_or_insert(if habits.bgr { ChannelOrder::Bgr } else { ChannelOrder::Rgb });
            pre.scale.get_or_insert(habits.scale);
            pre.size.get_or_insert(noted_size(spec).unwrap_or([habits.side; 2]));
        }
        settings.family = Some("end2end".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(yaml: &str, notes: &[(&str, &str)]) -> ModelSettings {
        let mut settings = ModelSettings::parse(yaml, "model.yaml").unwrap();
        let notes = notes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        settle(&mut settings, &ModelSpec { metadata: notes, ..Default::default() });
        settings
    }

    #[test]
    fn notes_stand_above_what_is_said_of_all_versions() {
        let settings = settled("family: yolox", &[(SUPPRESSED, "yolox")]);
        assert_eq!(settings.family.as_deref(), Some("end2end"));
        let pre = settings.preprocessing;
        assert_eq!(
            (pre.fit, pre.color, pre.scale),
            (Some(settings::ResizeMode::Corner), Some(ChannelOrder::Bgr), Some(1.0))
        );
        let both = settled("preprocessing: {color: bgr}", &[(SUPPRESSED, "yolox"), (PIXELS, "corner")]);
        assert_eq!(both.preprocessing.color, Some(ChannelOrder::Rgb), "the graph turns them by itself");
        assert_eq!(both.preprocessing.fit, Some(settings::ResizeMode::Corner));
    }

    #[test]
    fn without_notes_settings_stay_as_they_are() {
        let yaml = "family: yolox\npreprocessing: {color: bgr}";
        assert_eq!(settled(yaml, &[("names", "['a']")]), ModelSettings::parse(yaml, "model.yaml").unwrap());
    }
}
