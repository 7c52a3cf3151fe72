//! Scenarios: changes of a server that the simulation predicts.

use super::{observation::Observation, queueing_model::QueueingModel};

/// A change of a queueing model. The first number is the model's index.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scenario {
    Instances(usize, usize),
    Threads(usize, usize),
    Batch(usize, usize),
    NoDelay(usize),
    QueueLimit(usize, usize),
    NotBlocked(usize),
    FasterRuns(usize),
    Decoders(usize),
    FasterDecode,
    Io(usize),
    Cores(f64),
    NoOtherPrograms,
    FasterClients,
    /// Twice as many clients, or requests.
    MoreClients,
}

impl Scenario {
    /// `model` with this change; none if the model has no such part.
    pub(crate) fn apply_to(self, model: &QueueingModel) -> Option<QueueingModel> {
        let mut changed = model.clone();
        match self {
            Self::Instances(index, count) => changed.models.get_mut(index)?.instances = count,
            Self::Threads(index, count) => changed.models.get_mut(index)?.threads = count,
            Self::Batch(index, rows) => changed.models.get_mut(index)?.max_batch = rows,
            Self::NoDelay(index) => changed.models.get_mut(index)?.delay = 0.0,
            Self::QueueLimit(index, limit) => changed.models.get_mut(index)?.queue_limit = limit,
            Self::NotBlocked(index) => {
                let station = changed.models.get_mut(index)?;
                (station.blocked, station.locked) = (0.0, false);
            }
            Self::FasterRuns(index) => {
                let station = changed.models.get_mut(index).filter(|station| station.row + station.run > 0.0)?;
                (station.row, station.run) = (station.row / 2.0, station.run / 2.0);
            }
            Self::Decoders(threads) => changed.decoders = threads,
            Self::FasterDecode => {
                if changed.demands.iter().all(|demand| demand.decode <= 0.0) {
                    return None;
                }
                changed.demands.iter_mut().for_each(|demand| demand.decode /= 2.0);
            }
            Self::Io(threads) => changed.io = threads,
            Self::Cores(cores) => changed.cores = cores,
            Self::NoOtherPrograms => changed.others = 0.0,
            Self::MoreClients => changed.clients = changed.clients.doubled(),
            Self::FasterClients => changed.demands.iter_mut().for_each(|demand| demand.receive = 0.0),
        }
        Some(changed)
    }
}

/// Scenarios that are predicted whatever the limit is, each with its description.
pub(crate) fn standard_scenarios(observation: &Observation) -> Vec<(String, Scenario)> {
    let mut scenarios = vec![("decoding twice as fast".to_owned(), Scenario::FasterDecode)];
    let models = observation.models.iter().enumerate();
    for (index, model) in models.filter(|(_, model)| model.runs > 0 && !model.in_place) {
        scenarios.push((format!("runs of {} twice as fast", model.name), Scenario::FasterRuns(index)));
        scenarios
            .push((format!("one instance of {} more", model.name), Scenario::Instances(index, model.instances + 1)));
    }
    scenarios.push(("one core more".to_owned(), Scenario::Cores(observation.cores + 1.0)));
    scenarios
}
