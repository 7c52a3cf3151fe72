//! A profile as a flame graph: SVG that zooms and searches in the browser that opens it.

use inferno::flamegraph::{Options, color::Palette, from_lines};

use crate::{
    error::ProfileError,
    profile::{Kind, Profile},
};

/// Pixels: narrower than most screens.
const WIDTH: usize = 1600;

/// The flame graph of `profile`.
pub(crate) fn write(profile: &Profile) -> Result<Vec<u8>, ProfileError> {
    if profile.stacks.is_empty() {
        return Err(ProfileError::Nothing);
    }
    let mut options = options(profile.kind);
    options.subtitle = Some(subtitle(profile));
    let lines = profile.collapsed();
    let mut svg = Vec::new();
    from_lines(&mut options, lines.lines(), &mut svg)?;
    Ok(svg)
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
