//! The plan of a replay: each recorded arrival gets a request, or a reason why it is skipped.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    ArrivalTrace, BodyCounts, Control, Inputs, Limits, LoadError, OpenLoop, RecordedLoad, Report, Request, Schedule,
    SkippedArrivals, Target, latency::LatencyHistogram, open_loop::open_loop_in_groups, report::LoadKind,
    request_factory::RequestFactory, route_groups::RouteGroups,
};

/// Allowed speeds.
const SPEED_RANGE: std::ops::RangeInclusive<f64> = 0.001..=1000.0;

/// A trace that is ready to be replayed.
#[derive(Debug)]
pub struct ReplayPlan {
    target: Target,
    requests: Arc<[Request]>,
    schedule: Schedule,
    recorded: RecordedLoad,
    routes: RouteGroups,
    skipped: Vec<SkippedArrivals>,
    bodies: BodyCounts,
    warning: Option<String>,
}

/// Plans the replay of `trace` at `speed`. Bodies are the files of `inputs` nearest in size, or synthetic where there
/// is none. Synthetic tensors need the model's input shapes, which are fetched from `target`.
pub async fn plan_replay(
    trace: &ArrivalTrace,
    target: Target,
    inputs: &Inputs,
    speed: f64,
) -> Result<ReplayPlan, LoadError> {
    if !SPEED_RANGE.contains(&speed) {
        let bounds = format!("between {} and {}", SPEED_RANGE.start(), SPEED_RANGE.end());
        return Err(LoadError::out_of_bounds("the speed", speed, bounds));
    }
    let mut factory = RequestFactory::new(&target, inputs, trace);
    let (mut schedule, mut times, mut statuses) = (Vec::new(), LatencyHistogram::default(), BTreeMap::new());
    let mut skipped: BTreeMap<(String, String), u64> = BTreeMap::new();
    let (mut first, mut last, mut routes) = (None, 0.0, RouteGroups::default());
    for arrival in trace.arrivals() {
        let number = match factory.request_number(arrival).await? {
            Ok(number) => number,
            Err(reason) => {
                *skipped.entry((arrival.route.clone(), reason)).or_default() += 1;
                continue;
            }
        };
        let began = *first.get_or_insert(arrival.at_ms);
        last = arrival.at_ms - began;
        schedule.push((Duration::from_secs_f64(last / 1e3 / speed), number));
        routes.count_arrival(number, arrival);
        *statuses.entry(arrival.status).or_default() += 1;
        if arrival.status < 400 {
            times.record_ms(arrival.total_ms);
        }
    }
    let name = |((route, reason), requests)| SkippedArrivals { route, reason, requests };
    let skipped: Vec<SkippedArrivals> = skipped.into_iter().map(name).collect();
    if schedule.is_empty() {
        let reason = skipped.first().map(|skipped| format!("{}: {}", skipped.route, skipped.reason));
        return Err(LoadError::NothingToSend(reason.unwrap_or_default()));
    }
    let recorded = RecordedLoad { statuses, total_ms: times.summary(), length_s: last / 1e3, speed };
    let (requests, bodies) = factory.into_requests();
    let (schedule, warning) = (Schedule::At(schedule), truncation_warning(trace));
    Ok(ReplayPlan { target, requests: requests.into(), schedule, recorded, routes, skipped, bodies, warning })
}

impl ReplayPlan {
    /// Number of requests.
    pub fn request_count(&self) -> u64 {
        self.schedule.request_count()
    }

    /// Duration of the replay.
    pub fn duration(&self) -> Duration {
        self.schedule.duration()
    }

    /// Sends the requests, as [`open_loop`](crate::open_loop) does.
    pub async fn run(self, limits: Limits, control: Control) -> Result<Report, LoadError> {
        let (target, requests, schedule) = (self.target, self.requests, self.schedule);
        let config = OpenLoop { target, requests, schedule, warm_up: Duration::ZERO, limits };
        let groups: Arc<[usize]> = self.routes.groups_of_requests().into();
        let (mut report, counted) = open_loop_in_groups(config, groups, control).await?;
        report.routes = self.routes.into_reports(&counted);
        report.kind = LoadKind::Replay;
        report.recorded = Some(self.recorded);
        report.skipped = self.skipped;
        report.bodies = Some(self.bodies);
        report.warnings.extend(self.warning);
        Ok(report)
    }
}

fn truncation_warning(trace: &ArrivalTrace) -> Option<String> {
    let (route, began) = trace.truncated_route()?;
    let left = (trace.duration() - began).as_secs_f64();
    Some(format!(
        "{route} begins {:.1} s after the other routes: the server has probably dropped its earlier requests; only the \
         last {left:.1} s of the trace contain the whole load",
        began.as_secs_f64()
    ))
}
