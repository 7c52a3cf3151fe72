//! Pipelines for people: an outline, a chart in Mermaid's language, and a picture drawn by ourselves.

mod chart;
mod outline;
mod picture;
mod plan;

pub use chart::mermaid;
pub use outline::explain;
pub use picture::svg;
