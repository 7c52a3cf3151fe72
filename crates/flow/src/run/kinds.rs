//! What each sort of step does.

use std::sync::Arc;

use futures_util::{
    StreamExt,
    future::{BoxFuture, join_all},
    stream,
};

use super::{PROMPT, Prompt, Scope, State, Stop, Went, again, merge, one, reduce, search, states, steps, talk, under};
use crate::{
    cache::{Answered, Found},
    error::{Fault, StepError},
    key,
    live::Live,
    log::Label,
    paths,
    step::{Cached, Conditional, Each, Human, Import, Kind, Parallel, Router, Step, Steps},
    value::{Map, Value},
};

/// What imports were given, for whoever asks the context.
const ARTIFACTS: &str = "import_artifacts";

/// Runs a step that is no leaf, within its own entry of the log.
pub(super) async fn run(live: &Arc<Live>, step: &Step, scope: &Scope, state: State) -> Went {
    let went = match &step.kind {
        Kind::Act(_) => unreachable!("leaves are run by their own"),
        Kind::Sequence(body) => Box::pin(steps(live, body, scope, state)).await,
        Kind::Parallel(parallel) => branches(live, parallel, scope, state).await,
        Kind::Conditional(conditional) => choose(live, conditional, scope, state).await,
        Kind::Loop(again) => again::repeat(live, again, scope, state).await,
        Kind::Map(each) => map(live, each, scope, state).await,
        Kind::Router(router) => route(live, router, scope, state).await,
        Kind::Human(human) => ask(live, human, scope, state).await,
        Kind::Cache(cached) => remember(live, cached, scope, state).await,
        Kind::Import(import) => imported(live, import, scope, state).await,
        Kind::Machine(machine) => states::pass(live, machine, scope, state).await,
        Kind::Search(tree) => search::search(live, tree, scope, state).await,
    };
    finished(step, went)
}

/// What a step came to that has others within. No part of the future that runs it: these lie within each other.
fn finished(step: &Step, went: Went) -> Went {
    // What several steps gave is one value: it may be more than each of them.
    let joins = matches!(step.kind, Kind::Parallel(_) | Kind::Map(_) | Kind::Router(_) | Kind::Search(_));
    let went = match went {
        Ok(state) if joins => state.value.check_bounds().map_err(|bounds| own(bounds.into())).map(|()| state),
        went => went,
    };
    // Faults of the step itself are told under its name.
    went.map_err(|stop| match stop {
        Stop::Failed(failed) if failed.0.is_empty() => Stop::failed(Arc::clone(&step.name), failed.1),
        stop => stop,
    })
}

pub(super) fn own(error: StepError) -> Stop {
    Stop::failed("", error)
}

/// Branches at the same time: each has its share of what is left of the budget.
async fn branches(live: &Arc<Live>, parallel: &Parallel, scope: &Scope, state: State) -> Went {
    let chosen: Vec<(&Arc<str>, &Steps, Value)> =
        parallel.branches.iter().map(|(name, steps)| (name, steps, state.value.clone())).collect();
    at_once(live, parallel, &chosen, scope, state).await
}

async fn at_once(
    live: &Arc<Live>,
    parallel: &Parallel,
    chosen: &[(&Arc<str>, &Steps, Value)],
    scope: &Scope,
    state: State,
) -> Went {
    let shares = match &scope.quota {
        Some(quota) if quota.limits_anything() => quota.split(chosen.len()).into_iter().map(Some).collect(),
        quota => vec![quota.clone(); chosen.len()],
    };
    let scopes: Vec<Scope> = shares.into_iter().map(|quota| Scope { quota, ..scope.clone() }).collect();
    let seen = merge::seen_by_branches(&parallel.keys, &state.context);
    let running = chosen.iter().zip(&scopes).map(|((name, steps, input), scope)| {
        let state = State { value: input.clone(), context: seen.clone(), ..state.clone() };
        under(live, Label::Name(Arc::clone(name)), "branch", steps, scope, state)
    });
    let went = join_all(running).await;
    let turn = went.iter().flatten().map(|state| state.turn).max().unwrap_or(state.turn);
    let mut done = Vec::with_capacity(went.len());
    let (mut prompts, mut failed) = (Vec::new(), None);
    for ((name, ..), went) in chosen.iter().zip(went) {
        match went {
            Ok(state) => done.push((Arc::clone(name), state)),
            Err(Stop::Paused(more)) => prompts.extend(more),
            Err(Stop::Failed(_)) if parallel.ignore_failures => {}
            Err(Stop::Failed(stop)) => failed = failed.or(Some(Stop::Failed(stop))),
            Err(stop) => return Err(stop),
        }
    }
    if let Some(stop) = failed {
        return Err(stop);
    }
    if !prompts.is_empty() {
        return Err(Stop::Paused(prompts));
    }
    let context = merge::contexts(parallel.merge, &parallel.keys, &state.context, &done).map_err(own)?;
    let outputs: Map = done.iter().map(|(name, state)| (Arc::clone(name), state.value.clone())).collect();
    let order: Vec<(&Arc<str>, &Value)> = done.iter().map(|(name, state)| (name, &state.value)).collect();
    let all = State { value: Value::Map(outputs), context, moment: live.log.now(), turn, rested: state.rested };
    let value = reduce::reduce(live, parallel.reduce.as_ref(), &order, &state.value, scope, &all).await?;
    Ok(State { value, moment: live.log.now(), ..all })
}

/// The name that a condition's value stands for.
fn branch_name(value: &Value) -> String {
    match value {
        Value::Text(text) => text.to_string(),
        Value::Null => "none".to_owned(),
        other => other.to_json(),
    }
}

/// Names of branches that are for what is true and for what is not: those that YAML 1.1 takes for booleans.
const YES: [&str; 3] = ["true", "yes", "on"];
const NO: [&str; 3] = ["false", "no", "off"];

async fn choose(live: &Arc<Live>, conditional: &Conditional, scope: &Scope, state: State) -> Went {
    let value = conditional.when.value(&one::view(live, scope.place, &state)).map_err(own)?;
    let name = branch_name(&value);
    let find = |name: &str| conditional.branches.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
    // A text names a branch by its letters and nothing else: the text "no" is not empty, and does not mean yes.
    let by_truth = || match value.as_text() {
        Some(_) => None,
        None => (if value.truthy() { YES } else { NO }).into_iter().find_map(find),
    };
    match (find(&name).or_else(by_truth), &conditional.otherwise) {
        (Some((name, body)), _) => under(live, Label::Name(Arc::clone(name)), "branch", body, scope, state).await,
        (None, Some(body)) => under(live, Label::Name("default".into()), "branch", body, scope, state).await,
        (None, None) => {
            let names: Vec<&str> = conditional.branches.iter().map(|(name, _)| &**name).collect();
            let message = format!("there is no branch {}, only {}", caudal_types::shorten(&name), names.join(", "));
            let hint = "add a branch of that name, or a default_branch; to ask whether there is a text, write x != ''";
            Err(own(StepError::failed(message).hint(hint).for_good()))
        }
    }
}

async fn map(live: &Arc<Live>, each: &Each, scope: &Scope, mut state: State) -> Went {
    let items = match &each.items {
        Some(items) => items.value(&one::view(live, scope.place, &state)).map_err(own)?,
        None => state.value.clone(),
    };
    let items = items.plain().map_err(|error| own(StepError::input(error.to_string())))?;
    let Value::List(items) = items else {
        let message = format!("it goes through a list, and was given {}", items.sort());
        return Err(own(StepError::input(message).for_good()));
    };
    let mut outputs = Vec::with_capacity(items.len());
    if each.at_once <= 1 {
        for (number, value) in items.iter().enumerate() {
            let given = State { value: value.clone(), moment: live.log.now(), ..state.clone() };
            match item(live, each, scope, number, given).await {
                Ok(after) => {
                    (state.context, state.turn) = (after.context, after.turn);
                    outputs.push(after.value);
                }
                Err(Stop::Failed(_)) if each.ignore_failures => outputs.push(Value::Null),
                Err(stop) => return Err(stop),
            }
        }
        return Ok(State { value: outputs.into(), moment: live.log.now(), ..state });
    }
    // Items that wait have no entry yet: they begin when it is their turn.
    let futures: Vec<BoxFuture<'_, Went>> = items
        .iter()
        .enumerate()
        .map(|(number, value)| {
            let given = State { value: value.clone(), ..state.clone() };
            item(live, each, scope, number, given)
        })
        .collect();
    let mut running = stream::iter(futures).buffered(each.at_once);
    let (mut done, mut prompts) = (Vec::with_capacity(items.len()), Vec::new());
    while let Some(went) = running.next().await {
        match went {
            Ok(after) => {
                outputs.push(after.value.clone());
                done.push((Arc::from(done.len().to_string()), after));
            }
            Err(Stop::Failed(_)) if each.ignore_failures => outputs.push(Value::Null),
            Err(Stop::Paused(more)) => prompts.extend(more),
            Err(stop) => return Err(stop),
        }
    }
    drop(running);
    if !prompts.is_empty() {
        return Err(Stop::Paused(prompts));
    }
    state.context = merge::contexts(crate::step::Merge::ContextUpdate, &[], &state.context, &done).map_err(own)?;
    Ok(State { value: outputs.into(), moment: live.log.now(), ..state })
}

/// One item of a map, which begins when it is first looked at.
fn item<'a>(live: &'a Arc<Live>, each: &'a Each, scope: &'a Scope, number: usize, state: State) -> BoxFuture<'a, Went> {
    Box::pin(async move {
        live.may_go_on()?;
        let given = State { moment: live.log.now(), ..state };
        under(live, Label::Number(number as u32), "item", &each.body, scope, given).await
    })
}

async fn route(live: &Arc<Live>, router: &Router, scope: &Scope, state: State) -> Went {
    let chosen = one::one(live, &router.chooser, scope, state.clone()).await?;
    let plain = chosen.value.plain().map_err(|error| own(StepError::failed(error.to_string())))?;
    let wanted: Vec<(Arc<str>, Value)> = match &plain {
        Value::Text(name) => vec![(Arc::clone(name), state.value.clone())],
        Value::List(names) => names.iter().map(|name| (Arc::from(branch_name(name)), state.value.clone())).collect(),
        Value::Map(inputs) => inputs.iter().cloned().collect(),
        other => {
            let message = format!("it chose {}, not names of branches", other.sort());
            return Err(own(StepError::new(Fault::Output, message)));
        }
    };
    let mut branches: Vec<(&Arc<str>, &Steps, Value)> = Vec::with_capacity(wanted.len());
    for (name, input) in wanted {
        let Some((name, steps)) = router.parallel.branches.iter().find(|(own, _)| *own == name) else {
            let names: Vec<&str> = router.parallel.branches.iter().map(|(name, _)| &**name).collect();
            let message = format!("it chose {name}, and there are {}", names.join(", "));
            return Err(own(StepError::new(Fault::Output, message)));
        };
        if branches.iter().all(|(other, ..)| *other != name) {
            branches.push((name, steps, input));
        }
    }
    let state = State { context: chosen.context, moment: chosen.moment, ..state };
    at_once(live, &router.parallel, &branches, scope, state).await
}

async fn ask(live: &Arc<Live>, human: &Human, scope: &Scope, state: State) -> Went {
    let message = match &human.message {
        Some(message) => message.value(&one::view(live, scope.place, &state)).map_err(own)?,
        None => state.value.plain().map_err(|error| own(StepError::failed(error.to_string())))?,
    };
    live.log.ask(scope.place, message.clone());
    if let Some(done) = one::recalled(live, scope.place) {
        let value = done.answer.map_err(own)?;
        live.log.note(scope.place, |entry| entry.recalled = true);
        return Ok(State { value, moment: live.log.now(), ..state });
    }
    let path: Arc<str> = live.path(scope.place).into();
    let prompt = Prompt { path: Arc::clone(&path), message, schema: human.schema.clone(), refused: None };
    let Some(answer) = live.journal.as_ref().and_then(|journal| journal.answer(&path)) else {
        return Err(Stop::Paused(vec![prompt]));
    };
    if let Some(check) = &human.answers
        && let Err(wrong) = check.check(&answer)
    {
        return Err(Stop::Paused(vec![Prompt { refused: Some(wrong.into()), ..prompt }]));
    }
    one::commit(live, scope.place, Ok(&answer), false).await?;
    Ok(State { value: answer, moment: live.log.now(), ..state })
}

async fn remember(live: &Arc<Live>, cached: &Cached, scope: &Scope, state: State) -> Went {
    if let Some(done) = one::recalled(live, scope.place) {
        return answered(live, scope, state, done.answer.map_err(own)?);
    }
    let key = key::call(&cached.identity, &state.value, &state.context, cached.context.as_deref())
        .map_err(|error| own(StepError::input(format!("its input cannot be written: {error}")).for_good()))?;
    // What this run has begun without the cache, it goes on with.
    let began = live.journal.as_ref().is_some_and(|journal| journal.knows_within(&live.path(scope.place)));
    if began || !cached.repeatable {
        let made = make(live, cached, scope, &state).await?;
        return Ok(with(live, state, made));
    }
    if let Some(found) = live.parts.cache.peek(&key).await {
        return hit(live, scope, state, found).await;
    }
    loop {
        let mut mine = false;
        let making = async {
            mine = true;
            let made = make(live, cached, scope, &state).await;
            if live.log.is_open(scope.place) { Err(Unkept::Open(made)) } else { made.map_err(Unkept::Stop) }
        };
        match live.parts.cache.get(key, cached.ttl, making).await.map_err(|unkept| Unkept::clone(&unkept)) {
            Ok((made, Found::Made)) => return Ok(with(live, state, made)),
            Ok((found, Found::Remembered)) => return hit(live, scope, state, found).await,
            Err(Unkept::Open(made)) if mine => return made.map(|made| with(live, state, made)),
            Err(Unkept::Open(_)) => {
                let made = make(live, cached, scope, &state).await?;
                return Ok(with(live, state, made));
            }
            // What befell another run while this one waited for it is not of the step's making.
            Err(Unkept::Stop(stop)) if !mine && !stop.is_the_steps() => live.may_go_on()?,
            Err(Unkept::Stop(stop)) => {
                // What another run failed of stands in no line of this one's steps.
                if let (false, Stop::Failed(failed)) = (mine, &stop) {
                    one::commit(live, scope.place, Err(&failed.1), false).await?;
                }
                return Err(stop);
            }
        }
    }
}

/// Why nothing is remembered.
#[derive(Clone)]
enum Unkept {
    /// There is no answer.
    Stop(Stop),
    /// What came of it depends on steps of its run, which stand in no key.
    Open(Result<Answered, Stop>),
}

/// Does what is to be remembered. It sees no more of the context than what its key is made of.
async fn make(live: &Arc<Live>, cached: &Cached, scope: &Scope, state: &State) -> Result<Answered, Stop> {
    let seen = match &cached.context {
        Some(names) => state.context.iter().filter(|(name, _)| names.contains(name)).cloned().collect(),
        None => state.context.clone(),
    };
    let given = State { context: seen.clone(), ..state.clone() };
    let after = one::one(live, &cached.step, scope, given).await?;
    Ok(Answered { value: after.value, changes: merge::changes(&seen, &after.context) })
}

/// The state with an answer, however it was come by.
fn with(live: &Live, state: State, answer: Answered) -> State {
    let context = state.context.merged(&answer.changes);
    State { value: answer.value, context, moment: live.log.now(), ..state }
}

async fn hit(live: &Arc<Live>, scope: &Scope, state: State, found: Answered) -> Went {
    live.log.note(scope.place, |entry| entry.cached = true);
    if live.journal.is_some() {
        let kept = Value::Map(
            [("value", found.value.clone()), ("changes", Value::Map(found.changes.clone()))].into_iter().collect(),
        );
        one::commit(live, scope.place, Ok(&kept), true).await?;
    }
    Ok(with(live, state, found))
}

/// What was found in the cache when the run was there before.
fn answered(live: &Arc<Live>, scope: &Scope, state: State, kept: Value) -> Went {
    live.log.note(scope.place, |entry| (entry.recalled, entry.cached) = (true, true));
    let changes = kept.get("changes").and_then(Value::as_map).cloned().unwrap_or_default();
    let value = kept.get("value").cloned().unwrap_or_default();
    Ok(with(live, state, Answered { value, changes }))
}

async fn imported(live: &Arc<Live>, import: &Import, scope: &Scope, state: State) -> Went {
    let context = known(import, &state).map_err(own)?;
    let given = State { context, ..state.clone() };
    let after = match Box::pin(steps(live, &import.steps, scope, given)).await {
        Ok(after) => after,
        Err(Stop::Failed(_)) if import.ignore_failures => {
            return Ok(State { value: Value::Null, moment: live.log.now(), ..state });
        }
        Err(stop) => return Err(stop),
    };
    let context = match &import.outputs {
        Some(outputs) => outputs.iter().fold(state.context, |context, (from, to)| {
            let value = paths::get(&after.context, from).cloned().unwrap_or_default();
            paths::set(&context, to, value)
        }),
        // What an import is given is its own to know.
        None if import.inherits && import.knows.prompt => match state.context.get(PROMPT) {
            Some(prompt) => after.context.with(PROMPT, prompt.clone()),
            None => after.context.without(PROMPT),
        },
        None if import.inherits => after.context,
        None => state.context,
    };
    Ok(State { context, ..after })
}

/// What an import knows when it begins.
fn known(import: &Import, state: &State) -> Result<Map, StepError> {
    let ours = &state.context;
    let given = || state.value.plain().map_err(|error| StepError::input(error.to_string()));
    let mut context = if import.inherits { ours.clone() } else { Map::default() };
    if let Some(said) = ours.get(talk::HISTORY).filter(|_| import.knows.conversation) {
        context = context.with(talk::HISTORY, said.clone());
    }
    if import.knows.prompt {
        context = context.with(PROMPT, given()?);
    }
    if let Some(name) = &import.knows.artifacts {
        let before = ours.get(ARTIFACTS).and_then(Value::as_map).cloned().unwrap_or_default();
        let artifacts = match given()? {
            Value::Map(value) => before.merged(&value),
            other => before.with(name, other),
        };
        context = context.with(ARTIFACTS, Value::Map(artifacts));
    }
    Ok(context)
}
