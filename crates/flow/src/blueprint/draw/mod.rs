//! Pipelines for people: an outline, a chart in Mermaid's language, and one drawn by ourselves.

mod outline;

pub use outline::explain;
