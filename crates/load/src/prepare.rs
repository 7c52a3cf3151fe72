//! From what came once to what is sent again: each arrival gets a request, or a reason why it has none.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    Bodies, Control, Inputs, Limits, LoadError, OpenLoop, Recorded, Report, Request, Schedule, Skipped, Target, Trace,
    maker::Maker, open::open_loop_in_groups, report::Kind, routes::Routes, times::Times,
};

/// Speeds that make sense.
const SPEEDS: std::ops::RangeInclusive<f64> = 0.001..=1000.0;

/// A trace that is ready to be sent.
#[derive(Debug)]
pub struct Replay {
    target: Target,
    requests: Arc<[Request]>,
    schedule: Schedule,
    recorded: Recorded,
    routes: Routes,
    skipped: Vec<Skipped>,
    bodies: Bodies,
    warning: Option<String>,
}

/// Makes what is sent for each arrival of `trace`, `speed` times as fast: bodies are the files of `inputs` that are nearest
/// in size, and made up where there is none. Tensors made up need the model's shape, which `target` is asked for.
pub async fn prepare(trace: &Trace, target: Target, inputs: &Inputs, speed: f64) -> Result<Replay, LoadError> {
    if !SPEEDS.contains(&speed) {
        let bounds = format!("between {} and {}", SPEEDS.start(), SPEEDS.end());
        return Err(LoadError::bounds("the speed", speed, bounds));
    }
    let mut maker = Maker::new(&target, inputs, trace);
    let (mut schedule, mut times, mut statuses) = (Vec::new(), Times::default(), BTreeMap::new());
    let mut skipped: BTreeMap<(String, String), u64> = BTreeMap::new();
    let (mut first, mut last, mut routes) = (None, 0.0, Routes::default());
    for arrival in trace.arrivals() {
        let number = match maker.request(arrival).await? {
            Ok(number) => number,
            Err(reason) => {
                *skipped.entry((arrival.route.clone(), reason)).or_default() += 1;
                continue;
            }
        };
        let began = *first.get_or_insert(arrival.at_ms);
        last = arrival.at_ms - began;
        schedule.push((Duration::from_secs_f64(last / 1e3 / speed), number));
        routes.count(number, arrival);
        *statuses.entry(arrival.status).or_default() += 1;
        if arrival.status < 400 {
            times.record_ms(arrival.total_ms);
        }
    }
    let name = |((route, reason), requests)| Skipped { route, reason, requests };
    let skipped: Vec<Skipped> = skipped.into_iter().map(name).collect();
    if schedule.is_empty() {
        let reason = skipped.first().map(|skipped| format!("{}: {}", skipped.route, skipped.reason));
        return Err(LoadError::NothingToSend(reason.unwrap_or_default()));
    }
    let recorded = Recorded { statuses, total_ms: times.summary(), length_s: last / 1e3, speed };
    let (requests, bodies) = maker.finish();
    let (schedule, warning) = (Schedule::At(schedule), warning(trace));
    Ok(Replay { target, requests: requests.into(), schedule, recorded, routes, skipped, bodies, warning })
}

impl Replay {
    /// How many requests will be sent.
    pub fn requests(&self) -> u64 {
        self.schedule.requests()
    }

    /// How long that takes.
    pub fn duration(&self) -> Duration {
        self.schedule.duration()
    }

    /// Sends it, as [`open_loop`](crate::open_loop) does.
    pub async fn run(self, limits: Limits, control: Control) -> Result<Report, LoadError> {
        let (target, requests, schedule) = (self.target, self.requests, self.schedule);
        let config = OpenLoop { target, requests, schedule, warm_up: Duration::ZERO, limits };
        let groups: Arc<[usize]> = self.routes.of_requests().into();
        let (mut report, counted) = open_loop_in_groups(config, groups, control).await?;
        report.routes = self.routes.reports(&counted);
        report.kind = Kind::Replay;
        report.recorded = Some(self.recorded);
        report.skipped = self.skipped;
        report.bodies = Some(self.bodies);
        report.warnings.extend(self.warning);
        Ok(report)
    }
}

fn warning(trace: &Trace) -> Option<String> {
    let (route, began) = trace.forgotten()?;
    let left = (trace.length() - began).as_secs_f64();
    Some(format!(
        "{route} begins {:.1} s after the others: the server has probably forgotten what came before; only the last \
         {left:.1} s of the trace are the whole load",
        began.as_secs_f64()
    ))
}
