//! What dashboards made for Triton read: its names, labels and units. Values never go down, as counters do, but in
//! OpenMetrics a counter's name ends in `_total`, which Triton's do not: so their type is left open.

use std::{fmt, sync::atomic::Ordering::Relaxed};

use caudal_tasks::{Models, QueueStats, ServedModel};
use prometheus_client::{encoding::DescriptorEncoder, metrics::MetricType};

type Value = fn(&ServedModel) -> u64;

/// Each name with what it means and where its value is found.
const METRICS: [(&str, &str, Value); 9] = [
    ("nv_inference_request_success", "Requests that were answered.", |model| stats(model).answered.load(Relaxed)),
    ("nv_inference_count", "Rows that were inferred.", |model| stats(model).batch_rows.snapshot().sum()),
    ("nv_inference_exec_count", "Runs of the model.", |model| stats(model).infer.snapshot().count()),
    ("nv_inference_request_duration_us", "Time of answered requests.", |model| micros(&stats(model).spent.whole)),
    ("nv_inference_queue_duration_us", "Time that these waited for a run.", |model| {
        stats(model).waited.snapshot().sum() / 1000
    }),
    ("nv_inference_compute_input_duration_us", "Time in which their rows were put together.", |model| {
        micros(&stats(model).spent.prepare)
    }),
    ("nv_inference_compute_infer_duration_us", "Time in which their model ran.", |model| {
        micros(&stats(model).spent.infer)
    }),
    ("nv_inference_compute_output_duration_us", "Time in which answers were made of outputs.", |model| {
        micros(&stats(model).spent.finish)
    }),
    ("nv_inference_pending_request_count", "Requests that wait for a run.", |model| model.queue.depth().entries as u64),
];

fn stats(model: &ServedModel) -> &QueueStats {
    model.queue.stats()
}

fn micros(nanos: &std::sync::atomic::AtomicU64) -> u64 {
    nanos.load(Relaxed) / 1000
}

pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, models: &Models) -> fmt::Result {
    for (name, help, value) in METRICS {
        let kind = if name.ends_with("pending_request_count") { MetricType::Gauge } else { MetricType::Unknown };
        let mut family = encoder.encode_descriptor(name, help, None, kind)?;
        for model in models.ready() {
            let labels = [("model", &model.name[..]), ("version", &model.version.to_string())];
            family.encode_family(&labels)?.encode_gauge(&value(model))?;
        }
    }
    let mut family = encoder.encode_descriptor(
        "nv_inference_request_failure",
        "Requests that were not answered, by why.",
        None,
        MetricType::Unknown,
    )?;
    for model in models.ready() {
        let stats = stats(model);
        let reasons = [
            ("REJECTED", &[&stats.refused_full, &stats.refused_deadline, &stats.expired][..]),
            ("CANCELED", &[&stats.abandoned, &stats.withdrawn]),
            ("BACKEND", &[&stats.failed]),
            ("OTHER", &[&stats.late]),
        ];
        for (reason, counts) in reasons {
            let labels = [("model", &model.name[..]), ("version", &model.version.to_string()), ("reason", reason)];
            let count: u64 = counts.iter().map(|count| count.load(Relaxed)).sum();
            family.encode_family(&labels)?.encode_gauge(&count)?;
        }
    }
    Ok(())
}
