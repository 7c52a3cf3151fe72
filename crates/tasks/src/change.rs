//! What may change of a model while it serves: the limits of its queue, its batches, its instances, its thresholds.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use caudal_batcher::{Policy, QueueTimeoutAction, QueueTimeouts};
use caudal_engine::repository::{self as settings, Batching, ModelSettings};
use caudal_types::Priority;
use caudal_vision::Thresholds;

use crate::{Catalog, ChangeError, Joining, RunPlan, ServedModel, Task, joining::Bench, load::try_joining};

/// Most instances that a model can be given while it serves.
const MAX_INSTANCES: usize = 1024;

impl Catalog {
    /// Changes of the model `name` what `text` says, in YAML or JSON with the keys of `model.yaml`, and nothing else. It
    /// holds from the next batch on, also when the model has rested meanwhile, until it is told to load or its files or
    /// settings change.
    pub fn change(&self, name: &str, text: &str) -> Result<Arc<ServedModel>, ChangeError> {
        let asked = ModelSettings::parse(text, "the body")?;
        let model = self.get(name, None)?;
        model.change(&asked).map_err(|reason| ChangeError::Change { model: model.name.clone(), reason })?;
        tracing::info!(model = model.name, change = text, "model changed");
        Ok(model)
    }
}

impl ServedModel {
    /// What was changed of it since it was loaded.
    pub(crate) fn changes(&self) -> Option<ModelSettings> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over what `asked` says, all of it or nothing.
    pub(crate) fn change(&self, asked: &ModelSettings) -> Result<(), String> {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        let ModelSettings { thresholds, batching, instances, .. } = asked.clone();
        let rest =
            ModelSettings { thresholds: <_>::default(), batching: <_>::default(), instances: None, ..asked.clone() };
        if rest != ModelSettings::default() {
            return Err("only thresholds, batching and instances may change while it serves".to_owned());
        }
        if batching.preserve_ordering.is_some() {
            return Err("batching.preserve_ordering holds from the first request on".to_owned());
        }
        if batching.join_rows.is_some() {
            return Err("batching.join_rows holds from the load on".to_owned());
        }
        if batching.max_batch_size.is_some_and(|size| size > 1) {
            self.prepare_joining()?;
        }
        if self.plan().ragged.is_none() && batching.max_batch_tokens.is_some() {
            return Err("batching.max_batch_tokens is for models that take texts".to_owned());
        }
        if instances.is_some_and(|count| count > MAX_INSTANCES) {
            return Err(format!("instances is at most {MAX_INSTANCES}"));
        }
        let thresholds = self.changed_thresholds(&thresholds)?;
        let mut policy = self.queue.policy();
        policy.change(&batching);
        // What may fail comes first, so that all of it happens or nothing.
        let count = instances.unwrap_or(self.queue.depth().instances);
        let plan = self.plan();
        let more = (0..self.queue.missing_instances(count))
            .map(|_| self.model.create_instance(plan.threads))
            .collect::<Result<_, _>>();
        let more = more.map_err(|error| error.to_string())?;
        self.queue.resize_instances(count, more).map_err(|error| error.to_string())?;
        self.plan.store(Arc::new(RunPlan {
            instances: count,
            max_batch_size: policy.max_batch_size,
            max_request_rows: batching.max_batch_size.filter(|_| self.joined).unwrap_or(plan.max_request_rows),
            ..plan
        }));
        self.queue.set_policy(policy);
        if let (Task::See(model), Some(thresholds)) = (&self.task, thresholds) {
            model.set_thresholds(thresholds);
        }
        changed.get_or_insert_default().override_with(asked);
        Ok(())
    }

    /// Makes sure that rows may be joined; tries it where that was not worth it when the model was loaded.
    fn prepare_joining(&self) -> Result<(), String> {
        let mut joining = self.joining();
        if *joining == Joining::Untried {
            let mut instance = self.model.create_instance(self.plan().threads).map_err(|error| error.to_string())?;
            let bench = Bench { spec: &self.spec, limit: self.run_limit };
            joining = Arc::new(try_joining(&bench, &mut *instance, &self.task, self.measured.one_row));
            self.joining.store(Arc::clone(&joining));
        }
        match &*joining {
            Joining::Apart(reason) => {
                Err(format!("rows of several requests are not joined, so batching.max_batch_size is 1: {reason}"))
            }
            _ => Ok(()),
        }
    }

    fn changed_thresholds(&self, asked: &settings::Thresholds) -> Result<Option<Thresholds>, String> {
        match &self.task {
            _ if *asked == settings::Thresholds::default() => Ok(None),
            Task::See(model) => {
                let now = model.thresholds();
                Ok(Some(Thresholds {
                    conf: asked.conf.unwrap_or(now.conf),
                    iou: asked.iou.unwrap_or(now.iou),
                    max_det: asked.max_det.unwrap_or(now.max_det),
                }))
            }
            _ => Err("it has no thresholds".to_owned()),
        }
    }
}

/// Policies say what settings say.
pub(crate) trait Change {
    /// Takes over what `asked` says, and leaves the rest.
    fn change(&mut self, asked: &Batching);
}

impl Change for Policy {
    fn change(&mut self, asked: &Batching) {
        let ms = |ms: f64| Duration::from_secs_f64(ms / 1e3);
        self.max_batch_size = asked.max_batch_size.unwrap_or(self.max_batch_size);
        self.max_queue_delay = asked.max_queue_delay_ms.map_or(self.max_queue_delay, ms);
        self.max_queue_size = asked.max_queue_size.unwrap_or(self.max_queue_size);
        self.max_queue_bytes = asked.max_queue_mb.map_or(self.max_queue_bytes, |mb| mb << 20);
        if let (Some(ragged), Some(tokens)) = (&mut self.ragged, asked.max_batch_tokens) {
            ragged.max_batch_tokens = tokens;
        }
        if !asked.preferred_batch_size.is_empty() {
            self.preferred_batch_sizes.clone_from(&asked.preferred_batch_size);
            self.preferred_batch_sizes.sort_unstable();
        }
        for (priority, own) in Priority::ALL.into_iter().zip(&mut self.by_priority) {
            let asked = asked.queue_policy.for_priority(priority);
            *own = QueueTimeouts {
                max_queue_size: asked.max_queue_size.or(own.max_queue_size),
                timeout: asked.timeout_ms.map(ms).or(own.timeout),
                then: match asked.timeout_action {
                    Some(settings::TimeoutAction::Reject) => QueueTimeoutAction::Reject,
                    Some(settings::TimeoutAction::Delay) => QueueTimeoutAction::Delay,
                    None => own.then,
                },
            };
        }
    }
}
