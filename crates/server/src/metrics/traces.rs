//! What Prometheus reads of traces.

use std::fmt;

use caudal_telemetry::Counts;
use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

pub(crate) fn encode(encoder: &mut DescriptorEncoder<'_>, counts: Counts) -> fmt::Result {
    encoder
        .encode_descriptor(
            "caudal_otlp_spans_exported",
            "Spans that the collector has taken.",
            None,
            MetricType::Counter,
        )?
        .encode_counter::<NoLabelSet, _, u64>(&counts.exported, None)?;
    let mut family = encoder.encode_descriptor(
        "caudal_otlp_spans_dropped",
        "Spans that the collector has not, by why: no room to wait, it was away, it did not want them.",
        None,
        MetricType::Counter,
    )?;
    let reasons = [("queue_full", counts.queue_full), ("failed", counts.failed), ("rejected", counts.rejected)];
    for (reason, count) in reasons {
        family.encode_family(&[("reason", reason)])?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
    }
    Ok(())
}
