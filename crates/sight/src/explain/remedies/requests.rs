//! Remedies for limits of requests, connections and clients.

use std::collections::BTreeMap;

use caudal_types::{ErrorKind, Stage};

use super::{Context, Finding, SuggestedSetting, percent, restart_setting};
use crate::explain::{
    observation::{ModelStats, ThreadRole},
    scenario::Scenario,
};

/// The advice where no resource is used up.
const SPARE_CAPACITY_ADVICE: &str = "the server has room: to get more throughput, send more requests in parallel";

pub(super) fn raise_concurrency(context: &Context<'_>) -> Finding {
    let refused = context.failed_share(&[ErrorKind::TooManyRequests]);
    let limit = context.observation.connections.max_in_progress;
    let because = format!(
        "{} of the requests were refused because {limit} were in progress, while {} of the cores' time was left",
        percent(refused),
        context.idle_percent()
    );
    let evidence: &[&[_]] = &[&[("refused", refused), ("concurrency_limit", limit as f64)], &context.cpu_evidence()];
    Finding::new(because, evidence, "allow more requests in progress").with_setting(restart_setting(
        "concurrency_limit",
        limit as f64,
        (limit * 4).max(16),
    ))
}

pub(super) fn raise_connections(context: &Context<'_>) -> Finding {
    let connections = &context.observation.connections;
    let (open, limit) = (connections.open, connections.max_open);
    let because = format!("{open:.0} of {limit} connections were open: further clients wait to be accepted");
    let evidence: &[&[_]] = &[&[("open", open), ("max_connections", limit as f64)]];
    let advice = "allow more open connections, or have idle ones closed sooner (keep_alive_secs)";
    Finding::new(because, evidence, advice).with_setting(restart_setting("max_connections", limit as f64, limit * 4))
}

pub(super) fn extend_deadlines(context: &Context<'_>) -> Finding {
    let late = context.failed_share(&[ErrorKind::DeadlineExceeded, ErrorKind::DeadlineUnreachable]);
    let (timeout, run_ms) = (context.observation.connections.timeout, context.run_ms());
    let because = format!(
        "{} of the requests had less time than their work takes (a run takes {run_ms:.1} ms), without waiting for \
         anything",
        percent(late)
    );
    let evidence: &[&[_]] = &[&context.instance_evidence(), &[("late", late), ("request_timeout_ms", timeout * 1e3)]];
    Finding::new(because, evidence, "give them more time, or make the model faster").with_setting(SuggestedSetting {
        name: "request_timeout_ms",
        from: timeout * 1e3,
        to: (timeout * 4e3).max(8.0 * run_ms).ceil(),
        how: "request_timeout_ms in the settings, or timeout_ms of the request".into(),
        patch: None,
    })
}

pub(super) fn send_smaller_requests(context: &Context<'_>) -> Finding {
    let observation = context.observation;
    let share = context.stage_share(Stage::Receive);
    let busy = observation.thread_utilization(ThreadRole::Io);
    let receiving = observation.live.get(&Stage::Receive).copied().unwrap_or(0.0);
    let because = match observation.requests.is_empty() {
        true => format!("{receiving:.1} requests were on their way in, and none ended"),
        false => format!(
            "requests took {} of their time to arrive, while the threads that read them were busy for {} of it",
            percent(share),
            percent(busy)
        ),
    };
    let in_progress = observation.connections.in_progress;
    let evidence: &[&[_]] = &[&[("receive_share", share), ("io_busy", busy), ("in_progress", in_progress)]];
    let advice = "the clients, or the network to them, are slow: smaller images and a nearer client help; \
                  body_timeout_secs bounds pauses";
    Finding::new(because, evidence, advice).with_scenario(Scenario::FasterClients)
}

pub(super) fn reuse_connections(context: &Context<'_>) -> Finding {
    let (opened, requests) = (context.observation.connections.opened, context.observation.ended);
    let because = format!("{opened} connections were opened for {requests} requests: each costs more than the request");
    let evidence: &[&[_]] = &[&[("opened", opened as f64), ("requests", requests as f64)]];
    let advice = "let clients keep their connections open (a session or pool in their HTTP library)";
    Finding::new(because, evidence, advice)
}

pub(super) fn fix_requests(context: &Context<'_>) -> Finding {
    let mut codes: BTreeMap<&'static str, f64> = BTreeMap::new();
    for error in context.observation.requests.iter().filter_map(|record| record.error) {
        *codes.entry(error.code()).or_default() += 1.0;
    }
    let most = codes.iter().max_by(|a, b| a.1.total_cmp(b.1)).map_or("", |most| most.0);
    let because = format!("requests were refused as invalid, most often with {most}");
    let advice = "the response's message and hint say how to correct the request; GET /admin/requests?status=4xx lists \
                  them";
    let evidence: Vec<_> = codes.into_iter().collect();
    Finding::new(because, &[&evidence], advice)
}

pub(super) fn send_more_requests(context: &Context<'_>) -> Finding {
    let observation = context.observation;
    let busiest = observation.models.iter().map(ModelStats::utilization).fold(0.0, f64::max).min(1.0);
    let because = format!(
        "its instances were busy for {} of the time at most, and {} of the cores' time was left",
        percent(busiest),
        context.idle_percent()
    );
    let connections = &observation.connections;
    let evidence: &[&[_]] =
        &[&[("in_progress", connections.in_progress), ("open_connections", connections.open)], &context.cpu_evidence()];
    Finding::new(because, evidence, SPARE_CAPACITY_ADVICE).with_scenario(Scenario::MoreClients)
}
