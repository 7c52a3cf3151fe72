//! Boxes, and what was found in them.

/// A rectangle, corners in pixels with fractions; `x1 <= x2` and `y1 <= y2`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub struct BoxF {
    pub x1: f32,
    pub y1: f32,
    pub x2: f32,
    pub y2: f32,
}

impl BoxF {
    /// The box around `(cx, cy)`.
    pub fn around(cx: f32, cy: f32, width: f32, height: f32) -> Self {
        Self { x1: cx - width / 2.0, y1: cy - height / 2.0, x2: cx + width / 2.0, y2: cy + height / 2.0 }
    }

    /// Its area; 0 for a box turned inside out.
    pub fn area(&self) -> f32 {
        (self.x2 - self.x1).max(0.0) * (self.y2 - self.y1).max(0.0)
    }

    /// Intersection over union with `other`, 0 to 1.
    pub fn iou(&self, other: &Self) -> f32 {
        let width = self.x2.min(other.x2) - self.x1.max(other.x1);
        let height = self.y2.min(other.y2) - self.y1.max(other.y1);
        if width <= 0.0 || height <= 0.0 {
            return 0.0;
        }
        let shared = width * height;
        shared / (self.area() + other.area() - shared)
    }
}

/// Something found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    /// Where.
    pub rect: BoxF,
    /// How sure the model is, 0 to 1.
    pub confidence: f32,
    /// Which class.
    pub class_id: usize,
}
