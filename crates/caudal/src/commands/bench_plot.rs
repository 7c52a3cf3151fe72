//! The plot of `caudal bench codec`: how fast each codec writes, and how small it makes realistic events.

use std::fmt::Write as _;

use caudal_record::archive::bench::{Layout, Report, Row};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 100.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 60.0;

/// An SVG that needs nothing beside itself.
pub(super) fn svg(report: &Report) -> String {
    let rows: Vec<&Row> = report.rows.iter().filter(|row| row.corpus == "realistic").collect();
    let most = rows.iter().map(|row| row.ratio).fold(1.0, f64::max).ceil();
    let fastest = rows.iter().map(|row| row.write_mb_s).fold(10.0, f64::max).log10().ceil();
    // A slow codec may write less than 1 MB/s; it stands at the edge then.
    let x = |speed: f64| LEFT + (WIDTH - LEFT - RIGHT) * (speed.max(1.0).log10() / fastest);
    let y = |ratio: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (ratio / most);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"22\" \
         font-size=\"15\">Codecs on realistic events: higher is smaller, further right is faster</text>\n"
    );
    for power in 0..=fastest as i32 {
        let (at, speed) = (x(10_f64.powi(power)), 10_u64.pow(power.unsigned_abs()));
        line(&mut svg, (at, TOP), (at, HEIGHT - BOTTOM));
        text(&mut svg, (at - 10.0, HEIGHT - BOTTOM + 18.0), &speed.to_string());
    }
    for ratio in 0..=most as u32 {
        let at = y(ratio.into());
        line(&mut svg, (LEFT, at), (WIDTH - RIGHT, at));
        text(&mut svg, (LEFT - 22.0, at + 4.0), &ratio.to_string());
    }
    text(&mut svg, (WIDTH / 2.0 - 60.0, HEIGHT - 16.0), "MB/s written, one thread, until on disk");
    text(&mut svg, (12.0, TOP - 4.0), "ratio");
    for row in rows {
        let (at, to) = (x(row.write_mb_s), y(row.ratio));
        let (colour, name) = match (row.layout, row.plugin) {
            (Layout::Strings, _) if row.codec == "none" => ("#b03030", "strings, whatever the filter".to_owned()),
            (Layout::Strings, _) => ("#b03030", String::new()),
            (Layout::Chunks, None) => ("#2060a0", row.codec.clone()),
            (Layout::Chunks, Some(_)) => ("#308040", format!("{} (plugin)", row.codec)),
        };
        let _ = writeln!(svg, "<circle cx=\"{at:.1}\" cy=\"{to:.1}\" r=\"5\" fill=\"{colour}\"/>");
        // The two slowest of gzip lie close together.
        let below = if row.codec == "gzip-9" { 16.0 } else { -6.0 };
        text(&mut svg, (at + 8.0, to + below), &name);
    }
    svg + "</svg>\n"
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"#ddd\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, at: (f64, f64), words: &str) {
    let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\">{words}</text>", at.0, at.1);
}
