//! What reads the figures that all rooms leave: the latest and the slowest requests with where their time went, sections
//! ranked, bottlenecks named, and how it all changes with time.

mod bottlenecks;
mod explain;
mod history;
mod kpis;
mod recorder;
mod table;
mod timeline;

pub use bottlenecks::{Bottleneck, Severity, bottlenecks};
pub use explain::{
    Cause, Doors, Explanation, Fit, Limit, ModelSeen, Patch, Prediction, Role, Seen, Setting, Spent, Watched, WhatIf,
    explain,
};
pub use history::{Change, History, Mark, Trend};
pub use kpis::{Counted, Figures, Kpis, Point};
pub use recorder::{Kept, LATEST, Query, Record, Recorder, SLOWEST, Stretch, Watching};
pub use table::{Order, Row, csv, rows, text};
pub use timeline::{arrivals, chrome};
