//! What can be done about memory, in words, with the figures and the setting that would help.

use crate::{
    level::Level,
    policy::Policy,
    reading::{Reading, Scope, Use},
};

/// Somebody within the process who holds memory, or may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// What is held: "models", "uploads".
    pub what: &'static str,
    /// Bytes that are held now.
    pub held: u64,
    /// Of these, bytes that nobody has asked for in a while.
    pub idle: u64,
    /// Most bytes that may be; none where nothing bounds them.
    pub most: Option<u64>,
    /// The setting that bounds them.
    pub setting: &'static str,
    /// The setting that lets go what is idle, if there is one that is not set.
    pub idle_setting: Option<&'static str>,
}

/// A process that holds less of what is used than this share is not the one to be cleaned up.
const OWN_SHARE: f64 = 0.25;

const MIB: u64 = 1 << 20;

/// What can be done, most helpful first.
pub(crate) fn advise(reading: &Reading, level: Level, policy: &Policy, holders: &[Holder]) -> Vec<String> {
    let mut advice = Vec::new();
    if let Some((scope, usage)) = reading.tightest() {
        let is_short = usage.percent() >= policy.cleanup.min(policy.alert);
        if is_short {
            advice.push(room(reading, scope, usage));
            advice.extend(holders.iter().filter_map(|holder| bound(holder, usage, policy)));
        }
        advice.extend(holders.iter().filter_map(|holder| idle(holder, is_short)));
        advice.extend(may_not_fit(usage, holders));
    }
    let full = reading.fullest_gpu().filter(|gpu| gpu.usage.percent() >= policy.gpu_alert);
    advice.extend(full.map(|gpu| {
        format!(
            "{} is {:.0} % full ({} of {} MiB): give models there fewer instances, or let those asked least run on the \
             processor (`providers: cpu` in their model.yaml)",
            gpu.name,
            gpu.usage.percent(),
            gpu.usage.used / MIB,
            gpu.usage.limit / MIB
        )
    }));
    if level >= Level::Elevated && !policy.auto_cleanup {
        advice
            .push("nothing is given back by itself: set memory_auto_cleanup, or POST /admin/memory/cleanup".to_owned());
    }
    advice
}

/// Who it is that takes the room.
fn room(reading: &Reading, scope: Scope, usage: Use) -> String {
    let figures = format!("{} of {} MiB ({:.0} %)", usage.used / MIB, usage.limit / MIB, usage.percent());
    let own = reading.process / MIB;
    let is_own = reading.process as f64 >= usage.used as f64 * OWN_SHARE;
    match (scope, is_own) {
        (Scope::Cgroup, true) => {
            let path = reading.cgroup.as_ref().map_or("", |group| &group.path);
            format!(
                "the control group {path} uses {figures}, this process {own} MiB of it: raise its limit (docker run \
                 --memory, resources.limits.memory in Kubernetes, MemoryMax in systemd), or hold less"
            )
        }
        (_, true) => format!("the machine uses {figures}, this process {own} MiB of it: hold less, or add memory"),
        (_, false) => format!(
            "others use most of the memory that is gone: {figures}, of which this process holds {own} MiB. To clean up \
             here helps little: move them away, or give this server a machine or a control group of its own"
        ),
    }
}

/// A bound for what has none: what it holds now, less what is used above the step at which cleaning up begins.
fn bound(holder: &Holder, usage: Use, policy: &Policy) -> Option<String> {
    let above = usage.used.saturating_sub((usage.limit as f64 * policy.cleanup / 100.0) as u64);
    let mib = holder.held.saturating_sub(above) / MIB;
    (holder.most.is_none() && holder.held > 0 && mib > 0).then(|| {
        format!(
            "{} hold {} MiB and nothing bounds them: {}={mib} would keep memory below {:.0} %",
            holder.what,
            holder.held / MIB,
            holder.setting,
            policy.cleanup
        )
    })
}

fn idle(holder: &Holder, is_short: bool) -> Option<String> {
    let setting = holder.idle_setting.filter(|_| is_short && holder.idle >= MIB)?;
    let mib = holder.idle / MIB;
    Some(format!("{mib} MiB of {} that nobody has asked for lately: {setting} lets them go by themselves", holder.what))
}

/// What requests may take is taken in a burst, before any watch can see it: so it must fit beside what is used already.
fn may_not_fit(usage: Use, holders: &[Holder]) -> Option<String> {
    let bounded = || holders.iter().filter_map(|holder| Some((holder, holder.most?.saturating_sub(holder.held))));
    let more: u64 = bounded().map(|(_, more)| more).sum();
    let largest = bounded().max_by_key(|(_, more)| *more)?.0;
    (more > usage.free()).then(|| {
        let settings: Vec<&str> = bounded().map(|(holder, _)| holder.setting).collect();
        format!(
            "{} let this process take {} MiB more, and {} MiB are left: lower them, {} first, or use the preset low-memory",
            settings.join(", "),
            more / MIB,
            usage.free() / MIB,
            largest.setting
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{Gpu, Group};

    fn reading(used: u64, limit: u64, process: u64) -> Reading {
        let usage = Use { used: used * MIB, limit: limit * MIB };
        Reading {
            system: Some(Use { used: MIB, limit: 1 << 40 }),
            process: process * MIB,
            cgroup: Some(Group { path: "/box".to_owned(), usage }),
            gpus: Vec::new(),
        }
    }

    fn models(held: u64, most: Option<u64>, idle: u64) -> Holder {
        Holder {
            what: "models",
            held: held * MIB,
            idle: idle * MIB,
            most: most.map(|most| most * MIB),
            setting: "model_memory_mb",
            idle_setting: Some("idle_unload_secs"),
        }
    }

    fn uploads(most: u64) -> Holder {
        let setting = "max_body_memory_mb";
        Holder { what: "uploads", held: 0, idle: 0, most: Some(most * MIB), setting, idle_setting: None }
    }

    fn check(reading: &Reading, holders: &[Holder], expected: &[&str]) {
        let advice = advise(reading, Level::Normal, &Policy::default(), holders);
        assert_eq!(advice.len(), expected.len(), "{advice:#?}");
        for (line, words) in advice.iter().zip(expected) {
            assert!(line.contains(words), "{words:?} is not in {line:?}");
        }
    }

    #[test]
    fn who_has_room_needs_no_advice() {
        check(&reading(100, 1000, 90), &[models(50, None, 50), uploads(256)], &[]);
    }

    #[test]
    fn who_has_little_gets_the_setting_that_helps_with_its_value() {
        check(
            &reading(900, 1000, 800),
            &[models(500, None, 40)],
            &["/box uses 900 of 1000 MiB (90 %)", "model_memory_mb=400", "40 MiB of models"],
        );
        check(&reading(900, 1000, 800), &[models(50, None, 0)], &["raise its limit"]);
    }

    #[test]
    fn who_is_not_to_blame_is_told_so() {
        check(&reading(900, 1000, 100), &[], &["others use most"]);
    }

    #[test]
    fn what_may_come_in_a_burst_must_fit() {
        check(&reading(300, 500, 100), &[uploads(100)], &[]);
        check(
            &reading(300, 500, 100),
            &[uploads(256)],
            &["max_body_memory_mb let this process take 256 MiB more, and 200"],
        );
    }

    #[test]
    fn a_full_gpu_is_named() {
        let usage = Use { used: 900 * MIB, limit: 1000 * MIB };
        let gpus = vec![Gpu { name: "H200".to_owned(), usage }];
        check(&Reading { gpus, ..reading(1, 1000, 1) }, &[], &["H200 is 90 % full"]);
    }
}
