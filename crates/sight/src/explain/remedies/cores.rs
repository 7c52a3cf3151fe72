//! Remedies for limits of the cores: saturation, other programs, quotas, too many threads.

use super::{Context, Finding, SuggestedSetting, percent};
use crate::explain::{observation::ThreadRole, scenario::Scenario};

pub(super) fn reduce_work(context: &Context<'_>) -> Finding {
    let observation = context.observation;
    let because = format!(
        "the server's own work took {} of the {} cores, and {} of the time in which a run could have continued it waited \
         for one",
        percent(observation.own_cpu_share()),
        observation.cores,
        percent(observation.cpu_wait_share(ThreadRole::Infer))
    );
    let advice =
        "make the work cheaper (caudal models optimize tries faster versions of a model), or give it more cores";
    Finding::new(because, &[&context.cpu_evidence()], advice).with_scenario(one_core_more(context))
}

pub(super) fn move_other_programs(context: &Context<'_>) -> Finding {
    let because = format!(
        "other programs of this machine took {} of the cores' time, the server {}",
        percent(context.observation.other_cpu_share()),
        percent(context.observation.own_cpu_share())
    );
    let advice = "move them elsewhere, or give the server a higher weight (nice, CPU shares of its control group)";
    Finding::new(because, &[&context.cpu_evidence()], advice).with_scenario(Scenario::NoOtherPrograms)
}

pub(super) fn raise_quota(context: &Context<'_>) -> Finding {
    let throttled = context.observation.throttled;
    let because = format!("the kernel throttled the server in {} of the periods of its CPU quota", percent(throttled));
    let advice = "raise the quota (limits.cpu in Kubernetes, --cpus of docker)";
    Finding::new(because, &[&[("throttled", throttled)], &context.cpu_evidence()], advice)
        .with_scenario(one_core_more(context))
}

pub(super) fn reduce_threads(context: &Context<'_>) -> Finding {
    let observation = context.observation;
    let models = observation.models.iter().enumerate();
    let largest = models.max_by_key(|(_, model)| model.instances * model.threads);
    let (index, model) = largest.unwrap_or((0, context.model));
    let (name, from, to, scenario) = match model.threads > 1 {
        true => ("threads", model.threads, 1, Scenario::Threads(index, 1)),
        false => {
            let to = (observation.cores as usize).max(1);
            ("instances", model.instances, to, Scenario::Instances(index, to))
        }
    };
    let because = format!(
        "{} runs {} instances of {} threads on {} cores: {} of the time in which they could have continued they waited \
         for one",
        model.name,
        model.instances,
        model.threads,
        observation.cores,
        percent(observation.cpu_wait_share(ThreadRole::Infer))
    );
    let advice =
        "let no more threads run than there are cores; without these settings the run plan chooses their numbers";
    let how = format!("{name}: {to} in model.yaml of {}", model.name);
    Finding::new(because, &[&context.cpu_evidence()], advice)
        .with_setting(SuggestedSetting { name, from: from as f64, to: to as f64, how, patch: None })
        .with_scenario(scenario)
}

fn one_core_more(context: &Context<'_>) -> Scenario {
    Scenario::Cores(context.observation.cores + 1.0)
}
