//! Remedies for limits of one model: instances, batches, its queue, blocked or failing runs.

use caudal_types::ErrorKind;

use super::{Context, Finding, percent};
use crate::explain::scenario::Scenario;

/// Runs per instance that may wait where requests should not wait long.
const SHORT_QUEUE_RUNS: usize = 8;

pub(super) fn add_instance(context: &Context<'_>) -> Finding {
    let model = context.model;
    let to = model.instances + 1;
    let all = if model.instances == 1 { "the instance" } else { "all instances" };
    let because = format!(
        "{all} of {} ran for {} of the time and requests waited {:.1} ms for one, while {} of the cores' time was left",
        model.name,
        percent(model.utilization()),
        context.queue_ms(),
        context.idle_percent()
    );
    let evidence: &[&[_]] = &[&context.instance_evidence(), &context.cpu_evidence()];
    Finding::new(because, evidence, format!("let {to} instances of {} run", model.name))
        .with_setting(context.live_setting("instances", model.instances as f64, to))
        .with_scenario(Scenario::Instances(context.index, to))
}

pub(super) fn raise_batch_size(context: &Context<'_>) -> Finding {
    let model = context.model;
    let to = (model.max_batch * 8).clamp(8, 64);
    let because = format!(
        "runs of {} had {:.1} rows and may have {}, with {:.0} more waiting; a run of two takes {} of two runs",
        model.name,
        model.mean_rows(),
        model.max_batch,
        model.waiting,
        percent(model.pair.unwrap_or(1.0))
    );
    let evidence: &[&[_]] =
        &[&context.instance_evidence(), &[("rows", model.mean_rows()), ("max_batch_size", model.max_batch as f64)]];
    Finding::new(because, evidence, format!("let {to} rows of {} run together", model.name))
        .with_setting(context.live_setting("batching.max_batch_size", model.max_batch as f64, to))
        .with_scenario(Scenario::Batch(context.index, to))
}

pub(super) fn remove_batch_delay(context: &Context<'_>) -> Finding {
    let model = context.model;
    let because = format!(
        "requests waited {:.1} ms for others to share a run of {} with ({:.1} came), while its instances ran for {} of \
         the time",
        context.queue_ms(),
        model.name,
        model.mean_rows(),
        percent(model.utilization())
    );
    let delay_ms = model.delay * 1e3;
    let evidence: &[&[_]] = &[&context.instance_evidence(), &[("delay_ms", delay_ms), ("rows", model.mean_rows())]];
    Finding::new(because, evidence, "run without a delay: under load batches form by themselves")
        .with_setting(context.live_setting("batching.max_queue_delay_ms", delay_ms, 0))
        .with_scenario(Scenario::NoDelay(context.index))
}

pub(super) fn lengthen_queue(context: &Context<'_>) -> Finding {
    let model = context.model;
    let refused = context.failed_share(&[ErrorKind::QueueFull, ErrorKind::QueueTimeout]);
    let to = (model.queue_limit * 8).max(16);
    let because = format!(
        "{} of the requests were refused for a full queue of {}, while the instances of {} ran for {} of the time",
        percent(refused),
        model.queue_limit,
        model.name,
        percent(model.utilization())
    );
    let limit = model.queue_limit as f64;
    let evidence: &[&[_]] = &[&context.instance_evidence(), &[("refused", refused), ("max_queue_size", limit)]];
    Finding::new(because, evidence, "allow a longer queue: bursts end before their requests are late")
        .with_setting(context.live_setting("batching.max_queue_size", limit, to))
        .with_scenario(Scenario::QueueLimit(context.index, to))
}

pub(super) fn shorten_queue(context: &Context<'_>) -> Finding {
    let model = context.model;
    let to = model.instances.max(1) * SHORT_QUEUE_RUNS;
    let because = format!(
        "requests waited {:.0} ms for runs of {:.1} ms: {:.0} wait at a time, and all cores are busy",
        context.queue_ms(),
        context.run_ms(),
        model.waiting
    );
    let limit = model.queue_limit as f64;
    let evidence: &[&[_]] = &[&context.instance_evidence(), &[("waiting", model.waiting), ("max_queue_size", limit)]];
    let advice = "allow a shorter queue: requests that cannot be answered in time are refused immediately, as many are \
                  answered, and sooner";
    Finding::new(because, evidence, advice)
        .with_setting(context.live_setting("batching.max_queue_size", limit, to))
        .with_scenario(Scenario::QueueLimit(context.index, to))
}

pub(super) fn find_blocking_operator(context: &Context<'_>) -> Finding {
    let blocked = context.observation.blocked_share(context.model);
    let because = format!(
        "for {} of the time of its runs {} was neither on a core nor ready for one: it waited for a lock, a device or a \
         disk",
        percent(blocked),
        context.model.name
    );
    let advice = "more instances will not help if it is a lock; GET /admin/models/{model}/operators shows which operator \
                  waits";
    Finding::new(because, &[&context.instance_evidence(), &[("blocked", blocked)]], advice)
        .with_scenario(Scenario::NotBlocked(context.index))
}

pub(super) fn find_failure(context: &Context<'_>) -> Finding {
    let failed = context.failed_share(&[
        ErrorKind::InferenceFailed,
        ErrorKind::Internal,
        ErrorKind::ModelNotReady,
        ErrorKind::LoadFailed,
    ]);
    let because = format!("{} of the requests failed in a model or because it is not ready", percent(failed));
    Finding::new(because, &[&[("failed", failed)]], "the server's log and `caudal models doctor` give the reason")
}
