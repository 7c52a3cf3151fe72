//! A run is driven to its end, within its time, and its end is noted.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak, atomic::Ordering::Relaxed},
};

use caudal_types::Deadline;
use futures_util::{FutureExt, future::BoxFuture};

use super::{Engine, LONGEST_ID, Outcome, Parts, Ran, RunOptions, Whose, is_name};
use crate::{
    error::{Fault, RunError, StepError},
    journal::Journal,
    live::Live,
    run::{self, Scope, State, Stop, Went},
    step::{Check, Definition, Step, Steps},
    value::Value,
};

/// A run stands in the list of those that go on, or are about to, as long as this lives.
pub(super) struct Listed {
    parts: Arc<Parts>,
    id: Arc<str>,
    number: u64,
}

impl Listed {
    /// Lists a run that is about to go on, unless another of its name does and is not to be `replaced`.
    pub(super) fn claim(parts: &Arc<Parts>, id: &Arc<str>, replaced: bool) -> Option<Self> {
        let mut going = parts.going();
        if !replaced && going.contains_key(id) {
            return None;
        }
        let number = parts.numbers.fetch_add(1, Relaxed);
        going.insert(Arc::clone(id), (number, Weak::new()));
        Some(Self { parts: Arc::clone(parts), id: Arc::clone(id), number })
    }

    /// Now it goes on.
    pub(super) fn is(&self, live: &Arc<Live>) {
        self.parts.going().insert(Arc::clone(&self.id), (self.number, Arc::downgrade(live)));
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut going = self.parts.going();
        if going.get(&self.id).is_some_and(|(number, _)| *number == self.number) {
            going.remove(&self.id);
        }
    }
}

/// Drives a run to its end.
pub(super) async fn drive(
    live: Arc<Live>,
    steps: Steps,
    gives: Option<Arc<dyn Check>>,
    scope: Scope,
    state: State,
    listed: Option<Listed>,
) -> Ran {
    let context = state.context.clone();
    let went = AssertUnwindSafe(within_time(&live, &steps, &scope, state)).catch_unwind().await;
    // Leaves' panics are their own; what panics beside them, as a rule or a check, fails the run.
    let went = went.unwrap_or_else(|what| Err(Stop::failed(Arc::clone(&live.pipeline), run::panicked(&*what))));
    live.end();
    let (outcome, context) = match went {
        Ok(state) => match fits(gives.as_deref(), &state.value) {
            Ok(()) => (Outcome::Completed(state.value), state.context),
            Err(error) => {
                let step = Arc::clone(&live.pipeline);
                (Outcome::Failed(RunError::Step { step, error }), state.context)
            }
        },
        Err(Stop::Paused(prompts)) => (Outcome::Paused(prompts), context),
        Err(Stop::Interrupted) => (Outcome::Paused(Vec::new()), context),
        Err(Stop::Failed(failed)) => {
            let (step, error) = *failed;
            (Outcome::Failed(RunError::Step { step, error }), context)
        }
        // Whose machine is not there to take it up.
        Err(Stop::Left(left)) => (Outcome::Completed(left.state.value), left.state.context),
        Err(Stop::Cancelled) => (Outcome::Failed(RunError::Cancelled), context),
        Err(Stop::Broken(error)) => (Outcome::Failed(*error), context),
    };
    let outcome = close(&live, outcome).await;
    drop(listed);
    Ran {
        id: Arc::clone(&live.id),
        outcome,
        context,
        took: live.log.now(),
        usage: live.log.spent(),
        entries: live.log.entries(),
    }
}

/// Whether a pipeline may give that.
fn fits(gives: Option<&dyn Check>, value: &Value) -> Result<(), StepError> {
    value.check_bounds()?;
    let Some(check) = gives else { return Ok(()) };
    catch_unwind(AssertUnwindSafe(|| check.check(value)))
        .map_err(|what| run::panicked(&*what))?
        .map_err(|wrong| StepError::new(Fault::Output, format!("the pipeline's output does not fit: {wrong}")))
}

/// Notes in the journal how it ended.
async fn close(live: &Live, outcome: Outcome) -> Outcome {
    let Some(journal) = &live.journal else { return outcome };
    let usage = live.log.spent();
    let noted = match &outcome {
        Outcome::Completed(value) => journal.end("completed", Ok(value), usage, None).await,
        Outcome::Paused(prompts) if prompts.is_empty() && live.is_leaving() => journal.leave().await,
        Outcome::Paused(prompts) => journal.pause(prompts).await,
        Outcome::Failed(RunError::Cancelled) => journal.end("cancelled", Err(None), usage, None).await,
        // What broke is not the run: it can be taken up again.
        Outcome::Failed(RunError::Store(_) | RunError::Taken | RunError::Journal(_) | RunError::Answer(_)) => Ok(()),
        Outcome::Failed(error) => journal.end("failed", Err(Some(error)), usage, Some(live.log.fatal())).await,
    };
    match noted {
        Ok(()) => outcome,
        Err(error) => Outcome::Failed(error),
    }
}

async fn within_time(live: &Arc<Live>, steps: &Steps, scope: &Scope, state: State) -> Went {
    let work = run::steps(live, steps, scope, state);
    tokio::select! {
        biased;
        went = work => went,
        stop = live.stops() => Err(stop),
        () = passed(live.deadline) => Err(RunError::TimedOut.into()),
    }
}

async fn passed(deadline: Deadline) {
    match deadline.moment() {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

/// Lets a step go its way as a run of its own; the one after it gets what it got.
pub(crate) fn in_background<'a>(
    live: &'a Arc<Live>,
    step: &'a Step,
    scope: &'a Scope,
    state: State,
) -> BoxFuture<'a, Went> {
    Box::pin(background(live, step, scope, state))
}

/// The name of the run that a step of `run` goes: the step's path in it, if that makes a name that no other step has.
fn name_aside(run: &str, path: &str) -> Arc<str> {
    let plain = path.split('/').all(is_name) && !path.contains('.');
    if plain && run.len() + 1 + path.len() <= LONGEST_ID {
        return format!("{run}.{}", path.replace('/', ".")).into();
    }
    let hash = blake3::hash(format!("{run}/{path}").as_bytes()).to_hex();
    format!("{}.{hash}", &run[..run.len().min(LONGEST_ID - 1 - hash.len())]).into()
}

/// Whether the run that has the name of a background step is that step, begun before its run was taken up again. A caller
/// may have given its own run the name: then the step was never run, and its run must not go on as if it had been.
async fn begun_before(live: &Live, engine: &Engine, definition: &Definition, id: &str) -> Result<(), Stop> {
    let found = match engine.live(id) {
        Some(other) => Some(Arc::clone(other.pipeline())),
        None => engine.story(id).await.ok().map(|story| story.begun.pipeline),
    };
    let resumed = live.journal.as_ref().is_some_and(Journal::is_resumed);
    if resumed && found.as_ref().is_some_and(|pipeline| *pipeline == definition.name) {
        return Ok(());
    }
    let whose = found.map_or_else(String::new, |pipeline| format!(", of {pipeline}"));
    let error =
        StepError::failed(format!("the run of the background step would be called {id}, and there is one{whose}"));
    let hint = "begin the run under a name that none of another run begins with";
    Err(Stop::failed("", error.hint(hint).for_good()))
}

async fn background(live: &Arc<Live>, step: &Step, scope: &Scope, state: State) -> Went {
    if live.journal.as_ref().is_some_and(Journal::replays) {
        return Ok(State { moment: live.log.now(), ..state });
    }
    let id = name_aside(&live.id, &live.path(scope.place));
    let engine = Engine { parts: Arc::clone(&live.parts) };
    let definition = Definition { durable: live.journal.is_some(), ..Definition::aside_of(&live.pipeline, step) };
    let options = RunOptions { id: Some(Arc::clone(&id)), context: state.context.clone(), ..RunOptions::default() };
    // What it spends is its run's, though that may be over by then.
    let whose = Whose { listed: true, around: scope.quota.clone() };
    match engine.begin_as(whose, &definition, state.value.clone(), options).await {
        Err((_, RunError::Exists(_))) => begun_before(live, &engine, &definition, &id).await?,
        Err((_, error)) => return Err(error.into()),
        Ok(run) => {
            tokio::spawn(run);
        }
    }
    Ok(State { moment: live.log.now(), ..state })
}
