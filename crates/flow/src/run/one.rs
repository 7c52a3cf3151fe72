//! A step from its beginning to its end, with all that may be said about how.

use std::{borrow::Cow, sync::Arc, time::Instant};

use caudal_types::Deadline;
use futures_util::future::BoxFuture;

use super::{Scope, State, Stop, Went, end, kinds, leaf, states};
use crate::{
    budget::{Quota, Usage},
    error::{Fault, StepError},
    journal::{Done, Journal},
    live::Live,
    log::{Label, Place, What},
    paths,
    step::{Check, Kind, Policy, Retry, Step},
    value::{Map, Value},
    view::View,
};

/// Runs a step.
pub(super) fn one<'a>(live: &'a Arc<Live>, step: &'a Step, around: &'a Scope, state: State) -> BoxFuture<'a, Went> {
    Box::pin(async move {
        live.may_go_on()?;
        let place = live.log.begin(around.place, step.label.clone(), step.kind.name(), state.moment);
        let went = within(live, step, around, place, state).await;
        end(live, place, &went);
        match went {
            Ok(state) if matches!(step.kind, Kind::Human(_)) => states::answered(live, around, state),
            went => went,
        }
    })
}

async fn within(live: &Arc<Live>, step: &Step, around: &Scope, place: Place, state: State) -> Went {
    let fail = |error: StepError| Stop::failed(Arc::clone(&step.name), error);
    if let Some(quota) = &around.quota {
        quota.step().map_err(|refusal| fail(refusal.into()))?;
    }
    let scope = around.at(place);
    let Some(policy) = &step.policy else { return kept(live, step, &Policy::default(), &scope, state).await };
    if policy.background {
        return crate::engine::in_background(live, step, &scope, state).await;
    }
    let scope = limited(policy, scope);
    let given = State { value: given(policy, live, place, &state).map_err(fail)?, ..state.clone() };
    let went = match kept(live, step, policy, &scope, given.clone()).await {
        Err(Stop::Failed(failed)) => match &policy.fallback {
            Some(fallback) => {
                live.log.set_feedback(place, failed.1.message.to_string().into());
                one(live, &instead(step, fallback), &scope, given).await
            }
            None => Err(Stop::Failed(failed)),
        },
        went => went,
    }?;
    let state = taken(policy, went).map_err(fail)?;
    holds(policy, live, place, &state).map_err(fail)?;
    Ok(state)
}

/// What is done instead of `step`, under a name that no step within that has: its answer is none of theirs.
fn instead<'a>(step: &Step, fallback: &'a Step) -> Cow<'a, Step> {
    let bare = Step { policy: None, ..step.clone() };
    if matches!(step.kind, Kind::Act(_)) || !bare.any(&|within| within.name == fallback.name) {
        return Cow::Borrowed(fallback);
    }
    Cow::Owned(Step { label: Label::Name(format!("{}#fallback", fallback.name).into()), ..fallback.clone() })
}

/// Narrows what the step may spend.
fn limited(policy: &Policy, scope: Scope) -> Scope {
    if policy.limits.none() {
        return scope;
    }
    Scope { quota: Some(Quota::new(policy.limits, scope.quota.clone())), ..scope }
}

/// What the step is given.
fn given(policy: &Policy, live: &Live, place: Place, state: &State) -> Result<Value, StepError> {
    let Some(rule) = &policy.input else { return Ok(state.value.clone()) };
    let value = rule.value(&view(live, place, state))?;
    value.check_bounds()?;
    Ok(value)
}

/// What formulas see at a place.
pub(super) fn view<'a>(live: &'a Live, place: Place, state: &'a State) -> View<'a> {
    View { output: &state.value, context: &state.context, log: Some((&live.log, place)), resumed: None }
}

/// Puts the step's output where it is wanted in the context.
fn taken(policy: &Policy, mut state: State) -> Result<State, StepError> {
    if policy.updates_context {
        let plain = state.value.plain().map_err(|error| StepError::new(Fault::Output, error.to_string()))?;
        let Value::Map(changes) = plain else {
            let message = format!("it updates the context and gave {}, not an object", state.value.sort());
            return Err(StepError::new(Fault::Output, message).hint("give an object, or use sink_to").for_good());
        };
        if policy.known_names {
            known(&changes, &state.context)?;
        }
        state.context = state.context.merged(&changes);
    }
    if let Some(sink) = &policy.sink {
        state.context = paths::set(&state.context, sink, state.value.clone());
    }
    Ok(state)
}

/// Refuses changes of what is not in the context.
fn known(changes: &Map, context: &Map) -> Result<(), StepError> {
    let Some((name, _)) = changes.iter().find(|(name, _)| context.get(name).is_none()) else { return Ok(()) };
    let message = format!("it sets context.{}, which is not there", caudal_types::shorten(name));
    let hint = match caudal_types::nearest(name, context.iter().map(|(name, _)| &**name)) {
        Some(near) => format!("did you mean {near}? Else set it before, or take validate_fields out"),
        None => "set it before, or take validate_fields out".to_owned(),
    };
    Err(StepError::new(Fault::Output, message).hint(hint).for_good())
}

/// Looks whether all holds that must.
fn holds(policy: &Policy, live: &Live, place: Place, state: &State) -> Result<(), StepError> {
    let view = view(live, place, state);
    for rule in &policy.invariants {
        let hint = "mend the step, or the rule in static_invariants";
        let broken = |why: String| StepError::failed(why).hint(hint).for_good();
        let value = rule.value(&view).map_err(|error| broken(format!("an invariant cannot be looked at: {error}")))?;
        if !value.truthy() {
            let rule = rule.identity();
            let source = rule.as_list().and_then(<[Value]>::first).unwrap_or(&rule);
            let source = source.as_text().map_or_else(|| source.to_json(), str::to_owned);
            return Err(broken(format!("the invariant `{}` does not hold", caudal_types::shorten(&source))));
        }
    }
    Ok(())
}

/// Does it, unless the journal knows what came of it; and keeps what comes of it before anything else begins.
async fn kept(live: &Arc<Live>, step: &Step, policy: &Policy, scope: &Scope, given: State) -> Went {
    if live.journal.is_none() {
        return tries(live, step, policy, scope, given).await;
    }
    if !matches!(step.kind, Kind::Act(_)) {
        return timely(live, step, policy, scope, given).await;
    }
    if let Some(done) = recalled(live, scope.place) {
        return done_before(live, step, scope, given, done);
    }
    if live.journal.as_ref().is_some_and(Journal::replays) {
        let message = "the record of the run does not tell what came of it";
        let error = StepError::failed(message).hint("a run is replayed as far as it came; resume it to go on");
        return Err(Stop::failed(Arc::clone(&step.name), error.for_good()));
    }
    let went = tries(live, step, policy, scope, given).await;
    match &went {
        Ok(state) => commit(live, scope.place, Ok(&state.value), false).await?,
        Err(Stop::Failed(failed)) => commit(live, scope.place, Err(&failed.1), false).await?,
        Err(_) => {}
    }
    went
}

/// Does what has steps within, of which each is kept by itself. That it took too long follows from none of them, so it is
/// kept too: what goes on without it must go on without it after a crash.
async fn timely(live: &Arc<Live>, step: &Step, policy: &Policy, scope: &Scope, given: State) -> Went {
    if let Some(mut done) = recalled(live, scope.place).filter(|done| done.answer.is_err()) {
        done.usage += spent_before(live, step, policy, scope, None);
        return done_before(live, step, scope, given, done);
    }
    let went = tries(live, step, policy, scope, given).await;
    if let Err(Stop::Failed(failed)) = &went
        && failed.1.fault == Fault::TimedOut
        && policy.timeout.is_some()
    {
        commit(live, scope.place, Err(&failed.1), false).await?;
    }
    went
}

/// What was spent before within a try that is not gone through again, or in all of them.
fn spent_before(live: &Live, step: &Step, policy: &Policy, scope: &Scope, attempt: Option<u32>) -> Usage {
    let Some(journal) = &live.journal else { return Usage::NONE };
    let instead = policy.fallback.as_ref().map(|fallback| instead(step, fallback).label.clone());
    let is_instead = |name: &str| matches!(&instead, Some(Label::Name(label)) if **label == *name);
    journal.spent_within(&live.path(scope.place), |name| match attempt {
        None => !is_instead(name),
        Some(1) => !is_instead(name) && !name.starts_with("try "),
        Some(attempt) => name == format!("try {attempt}"),
    })
}

/// Where it is kept that a try of what has steps within took too long: the next one is made after a crash, too.
fn late(live: &Live, step: &Step, scope: &Scope, attempt: u32) -> Option<String> {
    let kept = live.journal.is_some() && !matches!(step.kind, Kind::Act(_));
    kept.then(|| format!("{}/try {attempt}", live.path(scope.place)))
}

/// Tries it as often as it may be tried.
async fn tries(live: &Arc<Live>, step: &Step, policy: &Policy, scope: &Scope, given: State) -> Went {
    if let Some(check) = &policy.takes {
        check.check(&given.value).map_err(|wrong| {
            let error = StepError::input(format!("its input does not fit: {wrong}")).for_good();
            Stop::failed(Arc::clone(&step.name), error)
        })?;
    }
    let mut attempt = 1;
    loop {
        let mut failed = match tried(live, step, policy, scope, given.clone(), attempt).await {
            Err(Stop::Failed(failed)) => failed,
            went => return went,
        };
        let error = &mut failed.1;
        if !error.again || attempt > policy.retry.more {
            return Err(Stop::Failed(failed));
        }
        let longest = policy.retry.longest;
        if let Some(after) = error.after.filter(|after| *after > longest) {
            let told = format!("it asks to be asked again after {after:?}, and retry_longest_s allows {longest:?}");
            error.hint = format!("{told}: raise that, or start the run later").into();
            return Err(Stop::Failed(failed));
        }
        let wait = pause(&policy.retry, attempt, error);
        if let Some(moment) = scope.deadline.moment()
            && Instant::now() + wait >= moment
        {
            return Err(Stop::Failed(failed));
        }
        // Whoever was not reached has nothing to mend.
        if error.fault == Fault::Output {
            live.log.set_feedback(scope.place, error.message.to_string().into());
        }
        live.log.tell(scope.place, || What::Retried { error: error.clone(), wait });
        tokio::time::sleep(wait).await;
        attempt += 1;
        live.log.note(scope.place, |entry| entry.attempts = attempt);
    }
}

/// How long to wait before the next try: at least as long as the other side asks for.
fn pause(retry: &Retry, attempt: u32, error: &StepError) -> std::time::Duration {
    let most = retry.wait.saturating_mul(1u32.checked_shl(attempt - 1).unwrap_or(u32::MAX)).min(retry.longest);
    let wait = if retry.jitter { most.mul_f64(fastrand::f64()) } else { most };
    error.after.map_or(wait, |after| after.max(wait)).min(retry.longest)
}

/// Tries it once, within its time.
async fn tried(live: &Arc<Live>, step: &Step, policy: &Policy, scope: &Scope, given: State, attempt: u32) -> Went {
    let Some(timeout) = policy.timeout else { return once(live, step, policy, scope, given, attempt).await };
    let late = late(live, step, scope, attempt);
    let known = |path: &String| live.journal.as_ref()?.recall(path).filter(|done| done.answer.is_err());
    if let Some(mut done) = late.as_ref().and_then(known) {
        done.usage += spent_before(live, step, policy, scope, Some(attempt));
        let went = done_before(live, step, scope, given, done);
        live.log.note(scope.place, |entry| entry.recalled = false);
        return went;
    }
    let ends = Instant::now() + timeout;
    let scope = Scope { deadline: scope.deadline.sooner(Deadline::at(ends)), ..scope.clone() };
    match tokio::time::timeout_at(ends.into(), once(live, step, policy, &scope, given, attempt)).await {
        Ok(went) => went,
        Err(_) => {
            live.log.abandon(scope.place);
            let message = format!("it took longer than {timeout:?}");
            let error = StepError::new(Fault::TimedOut, message).hint("raise timeout_s, or make the step quicker");
            if let (Some(path), Some(journal), true) = (late, &live.journal, attempt <= policy.retry.more) {
                let (at, took) = (live.log.since_1970(live.log.now().saturating_sub(timeout)), timeout);
                let answer = Err(error.clone());
                journal
                    .commit(&path, Done { answer, usage: Usage::NONE, attempts: 1, cached: false, at, took })
                    .await?;
            }
            Err(Stop::failed(Arc::clone(&step.name), error))
        }
    }
}

async fn once(live: &Arc<Live>, step: &Step, policy: &Policy, scope: &Scope, given: State, attempt: u32) -> Went {
    let state = match &step.kind {
        Kind::Act(action) => {
            let answer = leaf::act(live, &**action, scope, &given, attempt).await;
            let value = answer.map_err(|error| Stop::failed(Arc::clone(&step.name), error))?;
            State { value, moment: live.log.now(), ..given }
        }
        // What a second try does within is not what the first did: it has a place of its own.
        _ if attempt > 1 => {
            let label = Label::Name(format!("try {attempt}").into());
            let place = live.log.begin(scope.place, label, "attempt", live.log.now());
            let went = kinds::run(live, step, &scope.at(place), given).await;
            end(live, place, &went);
            went?
        }
        _ => kinds::run(live, step, scope, given).await?,
    };
    checked(policy, &state.value).map_err(|error| Stop::failed(Arc::clone(&step.name), error))?;
    Ok(state)
}

/// Looks at an output before it is believed.
fn checked(policy: &Policy, value: &Value) -> Result<(), StepError> {
    let look = |check: &Arc<dyn Check>| check.check(value);
    policy.gives.iter().try_for_each(look).map_err(|wrong| {
        StepError::new(Fault::Output, format!("its output does not fit: {wrong}"))
            .hint("mend the step or its output_schema")
    })?;
    policy.validators.iter().try_for_each(look).map_err(|wrong| {
        StepError::new(Fault::Output, format!("its output was turned down: {wrong}"))
            .hint("allow more retries, or mend the validator")
    })
}

/// What the journal knows of a place.
pub(super) fn recalled(live: &Live, place: Place) -> Option<Done> {
    live.journal.as_ref().and_then(|journal| journal.recall(&live.path(place)))
}

pub(super) fn done_before(live: &Live, step: &Step, scope: &Scope, given: State, done: Done) -> Went {
    live.log.note(scope.place, |entry| {
        (entry.recalled, entry.cached, entry.attempts) = (true, done.cached, done.attempts);
    });
    if done.usage != Usage::NONE {
        live.log.spend(scope.place, done.usage);
        if let Some(quota) = &scope.quota {
            quota.recall(done.usage);
        }
    }
    match done.answer {
        Ok(value) => Ok(State { value, moment: live.log.now(), ..given }),
        Err(error) => Err(Stop::failed(Arc::clone(&step.name), error)),
    }
}

/// Keeps what a step came to, before anything else begins.
pub(super) async fn commit(
    live: &Live,
    place: Place,
    answer: Result<&Value, &StepError>,
    cached: bool,
) -> Result<(), Stop> {
    let Some(journal) = &live.journal else { return Ok(()) };
    let now = live.log.now();
    let (usage, attempts, began) =
        live.log.entry(place).map_or((Usage::NONE, 1, now), |entry| (entry.usage, entry.attempts, entry.began));
    let (at, took) = (live.log.since_1970(began), now.saturating_sub(began));
    let done = Done { answer: answer.cloned().map_err(Clone::clone), usage, attempts, cached, at, took };
    Ok(journal.commit(&live.path(place), done).await?)
}
