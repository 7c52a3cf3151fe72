//! Remedies for limits of decode and io threads.

use super::{Context, Finding, percent, restart_setting};
use crate::explain::{
    observation::{ThreadRole, ThreadTimes},
    scenario::Scenario,
};

pub(super) fn add_decode_thread(context: &Context<'_>) -> Finding {
    let ThreadTimes { threads, .. } = context.observation.thread_times(ThreadRole::Decode);
    let waiting = context.observation.decoding;
    let busy = context.observation.thread_utilization(ThreadRole::Decode);
    let to = threads + 1;
    let because = format!(
        "{threads} decode threads were busy for {} of the time, {waiting:.1} images waited for one, and {} of the cores' \
         time was left",
        percent(busy),
        context.idle_percent()
    );
    let evidence: &[&[_]] =
        &[&[("decode_threads", threads as f64), ("busy", busy), ("waiting", waiting)], &context.cpu_evidence()];
    Finding::new(because, evidence, format!("decode with {to} threads, or send smaller images"))
        .with_setting(restart_setting("decode_threads", threads as f64, to))
        .with_scenario(Scenario::Decoders(to))
}

pub(super) fn add_io_thread(context: &Context<'_>) -> Finding {
    let ThreadTimes { threads, .. } = context.observation.thread_times(ThreadRole::Io);
    let busy = context.observation.thread_utilization(ThreadRole::Io);
    let to = threads + 1;
    let because = format!(
        "{threads} io threads were busy for {} of the time, and {} of the cores' time was left",
        percent(busy),
        context.idle_percent()
    );
    let evidence: &[&[_]] = &[&[("io_threads", threads as f64), ("busy", busy)], &context.cpu_evidence()];
    Finding::new(because, evidence, format!("serve sockets with {to} io threads"))
        .with_setting(restart_setting("io_threads", threads as f64, to))
        .with_scenario(Scenario::Io(to))
}

pub(super) fn find_blocking_code(context: &Context<'_>) -> Finding {
    let blocked = context.observation.connections.blocked;
    let because =
        format!("an io thread did not get to its next task for {} of the time: something blocks it", percent(blocked));
    let busy = context.observation.thread_utilization(ThreadRole::Io);
    let advice = "GET /debug/pprof/flamegraph shows what runs under io-0, io-1, …; a model that runs there in place and \
                  takes longer than it did at start is one reason: reload it";
    Finding::new(because, &[&[("blocked", blocked), ("io_busy", busy)]], advice)
}
