//! What a network's numbers show of the family that it is taken for: shapes alone are alike in many families.

use super::Output;

/// The least and the greatest of some numbers; those that are infinite or no numbers do not count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// The least.
    pub least: f32,
    /// The greatest.
    pub greatest: f32,
    /// How many were infinite or no numbers.
    pub odd: usize,
}

impl Default for Span {
    /// That of no numbers.
    fn default() -> Self {
        Self { least: f32::INFINITY, greatest: f32::NEG_INFINITY, odd: 0 }
    }
}

impl Span {
    /// That of `numbers`.
    pub fn of<'a>(numbers: impl IntoIterator<Item = &'a f32>) -> Self {
        numbers.into_iter().fold(Self::default(), |span, number| span.with(*number))
    }

    pub(super) fn with(mut self, number: f32) -> Self {
        if number.is_finite() {
            (self.least, self.greatest) = (self.least.min(number), self.greatest.max(number));
        } else {
            self.odd += 1;
        }
        self
    }

    /// That of both.
    pub fn and(self, other: Self) -> Self {
        Self {
            least: self.least.min(other.least),
            greatest: self.greatest.max(other.greatest),
            odd: self.odd + other.odd,
        }
    }

    /// Whether all numbers lie within `from` to `to`.
    pub fn within(&self, from: f32, to: f32) -> bool {
        self.least >= from && self.greatest <= to
    }

    /// Whether there were numbers.
    pub fn has_numbers(&self) -> bool {
        self.least <= self.greatest
    }

    /// The greatest distance from 0; 0 where there were no numbers.
    fn reach(&self) -> f32 {
        if self.has_numbers() { self.least.abs().max(self.greatest.abs()) } else { 0.0 }
    }
}

/// What outputs of some runs show, read as those of one family.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Shown {
    /// Scores of classes, objectness among them.
    pub scores: Span,
    /// Sides of boxes: pixels of the input, or parts of it.
    pub sides: Span,
    /// Boxes that count and may be boxes, of networks that pick theirs.
    pub found: usize,
    /// Boxes that count and are turned inside out, or whose class is no whole number.
    pub impossible: usize,
}

impl Shown {
    /// What both show.
    pub fn and(self, other: Self) -> Self {
        Self {
            scores: self.scores.and(other.scores),
            sides: self.sides.and(other.sides),
            found: self.found + other.found,
            impossible: self.impossible + other.impossible,
        }
    }
}

/// In what the sides of a family's boxes are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Pixels of the input.
    Pixels,
    /// Parts of the input.
    Parts,
}

/// Rounding in 8 or 16 bits may give this much more than 1, or less than 0.
const ROUNDING: f32 = 0.01;
/// Boxes of which no side is longer are parts of the picture and no pixels.
const LARGEST_PART: f32 = 2.0;
/// Networks that see noise may give boxes some times as large as their input, and more than these are no boxes.
const LARGEST_PARTS: f32 = 8.0;
const LARGEST_PIXELS: f32 = 64.0;

impl Unit {
    /// What in `shown` cannot be of a network that gives boxes in this unit for an input of size `input`, in words.
    pub(super) fn contradiction(self, shown: &Shown, input: (usize, usize)) -> Option<String> {
        let scores = shown.scores;
        if scores.has_numbers() && !scores.within(-ROUNDING, 1.0 + ROUNDING) {
            return Some(format!(
                "scores lie between {} and {}, expected 0 to 1",
                rounded(scores.least),
                rounded(scores.greatest)
            ));
        }
        let reach = shown.sides.reach();
        let (width, height) = input;
        let longest = width.max(height) as f32;
        match self {
            Self::Pixels if reach > 0.0 && reach <= LARGEST_PART => {
                return Some(format!(
                    "boxes reach to {}, expected pixels of an input of {width}x{height}",
                    rounded(reach)
                ));
            }
            Self::Pixels if reach > LARGEST_PIXELS * longest => {
                return Some(format!("boxes reach to {reach:.0} pixels of an input of {width}x{height}"));
            }
            Self::Parts if reach > LARGEST_PARTS => {
                return Some(format!("boxes reach to {}, expected parts of the input, 0 to 1", rounded(reach)));
            }
            _ => {}
        }
        (shown.impossible > 0)
            .then(|| format!("{} boxes are turned inside out, or their class is no whole number", shown.impossible))
    }
}

/// `number` with as many digits as matter to people.
fn rounded(number: f32) -> f32 {
    (number * 100.0).round() / 100.0
}

/// What rows `[four sides, scores…]` show, each `channels` long.
pub(super) fn rows(output: &Output<'_>, channels: usize) -> Shown {
    let rows = output.values.floats().chunks_exact(channels.max(5));
    rows.fold(Shown::default(), |shown, row| Shown {
        scores: shown.scores.and(Span::of(&row[4..])),
        sides: shown.sides.and(Span::of(&row[..4])),
        ..shown
    })
}
