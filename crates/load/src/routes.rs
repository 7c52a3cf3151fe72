//! What a trace recorded of each route and model, and what came of it this time.

use crate::{
    Arrival, RouteReport,
    tally::{Group, MOST_GROUPS},
    times::Times,
};

/// Routes and models of the requests that are sent.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    /// Which of `all` each request belongs to, by its number.
    of_request: Vec<usize>,
    all: Vec<Recording>,
}

/// What was recorded of one of them.
#[derive(Debug)]
struct Recording {
    route: String,
    model: Option<String>,
    planned: u64,
    times: Times,
}

impl Routes {
    /// The place of each request among routes, by its number.
    pub(crate) fn of_requests(&self) -> &[usize] {
        &self.of_request
    }

    /// Counts `arrival`, whose request has this number. New requests have the next number each.
    pub(crate) fn count(&mut self, number: usize, arrival: &Arrival) {
        if number == self.of_request.len() {
            let place = self.all.iter().position(|one| one.route == arrival.route && one.model == arrival.model);
            let place = place.unwrap_or_else(|| self.add(arrival));
            self.of_request.push(place);
        }
        let Some(recording) = self.all.get_mut(self.of_request[number]) else { return };
        recording.planned += 1;
        if arrival.status < 400 {
            recording.times.record_ms(arrival.total_ms);
        }
    }

    /// The place of a new one; one that nobody looks at, if there are too many.
    fn add(&mut self, arrival: &Arrival) -> usize {
        if self.all.len() == MOST_GROUPS {
            return MOST_GROUPS;
        }
        let (route, model) = (arrival.route.clone(), arrival.model.clone());
        self.all.push(Recording { route, model, planned: 0, times: Times::default() });
        self.all.len() - 1
    }

    pub(crate) fn reports(self, counted: &[Group]) -> Vec<RouteReport> {
        let report = |(number, recording): (usize, Recording)| {
            let group = counted.get(number);
            RouteReport {
                route: recording.route,
                model: recording.model,
                planned: recording.planned,
                failed: group.map_or(0, |group| group.failed),
                latency_ms: group.and_then(|group| group.latency.summary()),
                server_ms: group.and_then(|group| group.server.summary()),
                recorded_ms: recording.times.summary(),
            }
        };
        self.all.into_iter().enumerate().map(report).collect()
    }
}
