//! A profile as a flame graph: SVG that zooms and searches in the browser that opens it.

use inferno::flamegraph::{Options, color::Palette, from_lines};

use crate::{
    error::ProfileError,
    profile::{IDLE, Kind, Profile},
};

/// Pixels: narrower than most screens.
const WIDTH: usize = 1600;

/// The flame graph of `profile`.
pub(crate) fn write(profile: &Profile) -> Result<Vec<u8>, ProfileError> {
    if profile.count() == 0 {
        return Ok(empty(profile.kind));
    }
    let mut options = options(profile.kind);
    options.subtitle = Some(subtitle(profile));
    let lines = profile.collapsed();
    let mut svg = Vec::new();
    from_lines(&mut options, lines.lines(), &mut svg)?;
    Ok(svg)
}

/// A picture that says that there is nothing to show.
pub(crate) fn empty(kind: Kind) -> Vec<u8> {
    let words = match kind {
        Kind::Cpu => IDLE,
        Kind::Heap => "no memory was sampled",
    };
    format!(
        "<?xml version=\"1.0\" standalone=\"no\"?>\n<svg version=\"1.1\" xmlns=\"http://www.w3.org/2000/svg\" \
         width=\"{WIDTH}\" height=\"80\" viewBox=\"0 0 {WIDTH} 80\">\n<rect width=\"100%\" height=\"100%\" \
         fill=\"#f8f8f8\"/>\n<text x=\"20\" y=\"45\" font-family=\"monospace\" font-size=\"16\">{words}</text>\n</svg>\n"
    )
    .into_bytes()
}

/// How flame graphs of a kind look.
pub(crate) fn options(kind: Kind) -> Options<'static> {
    let mut options = Options::default();
    options.image_width = Some(WIDTH);
    // The same function has the same colour in every graph.
    options.hash = true;
    (options.title, options.count_name, options.colors) = match kind {
        Kind::Cpu => ("CPU".to_owned(), "samples".to_owned(), Palette::default()),
        Kind::Heap => (
            "Memory that is held".to_owned(),
            "bytes".to_owned(),
            Palette::Basic(inferno::flamegraph::color::BasicPalette::Mem),
        ),
    };
    options
}

fn subtitle(profile: &Profile) -> String {
    match profile.kind {
        Kind::Cpu => {
            let lost = if profile.lost > 0 { format!(", {} lost", profile.lost) } else { String::new() };
            format!(
                "{:.2} s of CPU time in {:.1} s, {} samples{lost}",
                profile.amount() as f64 / 1e9,
                profile.took.as_secs_f64(),
                profile.count()
            )
        }
        Kind::Heap => format!("{:.1} MB in {} allocations", profile.amount() as f64 / 1e6, profile.count()),
    }
}
