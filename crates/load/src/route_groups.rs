//! Results by route and model: recorded ones, and those of the replay.

use crate::{
    Arrival, RouteReport,
    latency::LatencyHistogram,
    stats::{GroupStats, MAX_GROUPS},
};

/// Groups of the replayed requests with the same route and model.
#[derive(Debug, Default)]
pub(crate) struct RouteGroups {
    /// Index in `all` by request number.
    group_of_request: Vec<usize>,
    all: Vec<RecordedRoute>,
}

/// Recorded results of one group.
#[derive(Debug)]
struct RecordedRoute {
    route: String,
    model: Option<String>,
    planned: u64,
    times: LatencyHistogram,
}

impl RouteGroups {
    /// The group of each request, by its number.
    pub(crate) fn groups_of_requests(&self) -> &[usize] {
        &self.group_of_request
    }

    /// Counts `arrival`, whose request has this number. New requests have consecutive numbers.
    pub(crate) fn count_arrival(&mut self, number: usize, arrival: &Arrival) {
        if number == self.group_of_request.len() {
            let place = self.all.iter().position(|one| one.route == arrival.route && one.model == arrival.model);
            let place = place.unwrap_or_else(|| self.add_group(arrival));
            self.group_of_request.push(place);
        }
        let Some(recorded) = self.all.get_mut(self.group_of_request[number]) else { return };
        recorded.planned += 1;
        if arrival.status < 400 {
            recorded.times.record_ms(arrival.total_ms);
        }
    }

    /// Adds a group and returns its index; `MAX_GROUPS`, which is not reported, if there are too many.
    fn add_group(&mut self, arrival: &Arrival) -> usize {
        if self.all.len() == MAX_GROUPS {
            return MAX_GROUPS;
        }
        let (route, model) = (arrival.route.clone(), arrival.model.clone());
        self.all.push(RecordedRoute { route, model, planned: 0, times: LatencyHistogram::default() });
        self.all.len() - 1
    }

    pub(crate) fn into_reports(self, counted: &[GroupStats]) -> Vec<RouteReport> {
        let report = |(number, recorded): (usize, RecordedRoute)| {
            let group = counted.get(number);
            RouteReport {
                route: recorded.route,
                model: recorded.model,
                planned: recorded.planned,
                failed: group.map_or(0, |group| group.failed),
                latency_ms: group.and_then(|group| group.latency.summary()),
                server_ms: group.and_then(|group| group.server.summary()),
                recorded_ms: recorded.times.summary(),
            }
        };
        self.all.into_iter().enumerate().map(report).collect()
    }
}
