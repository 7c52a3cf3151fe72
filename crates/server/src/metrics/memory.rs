//! What Prometheus reads of memory.

use std::fmt;

use caudal_memory::{MemoryMonitor, Scope};
use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

pub(crate) fn encode(encoder: &mut DescriptorEncoder<'_>, memory: &MemoryMonitor) -> fmt::Result {
    let reading = memory.current_reading();
    encoder
        .encode_descriptor(
            "caudal_memory_pressure",
            "How short memory is: 0 normal, 1 elevated, 2 high, 3 critical (new work is refused).",
            None,
            MetricType::Gauge,
        )?
        .encode_gauge(&(memory.level() as u64))?;
    let (cgroup, gpu) = (reading.cgroup.as_ref().map(|group| group.usage), reading.fullest_gpu().map(|gpu| gpu.usage));
    let usages = [(Scope::System, reading.system), (Scope::Cgroup, cgroup), (Scope::Gpu, gpu)];
    let known = || usages.iter().filter_map(|(scope, usage)| Some((scope.name(), (*usage)?)));
    let mut family = encoder.encode_descriptor(
        "caudal_memory_used_bytes",
        "Memory in use: of the machine, the process, the control group nearest to its limit, the fullest GPU.",
        None,
        MetricType::Gauge,
    )?;
    for (scope, bytes) in known().map(|(scope, usage)| (scope, usage.used)).chain([("process", reading.process)]) {
        family.encode_family(&[("scope", scope)])?.encode_gauge(&bytes)?;
    }
    let mut family =
        encoder.encode_descriptor("caudal_memory_limit_bytes", "Memory there is.", None, MetricType::Gauge)?;
    for (scope, usage) in known() {
        family.encode_family(&[("scope", scope)])?.encode_gauge(&usage.limit)?;
    }
    let mut family = encoder.encode_descriptor(
        "caudal_memory_alerts",
        "How often memory became so short.",
        None,
        MetricType::Counter,
    )?;
    for (level, count) in memory.alert_counts() {
        family.encode_family(&[("level", level.name())])?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
    }
    let hooks = memory.hook_stats();
    let mut family = encoder.encode_descriptor(
        "caudal_memory_cleanups",
        "How often each hook was asked to give memory back.",
        None,
        MetricType::Counter,
    )?;
    for hook in &hooks {
        family.encode_family(&[("hook", hook.name)])?.encode_counter::<NoLabelSet, _, u64>(&hook.runs, None)?;
    }
    let mut family = encoder.encode_descriptor(
        "caudal_memory_freed_bytes",
        "By how much the process shrank while each hook ran.",
        None,
        MetricType::Counter,
    )?;
    for hook in &hooks {
        family.encode_family(&[("hook", hook.name)])?.encode_counter::<NoLabelSet, _, u64>(&hook.freed_bytes, None)?;
    }
    Ok(())
}
