//! The operators of a model, where a profile shows its runtime as one frame.
//!
//! A runtime tells its operators' times only of sessions that were opened for it, which serve nobody. So samples are not
//! laid on single operators: what was sampled in the runtime while it ran the model is shared out by what those runs took.

use caudal_profiler::{OperatorShare, OperatorShares, Profile, Stack};
use caudal_tasks::{OperatorProfile, ServedModel};

use crate::{admin::operators::watch, app::App, problem::Problem};

/// Runs that are timed.
const RUNS: usize = 20;
/// Bytes of a thread's name that the kernel keeps.
const KEPT: usize = 15;

/// The operators of one model.
pub(super) struct Operators {
    model: String,
    /// Whether no other model is loaded: then whatever the runtime does it does for this one.
    alone: bool,
    parts: OperatorShares,
}

impl Operators {
    /// Times those of `model`.
    pub(super) async fn of(app: &App, model: &str) -> Result<Self, Problem> {
        let served = app.catalog.get(model, None)?;
        let mut alone = true;
        for other in app.catalog.now().ready().filter(|other| other.name != served.name) {
            alone = false;
            if alike(&served, other) {
                return Err(Problem::parameter(
                    format!("the threads of {} and {} have the same names", served.name, other.name),
                    "give models names whose first 7 letters differ, or load one of the two alone",
                ));
            }
        }
        let (served, profile) = watch(app, model, RUNS).await?;
        Ok(Self { parts: parts(&served.name, profile), model: served.name.clone(), alone })
    }

    /// `profile` with the operators where the model ran.
    pub(super) fn put_into(self, profile: Profile) -> Profile {
        let Self { model, alone, parts } = self;
        parts
            .split_stacks(profile, |stack: &Stack| alone || stack.frames.first().is_some_and(|name| runs(name, &model)))
    }
}

/// Each operator by its kind and name.
fn parts(model: &str, profile: OperatorProfile) -> OperatorShares {
    let total = profile.total_us.max(1) as f64;
    let part = |operator: caudal_tasks::Operator| OperatorShare {
        frames: vec![operator.kind, operator.name],
        share: operator.total_us as f64 / total,
    };
    OperatorShares {
        title: format!("operators of {model}, each by its share of {} other runs", profile.runs),
        parts: profile.operators.into_iter().map(part).collect(),
        file: profile.library,
    }
}

/// Whether the thread `name` is one of those that run `model`: `infer-0-model`, cut by the kernel.
fn runs(name: &str, model: &str) -> bool {
    let rest = name.strip_prefix("infer-").and_then(|rest| rest.split_once('-')).map(|(_, rest)| rest);
    rest.is_some_and(|rest| rest == model || (name.len() == KEPT && model.starts_with(rest)))
}

/// Whether a thread of one may have the name of a thread of the other.
fn alike(one: &ServedModel, other: &ServedModel) -> bool {
    let most = one.plan().instances.max(other.plan().instances) + 1;
    let kept = KEPT.saturating_sub(format!("infer-{most}-").len());
    let cut = |name: &str| name.as_bytes()[..kept.min(name.len())].to_owned();
    cut(&one.name) == cut(&other.name) && one.name.len().min(other.name.len()) >= kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_known_by_what_the_kernel_keeps_of_their_names() {
        assert!(runs("infer-0-nanodet", "nanodet") && runs("infer-12-m", "m"));
        assert!(runs("infer-0-mobilen", "mobilenet-ssd"), "cut");
        assert!(!runs("infer-0-mob", "mobilenet-ssd"), "not cut: another model");
        assert!(!runs("infer-0-nanodet", "nano") && !runs("infer-pool", "pool") && !runs("io-0", "io"));
    }
}
