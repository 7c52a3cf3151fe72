//! Recommendations against memory pressure, with figures and the setting to change.

use crate::{
    level::Level,
    policy::Policy,
    reading::{MemoryUsage, Reading, Scope},
};

/// A part of the process that uses memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryConsumer {
    /// Kind of the memory, such as "models" or "uploads".
    pub what: &'static str,
    /// Bytes in use now.
    pub held: u64,
    /// Bytes in use that were not needed recently.
    pub idle: u64,
    /// Maximum bytes; `None` without a limit.
    pub limit: Option<u64>,
    /// Setting of the limit.
    pub setting: &'static str,
    /// Setting that frees idle memory; `None` if it is set or there is none.
    pub idle_setting: Option<&'static str>,
}

/// Share of the used memory below which this process is not the cause.
const MIN_OWN_SHARE: f64 = 0.25;

const BYTES_PER_MIB: u64 = 1 << 20;

/// Recommended actions, most helpful first.
pub(crate) fn recommend_actions(
    reading: &Reading,
    level: Level,
    policy: &Policy,
    consumers: &[MemoryConsumer],
) -> Vec<String> {
    let mut advice = Vec::new();
    if let Some((scope, usage)) = reading.tightest_limit() {
        let is_short = usage.percent() >= policy.cleanup.min(policy.alert);
        if is_short {
            advice.push(describe_shortage(reading, scope, usage));
            advice.extend(consumers.iter().filter_map(|consumer| recommend_limit(consumer, usage, policy)));
        }
        advice.extend(consumers.iter().filter_map(|consumer| recommend_idle_unload(consumer, is_short)));
        advice.extend(recommend_lower_limits(usage, consumers));
    }
    let full = reading.fullest_gpu().filter(|gpu| gpu.usage.percent() >= policy.gpu_alert);
    advice.extend(full.map(|gpu| {
        format!(
            "{} is {:.0} % full ({} of {} MiB): configure fewer instances of its models, or run rarely used ones on \
             the CPU (`providers: cpu` in their model.yaml)",
            gpu.name,
            gpu.usage.percent(),
            gpu.usage.used / BYTES_PER_MIB,
            gpu.usage.limit / BYTES_PER_MIB
        )
    }));
    if level >= Level::Elevated && !policy.auto_cleanup {
        advice.push(
            "memory is not freed automatically: set memory_auto_cleanup, or POST /admin/memory/cleanup".to_owned(),
        );
    }
    advice
}

/// Describes which limit is nearly reached, and whether this process is the cause.
fn describe_shortage(reading: &Reading, scope: Scope, usage: MemoryUsage) -> String {
    let figures =
        format!("{} of {} MiB ({:.0} %)", usage.used / BYTES_PER_MIB, usage.limit / BYTES_PER_MIB, usage.percent());
    let own = reading.process / BYTES_PER_MIB;
    let is_own = reading.process as f64 >= usage.used as f64 * MIN_OWN_SHARE;
    match (scope, is_own) {
        (Scope::Cgroup, true) => {
            let path = reading.cgroup.as_ref().map_or("", |group| &group.path);
            format!(
                "the control group {path} uses {figures}, of which {own} MiB by this process: raise its limit (docker \
                 run --memory, resources.limits.memory in Kubernetes, MemoryMax in systemd), or lower memory use"
            )
        }
        (_, true) => {
            format!("the machine uses {figures}, of which {own} MiB by this process: lower memory use, or add memory")
        }
        (_, false) => format!(
            "other processes use most of the memory: {figures}, of which {own} MiB by this process. Cleaning up here \
             helps little: move them to another machine, or give this server a machine or a control group of its own"
        ),
    }
}

/// Recommends a limit for unlimited memory: its current use, less what is used above the cleanup threshold.
fn recommend_limit(consumer: &MemoryConsumer, usage: MemoryUsage, policy: &Policy) -> Option<String> {
    let above = usage.used.saturating_sub((usage.limit as f64 * policy.cleanup / 100.0) as u64);
    let mib = consumer.held.saturating_sub(above) / BYTES_PER_MIB;
    (consumer.limit.is_none() && consumer.held > 0 && mib > 0).then(|| {
        format!(
            "{} use {} MiB without a limit: {}={mib} would keep memory below {:.0} %",
            consumer.what,
            consumer.held / BYTES_PER_MIB,
            consumer.setting,
            policy.cleanup
        )
    })
}

fn recommend_idle_unload(consumer: &MemoryConsumer, is_short: bool) -> Option<String> {
    let setting = consumer.idle_setting.filter(|_| is_short && consumer.idle >= BYTES_PER_MIB)?;
    let mib = consumer.idle / BYTES_PER_MIB;
    Some(format!("{mib} MiB of {} were not used recently: {setting} frees them automatically", consumer.what))
}

/// Recommends lower limits if their sum does not fit: a burst of requests can reach them before the next reading.
fn recommend_lower_limits(usage: MemoryUsage, consumers: &[MemoryConsumer]) -> Option<String> {
    let bounded =
        || consumers.iter().filter_map(|consumer| Some((consumer, consumer.limit?.saturating_sub(consumer.held))));
    let more: u64 = bounded().map(|(_, more)| more).sum();
    let largest = bounded().max_by_key(|(_, more)| *more)?.0;
    (more > usage.free_bytes()).then(|| {
        let settings: Vec<&str> = bounded().map(|(consumer, _)| consumer.setting).collect();
        format!(
            "{} allow this process {} MiB more, and {} MiB are free: lower them, {} first, or use the preset \
             low-memory",
            settings.join(", "),
            more / BYTES_PER_MIB,
            usage.free_bytes() / BYTES_PER_MIB,
            largest.setting
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{CgroupUsage, Gpu};

    fn reading(used: u64, limit: u64, process: u64) -> Reading {
        let usage = MemoryUsage { used: used * BYTES_PER_MIB, limit: limit * BYTES_PER_MIB };
        Reading {
            system: Some(MemoryUsage { used: BYTES_PER_MIB, limit: 1 << 40 }),
            process: process * BYTES_PER_MIB,
            cgroup: Some(CgroupUsage { path: "/box".to_owned(), usage }),
            gpus: Vec::new(),
        }
    }

    fn models(held: u64, limit: Option<u64>, idle: u64) -> MemoryConsumer {
        MemoryConsumer {
            what: "models",
            held: held * BYTES_PER_MIB,
            idle: idle * BYTES_PER_MIB,
            limit: limit.map(|limit| limit * BYTES_PER_MIB),
            setting: "model_memory_mb",
            idle_setting: Some("idle_unload_secs"),
        }
    }

    fn uploads(limit: u64) -> MemoryConsumer {
        let setting = "max_body_memory_mb";
        MemoryConsumer {
            what: "uploads",
            held: 0,
            idle: 0,
            limit: Some(limit * BYTES_PER_MIB),
            setting,
            idle_setting: None,
        }
    }

    fn check(reading: &Reading, consumers: &[MemoryConsumer], expected: &[&str]) {
        let advice = recommend_actions(reading, Level::Normal, &Policy::default(), consumers);
        assert_eq!(advice.len(), expected.len(), "{advice:#?}");
        for (line, words) in advice.iter().zip(expected) {
            assert!(line.contains(words), "{words:?} is not in {line:?}");
        }
    }

    #[test]
    fn recommendations_are_empty_with_enough_memory() {
        check(&reading(100, 1000, 90), &[models(50, None, 50), uploads(256)], &[]);
    }

    #[test]
    fn recommendations_name_the_setting_and_its_value() {
        check(
            &reading(900, 1000, 800),
            &[models(500, None, 40)],
            &["/box uses 900 of 1000 MiB (90 %)", "model_memory_mb=400", "40 MiB of models"],
        );
        check(&reading(900, 1000, 800), &[models(50, None, 0)], &["raise its limit"]);
    }

    #[test]
    fn recommendations_name_other_processes_as_the_cause() {
        check(&reading(900, 1000, 100), &[], &["other processes use most"]);
    }

    #[test]
    fn recommendations_include_limits_that_do_not_fit() {
        check(&reading(300, 500, 100), &[uploads(100)], &[]);
        check(
            &reading(300, 500, 100),
            &[uploads(256)],
            &["max_body_memory_mb allow this process 256 MiB more, and 200"],
        );
    }

    #[test]
    fn recommendations_name_a_full_gpu() {
        let usage = MemoryUsage { used: 900 * BYTES_PER_MIB, limit: 1000 * BYTES_PER_MIB };
        let gpus = vec![Gpu { name: "H200".to_owned(), usage }];
        check(&Reading { gpus, ..reading(1, 1000, 1) }, &[], &["H200 is 90 % full"]);
    }
}
