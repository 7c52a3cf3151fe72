//! Diagnostics: the flight recorder of the latest and slowest requests, ranked sections, bottlenecks, changes over
//! time, key figures, and the explanation of limits.

mod bottlenecks;
mod explain;
mod history;
mod kpis;
mod recorder;
mod table;
mod timeline;

pub use bottlenecks::{Bottleneck, Severity, find_bottlenecks};
pub use explain::{
    Cause, ConnectionStats, Explanation, Limit, ModelStats, Observation, ObservedSummary, Prediction, SettingPatch,
    SimulationFit, SuggestedSetting, ThreadRole, ThreadTimes, WhatIf, explain_observation,
};
pub use history::{ChangePoint, History, SectionChange, SpanStats};
pub use kpis::{Kpis, RouteTotals, SeriesPoint, WindowStats};
pub use recorder::{
    Capture, MAX_LATEST_PER_ROUTE, MAX_SLOWEST_PER_ROUTE, Recorder, RequestQuery, RequestRecord, RequestView, StageView,
};
pub use table::{SectionRow, SortOrder, rank_sections, rows_to_csv, rows_to_text};
pub use timeline::{arrival_trace, chrome_trace};
