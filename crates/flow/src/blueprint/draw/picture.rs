//! A pipeline as a picture: boxes for steps from top to bottom, lanes side by side, diamonds for choices, an arrow back
//! for what is done again. It needs no font but what there is, and follows the reader's light or dark.

use std::fmt::Write as _;

use super::plan::{Part, Within, parts, shown};
use crate::step::Definition;

const GAP: f64 = 28.0;
const SIDE: f64 = 20.0;
const PAD: f64 = 16.0;
const BOX: f64 = 46.0;
const LABEL: f64 = 20.0;
const LETTER: f64 = 7.4;
/// Letters of a text that are shown.
const LETTERS: usize = 34;
const NARROWEST: f64 = 120.0;

const STYLE: &str = "<style>\
svg{--ink:#1d2733;--dim:#5b6b7c;--line:#8a99a8;--box:#ffffff;--frame:#f1f5f9;--accent:#2563eb;--ask:#b45309;--back:#fbfcfd}\
@media (prefers-color-scheme:dark){svg{--ink:#e6edf3;--dim:#9aa7b4;--line:#5d6b79;--box:#1b232c;--frame:#141a21;--accent:#60a5fa;--ask:#fbbf24;--back:#0d1117}}\
text{font:600 13px system-ui,sans-serif;fill:var(--ink);text-anchor:middle}\
.n{font-weight:400;font-size:11px;fill:var(--dim)}.l{text-anchor:start;font-size:11px;fill:var(--dim)}\
.b{fill:var(--box);stroke:var(--line)}.c{fill:var(--box);stroke:var(--accent);stroke-width:1.5}.a{fill:var(--box);stroke:var(--ask);stroke-width:1.5}\
.f{fill:var(--frame);stroke:var(--line);stroke-dasharray:4 3}.e{fill:none;stroke:var(--line);stroke-width:1.3;marker-end:url(#t)}\
.p{fill:none;stroke:var(--line);stroke-width:1.3}.k{fill:var(--back)}#t path{fill:var(--line)}\
</style><defs><marker id=\"t\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\"/></marker></defs>";

/// A pipeline as a picture in SVG.
pub fn svg(definition: &Definition) -> String {
    let name = shown(&definition.name);
    let parts = parts(&definition.steps);
    let size = stack_size(&parts);
    let (width, height) = (size.0.max(text_width(&name)) + 2.0 * PAD, size.1 + 2.0 * (PAD + BOX + GAP));
    let mut picture = Picture(String::new());
    let _ = write!(
        picture.0,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" role=\"img\"><title>{}</title>{STYLE}<rect class=\"k\" width=\"100%\" height=\"100%\"/>",
        escaped(&name)
    );
    let middle = width / 2.0;
    picture.pill(middle, PAD, &name);
    let top = PAD + BOX;
    picture.arrow(middle, top, middle, top + GAP);
    picture.stack(&parts, middle, top + GAP);
    let bottom = top + GAP + size.1;
    if !parts.is_empty() {
        picture.arrow(middle, bottom, middle, bottom + GAP);
    }
    picture.pill(middle, bottom + if parts.is_empty() { 0.0 } else { GAP }, "end");
    picture.0.push_str("</svg>\n");
    picture.0
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // XML knows no others below the space, nor these two.
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            letter if letter.is_control() => escaped.push(' '),
            letter => escaped.push(letter),
        }
    }
    escaped
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LETTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn text_width(text: &str) -> f64 {
    (cut(text).chars().count() as f64 * LETTER + 2.0 * PAD).max(NARROWEST)
}

fn title(part: &Part) -> String {
    cut(&part.name)
}

fn note(part: &Part) -> String {
    // A diamond shows that it is a choice.
    let kind = if matches!(part.kind, "step" | "conditional") { None } else { Some(part.kind.to_owned()) };
    let fallback = part.otherwise.as_ref().map(|otherwise| format!("else {}", otherwise.name));
    let said: Vec<String> = kind.into_iter().chain(fallback).chain(part.notes.iter().cloned()).collect();
    cut(&said.join(" · "))
}

fn head_width(part: &Part) -> f64 {
    let more = if matches!(part.within, Within::Choice(_)) { 110.0 } else { 0.0 };
    text_width(&title(part)).max(text_width(&note(part)) * 0.86) + more
}

fn head_height(part: &Part) -> f64 {
    if matches!(part.within, Within::Choice(_)) { 64.0 } else { BOX }
}

/// How wide and high a step is.
fn size(part: &Part) -> (f64, f64) {
    let head = head_width(part);
    match &part.within {
        Within::Nothing => (head, BOX),
        Within::Once(parts) | Within::Again(parts) => {
            let (width, height) = stack_size(parts);
            (width.max(head) + 2.0 * SIDE + PAD, LABEL + height + 2.0 * PAD + LABEL)
        }
        Within::Lanes(lanes) | Within::Choice(lanes) => {
            let (width, height) = lanes_size(lanes);
            (width.max(head), head_height(part) + GAP + height + GAP)
        }
    }
}

fn lane_size((name, parts): &(String, Vec<Part>)) -> (f64, f64) {
    let (width, height) = stack_size(parts);
    let label = cut(name).chars().count() as f64 * LETTER + 2.0 * PAD;
    (width.max(label).max(60.0) + SIDE, LABEL + PAD + height + PAD)
}

fn lanes_size(lanes: &[(String, Vec<Part>)]) -> (f64, f64) {
    let sizes: Vec<(f64, f64)> = lanes.iter().map(lane_size).collect();
    let width = sizes.iter().map(|size| size.0).sum::<f64>() + SIDE * lanes.len().saturating_sub(1) as f64;
    (width, sizes.iter().map(|size| size.1).fold(0.0, f64::max))
}

fn stack_size(parts: &[Part]) -> (f64, f64) {
    let sizes: Vec<(f64, f64)> = parts.iter().map(size).collect();
    let width = sizes.iter().map(|size| size.0).fold(0.0, f64::max);
    (width, sizes.iter().map(|size| size.1).sum::<f64>() + GAP * parts.len().saturating_sub(1) as f64)
}

struct Picture(String);

impl Picture {
    fn text(&mut self, class: &str, x: f64, y: f64, text: &str) {
        let _ = write!(self.0, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escaped(text));
    }

    fn frame(&mut self, class: &str, x: f64, y: f64, (width, height): (f64, f64), round: f64) {
        let size = format!("width=\"{width:.1}\" height=\"{height:.1}\" rx=\"{round:.0}\"");
        let _ = write!(self.0, "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" {size}/>");
    }

    fn arrow(&mut self, x: f64, y: f64, to_x: f64, to_y: f64) {
        let middle = y + (to_y - y) / 2.0;
        let _ = write!(self.0, "<path class=\"e\" d=\"M{x:.1} {y:.1}V{middle:.1}H{to_x:.1}V{to_y:.1}\"/>");
    }

    fn pill(&mut self, middle: f64, y: f64, text: &str) {
        let width = text_width(text);
        self.frame("c", middle - width / 2.0, y, (width, BOX), BOX / 2.0);
        self.text("t", middle, y + BOX / 2.0 + 5.0, &cut(text));
    }

    /// Steps below each other around `middle`.
    fn stack(&mut self, parts: &[Part], middle: f64, y: f64) {
        let mut y = y;
        for (number, part) in parts.iter().enumerate() {
            if number > 0 {
                self.arrow(middle, y, middle, y + GAP);
                y += GAP;
            }
            self.part(part, middle, y);
            y += size(part).1;
        }
    }

    fn part(&mut self, part: &Part, middle: f64, y: f64) {
        match &part.within {
            Within::Nothing => self.head(part, middle, y),
            Within::Once(parts) => self.framed(part, parts, middle, y, false),
            Within::Again(parts) => self.framed(part, parts, middle, y, true),
            Within::Lanes(lanes) | Within::Choice(lanes) => {
                self.head(part, middle, y);
                let top = y + head_height(part);
                self.lanes(lanes, middle, top);
            }
        }
    }

    fn head(&mut self, part: &Part, middle: f64, y: f64) {
        let (width, height) = (head_width(part), head_height(part));
        let class = match part.kind {
            "hitl" => "a",
            "step" => "b",
            _ => "c",
        };
        if matches!(part.within, Within::Choice(_)) {
            let (left, right, half) = (middle - width / 2.0, middle + width / 2.0, y + height / 2.0);
            let (top, bottom) = (y, y + height);
            let path =
                format!("M{middle:.1} {top:.1}L{right:.1} {half:.1}L{middle:.1} {bottom:.1}L{left:.1} {half:.1}z");
            let _ = write!(self.0, "<path class=\"{class}\" d=\"{path}\"/>");
        } else {
            self.frame(class, middle - width / 2.0, y, (width, height), 8.0);
        }
        let (note, half) = (note(part), y + height / 2.0);
        let up = if note.is_empty() { -5.0 } else { 3.0 };
        self.text("t", middle, half - up, &title(part));
        self.text("n", middle, half + 13.0, &note);
    }

    /// Steps within a frame; with an arrow back at its side, if they are done again.
    fn framed(&mut self, part: &Part, parts: &[Part], middle: f64, y: f64, again: bool) {
        let (width, height) = size(part);
        let left = middle - width / 2.0;
        self.frame("f", left, y, (width, height), 10.0);
        self.text("l", left + PAD, y + LABEL - 4.0, &title(part));
        self.text("l n", left + PAD, y + height - 7.0, &note(part));
        let (top, inner) = (y + LABEL + PAD, stack_size(parts));
        self.stack(parts, middle, top);
        if again && !parts.is_empty() {
            let (bottom, side) = (top + inner.1, left + width - SIDE / 2.0);
            let _ = write!(
                self.0,
                "<path class=\"e\" d=\"M{middle:.1} {:.1}H{side:.1}V{:.1}H{middle:.1}V{top:.1}\"/>",
                bottom + PAD / 2.0,
                top - PAD / 2.0,
            );
            let _ = write!(self.0, "<path class=\"p\" d=\"M{middle:.1} {bottom:.1}v{:.1}\"/>", PAD / 2.0);
        }
    }

    fn lanes(&mut self, lanes: &[(String, Vec<Part>)], middle: f64, y: f64) {
        let (width, height) = lanes_size(lanes);
        let (mut x, top, join) = (middle - width / 2.0, y + GAP, y + GAP + height + GAP);
        for lane in lanes {
            let (wide, _) = lane_size(lane);
            let centre = x + wide / 2.0;
            self.frame("f", x, top, (wide, height), 10.0);
            self.text("n", centre, top + LABEL - 4.0, &cut(&lane.0));
            self.stack(&lane.1, centre, top + LABEL + PAD);
            self.arrow(middle, y, centre, top);
            let bottom = top + height;
            let half = bottom + GAP / 2.0;
            let _ =
                write!(self.0, "<path class=\"p\" d=\"M{centre:.1} {bottom:.1}V{half:.1}H{middle:.1}V{join:.1}\"/>");
            x += wide + SIDE;
        }
    }
}
