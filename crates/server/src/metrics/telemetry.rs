//! What Prometheus reads of what collectors are told.

use std::fmt;

use caudal_telemetry::ExportCounts;
use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

/// Writes what became of `what`: spans, or points of metrics.
pub(crate) fn encode(encoder: &mut DescriptorEncoder<'_>, what: &str, counts: ExportCounts) -> fmt::Result {
    let (name, help) = (format!("caudal_otlp_{what}_exported"), format!("What the collector has taken of {what}."));
    encoder
        .encode_descriptor(&name, &help, None, MetricType::Counter)?
        .encode_counter::<NoLabelSet, _, u64>(&counts.exported, None)?;
    let name = format!("caudal_otlp_{what}_dropped");
    let help = "What it has not, by why: no room to wait, it was away, it did not want them.";
    let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
    let reasons = [("queue_full", counts.queue_full), ("failed", counts.failed), ("rejected", counts.rejected)];
    for (reason, count) in reasons {
        family.encode_family(&[("reason", reason)])?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
    }
    Ok(())
}
