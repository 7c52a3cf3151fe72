//! What Prometheus reads of the process, by the names that its client libraries give, and of the processor's quota.

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

use crate::process;

pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    encoder
        .encode_descriptor("process_cpu", "CPU time so far.", Some(&Unit::Seconds), MetricType::Counter)?
        .encode_counter::<NoLabelSet, _, u64>(&process::cpu_time().as_secs_f64(), None)?;
    let process = process::State::now();
    let gauges = [
        ("process_resident_memory_bytes", "Resident memory.", process.resident),
        ("process_virtual_memory_bytes", "Virtual memory.", process.virtual_memory),
        ("process_threads", "Threads.", process.threads),
        ("process_open_fds", "Open files and connections.", process.open_files),
        ("process_max_fds", "Files and connections that may be open.", process.max_files),
        ("process_start_time_seconds", "When the process started, in seconds since 1970.", process.started),
    ];
    for (name, help, value) in gauges.into_iter().filter_map(|(name, help, value)| Some((name, help, value?))) {
        encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
    }
    let Some(quota) = caudal_memory::Throttling::read_current() else { return Ok(()) };
    encoder
        .encode_descriptor("caudal_cpu_periods", "Periods of the CPU quota.", None, MetricType::Counter)?
        .encode_counter::<NoLabelSet, _, u64>(&quota.periods, None)?;
    encoder
        .encode_descriptor(
            "caudal_cpu_throttled_periods",
            "Periods in which the quota was used up and the kernel held the process back.",
            None,
            MetricType::Counter,
        )?
        .encode_counter::<NoLabelSet, _, u64>(&quota.throttled, None)?;
    encoder
        .encode_descriptor(
            "caudal_cpu_throttled",
            "Time for which threads were held back.",
            Some(&Unit::Seconds),
            MetricType::Counter,
        )?
        .encode_counter::<NoLabelSet, _, u64>(&quota.throttled_time.as_secs_f64(), None)
}
