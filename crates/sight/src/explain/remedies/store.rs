//! Remedies for limits of the event store.

use caudal_types::Stage;

use super::{Context, Finding, percent};
use crate::explain::observation::ThreadRole;

pub(super) fn share_flushes(context: &Context<'_>) -> Finding {
    let share = context.stage_share(Stage::Persist);
    let because = format!("events waited for {} of their time until they were on disk", percent(share));
    let busy = context.observation.thread_utilization(ThreadRole::Io);
    let advice = "more events at a time share a flush: let more clients append concurrently, or append in batches or \
                  streams; else use a disk that flushes faster";
    Finding::new(because, &[&[("persist_share", share), ("io_busy", busy)]], advice)
}

pub(super) fn read_less(context: &Context<'_>) -> Finding {
    let observation = context.observation;
    let share = context.stage_share(Stage::Store);
    let reads = observation.requests.iter().filter(|record| !record.stamps.spent(Stage::Store).is_zero()).count();
    let store_ms = observation.stage_seconds(Stage::Store) * 1e3 / reads.max(1) as f64;
    let reading = match observation.requests.is_empty() {
        true => "requests were reading consultations, and none ended".to_owned(),
        false => {
            format!("requests spent {} of their time on reading consultations ({store_ms:.1} ms each)", percent(share))
        }
    };
    let because = format!("{reading}, while {} of the cores' time was left", context.idle_percent());
    let evidence: &[&[_]] = &[&[("store_share", share), ("store_ms", store_ms)], &context.cpu_evidence()];
    let advice = "read less at a time (limit and after), replay states from more frequent snapshots \
                  (record_snapshot_every), and see GET /metrics for the slowest statements (caudal_store_slowest_seconds)";
    Finding::new(because, evidence, advice)
}
