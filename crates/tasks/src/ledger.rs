//! What each model costs and how much it is asked for: which one to let go when memory is short.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use crate::{Models, ServedModel};

/// After so long what was asked counts half.
const HALF_LIFE: Duration = Duration::from_secs(600);

/// What is known of all models that have served.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    records: BTreeMap<String, Record>,
    read: Option<Instant>,
}

#[derive(Debug)]
struct Record {
    /// Most bytes that it was found to hold.
    bytes: u64,
    /// How often it was asked, lately more than long ago.
    asked: f64,
    /// Answers of the model that serves when they were last counted.
    answers: u64,
    used: Instant,
}

impl Ledger {
    /// Reads what the models that serve have done since the last time. Requests themselves pay nothing for it.
    pub(crate) fn read(&mut self, models: &Models, now: Instant) {
        let since = self.read.replace(now).map_or(Duration::ZERO, |read| now.saturating_duration_since(read));
        let fade = 0.5f64.powf(since.as_secs_f64() / HALF_LIFE.as_secs_f64());
        self.records.values_mut().for_each(|record| record.asked *= fade);
        for model in models.ready() {
            let answers = answers(model);
            let Some(record) = self.records.get_mut(&model.name) else { continue };
            if answers > record.answers || model.queue.depth().entries > 0 {
                record.used = now;
            }
            record.asked += answers.saturating_sub(record.answers) as f64;
            record.answers = answers;
        }
    }

    /// Takes `model` in, which has just been loaded.
    pub(crate) fn loaded(&mut self, model: &ServedModel, now: Instant) {
        let new = Record { bytes: 0, asked: 0.0, answers: 0, used: now };
        let record = self.records.entry(model.name.clone()).or_insert(new);
        // Memory that another model gave back and this one took does not show as growth.
        record.bytes = record.bytes.max(model.memory.bytes());
        (record.answers, record.used) = (0, now);
    }

    /// What the model `name` was found to hold, if it has ever served.
    pub(crate) fn bytes(&self, name: &str) -> Option<u64> {
        Some(self.records.get(name)?.bytes)
    }

    /// What all models that serve hold but the one called `name`.
    pub(crate) fn held(&self, models: &Models, name: &str) -> u64 {
        models.ready().filter(|model| model.name != name).filter_map(|model| self.bytes(&model.name)).sum()
    }

    /// The model to let go for the sake of the one called `name`: one that nobody waits for if there is such a one; of
    /// these the one that is asked least for what it holds.
    pub(crate) fn least(&self, models: &Models, name: &str) -> Option<Arc<ServedModel>> {
        let worth = |model: &ServedModel| {
            let depth = model.queue.depth();
            let busy = depth.entries + depth.busy_instances > 0;
            let record = self.records.get(&model.name);
            (busy, record.map_or(0.0, |record| record.asked / record.bytes.max(1) as f64))
        };
        let others = models.ready().filter(|model| model.name != name).map(|model| (worth(model), model));
        let least = others.min_by(|((a_busy, a), _), ((b_busy, b), _)| a_busy.cmp(b_busy).then(a.total_cmp(b)));
        least.map(|(_, model)| Arc::clone(model))
    }

    /// The models that serve, have nothing to do and have not been asked for `idle`.
    pub(crate) fn idle(&self, models: &Models, idle: Duration, now: Instant) -> Vec<Arc<ServedModel>> {
        let rests = |model: &&Arc<ServedModel>| {
            let depth = model.queue.depth();
            depth.entries + depth.busy_instances == 0
                && self
                    .records
                    .get(&model.name)
                    .is_some_and(|record| now.saturating_duration_since(record.used) >= idle)
        };
        models.ready().filter(rests).cloned().collect()
    }
}

fn answers(model: &ServedModel) -> u64 {
    let stats = model.queue.stats();
    stats.answered.load(Relaxed) + stats.failed.load(Relaxed)
}
