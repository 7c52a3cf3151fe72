//! What Prometheus reads of pipelines: our names, and Flujo's.

use std::fmt;

use caudal_flow::{Count, Flows};
use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

/// How runs come to their end, for now or for good.
const STATUSES: [&str; 4] = ["completed", "failed", "paused", "cancelled"];

pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, flows: &Flows) -> fmt::Result {
    let mut counts = flows.counts();
    // Series exist before the first run, so that rate() sees it.
    for definition in flows.pipelines().filter(|definition| !definition.name.contains('#')) {
        for status in STATUSES {
            if !counts.iter().any(|(name, known, _)| *name == definition.name && *known == status) {
                counts.push((definition.name.clone(), status, Count::default()));
            }
        }
    }
    let mut family = |name: &str, help: &str, of: fn(&Count) -> f64| {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (pipeline, status, count) in &counts {
            let labels = [("pipeline", &**pipeline), ("status", *status)];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&of(count), None)?;
        }
        Ok(())
    };
    family("caudal_flow_runs", "Runs of pipelines that came to their end, for now or for good.", |count| {
        count.runs as f64
    })?;
    family("caudal_flow_steps", "Steps that these began.", |count| count.steps as f64)?;
    family("caudal_flow_run_seconds", "How long these took in all.", |count| count.seconds)?;
    family("caudal_flow_tokens", "Tokens that these spent.", |count| count.tokens as f64)?;
    family("caudal_flow_cost_usd", "US dollars that these spent.", |count| count.dollars)?;
    family("flujo_runs_by_status", "The runs, as Flujo calls them.", |count| count.runs as f64)?;
    let running = flows.running() as u64;
    let help = "Runs of pipelines that go on.";
    encoder.encode_descriptor("caudal_flow_running", help, None, MetricType::Gauge)?.encode_gauge(&running)?;
    let (bytes, answers) = (flows.engine().cache().size().1, flows.engine().cache().size().0);
    let help = "Bytes of answers of steps that are remembered.";
    encoder.encode_descriptor("caudal_flow_cache_bytes", help, None, MetricType::Gauge)?.encode_gauge(&bytes)?;
    let help = "Answers of steps that are remembered.";
    encoder.encode_descriptor("caudal_flow_cache_entries", help, None, MetricType::Gauge)?.encode_gauge(&answers)
}
