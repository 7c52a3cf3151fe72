//! Flame graphs: SVG images with zoom and search.

use inferno::flamegraph::{Options, color::Palette, from_lines};

use crate::{
    error::ProfileError,
    profile::{IDLE_MESSAGE, Kind, Profile},
};

/// Pixels; narrower than most screens.
const IMAGE_WIDTH: usize = 1600;

/// The flame graph of `profile`.
pub(crate) fn write(profile: &Profile) -> Result<Vec<u8>, ProfileError> {
    if profile.total_count() == 0 {
        return Ok(empty_image(profile.kind));
    }
    let mut options = graph_options(profile.kind);
    options.subtitle = Some(graph_subtitle(profile));
    let lines = profile.to_collapsed();
    let mut svg = Vec::new();
    from_lines(&mut options, lines.lines(), &mut svg)?;
    Ok(svg)
}

/// An image with the message that the profile is empty.
pub(crate) fn empty_image(kind: Kind) -> Vec<u8> {
    let message = match kind {
        Kind::Cpu => IDLE_MESSAGE,
        Kind::Heap => "no memory was sampled",
    };
    format!(
        "<?xml version=\"1.0\" standalone=\"no\"?>\n<svg version=\"1.1\" xmlns=\"http://www.w3.org/2000/svg\" \
         width=\"{IMAGE_WIDTH}\" height=\"80\" viewBox=\"0 0 {IMAGE_WIDTH} 80\">\n<rect width=\"100%\" height=\"100%\" \
         fill=\"#f8f8f8\"/>\n<text x=\"20\" y=\"45\" font-family=\"monospace\" font-size=\"16\">{message}</text>\n</svg>\n"
    )
    .into_bytes()
}

/// Title, unit and colours of the flame graphs of a kind.
pub(crate) fn graph_options(kind: Kind) -> Options<'static> {
    let mut options = Options::default();
    options.image_width = Some(IMAGE_WIDTH);
    // The same function has the same colour in every graph.
    options.hash = true;
    (options.title, options.count_name, options.colors) = match kind {
        Kind::Cpu => ("CPU".to_owned(), "samples".to_owned(), Palette::default()),
        Kind::Heap => (
            "Memory in use".to_owned(),
            "bytes".to_owned(),
            Palette::Basic(inferno::flamegraph::color::BasicPalette::Mem),
        ),
    };
    options
}

fn graph_subtitle(profile: &Profile) -> String {
    match profile.kind {
        Kind::Cpu => {
            let lost = if profile.lost > 0 { format!(", {} lost", profile.lost) } else { String::new() };
            format!(
                "{:.2} s of CPU time in {:.1} s, {} samples{lost}",
                profile.total_amount() as f64 / 1e9,
                profile.took.as_secs_f64(),
                profile.total_count()
            )
        }
        Kind::Heap => format!("{:.1} MB in {} allocations", profile.total_amount() as f64 / 1e6, profile.total_count()),
    }
}
