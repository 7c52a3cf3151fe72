//! Pipelines put together in Rust: what does not fit does not compile.

use std::{collections::BTreeMap, marker::PhantomData, sync::Arc, time::Duration};

use futures_util::FutureExt;

use crate::{
    action::Call,
    error::{Fault, StepError},
    functions,
    step::{
        Cached, Conditional, Definition, Each, Human, Kind, Loop, Parallel, Policy, Reduce, Retry, Rule, Step, Steps,
    },
    value::{Data, Held, Value},
};

/// A pipeline that takes an `In` and gives an `Out`.
///
/// ```
/// use caudal_flow::{Engine, Options, Pipeline, RunOptions, Value};
///
/// let pipeline = Pipeline::<i64, i64>::new("example")
///     .step("double", |x: &i64, _| Ok(x * 2))
///     .step("words", |x: &i64, _| Ok(format!("{x} flows")));
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let engine = Engine::new(Options::default());
/// let ran = engine.run(&pipeline.define(), Value::from(21), RunOptions::default()).await;
/// assert_eq!(ran.output().unwrap(), Value::from("42 flows"));
/// # });
/// ```
///
/// A step that takes something else than the one before gives is refused by the compiler:
///
/// ```compile_fail
/// use caudal_flow::Pipeline;
///
/// Pipeline::<i64, i64>::new("example").step("length", |text: &String, _| Ok(text.len() as u64));
/// ```
pub struct Pipeline<In, Out> {
    name: Arc<str>,
    steps: Vec<Step>,
    types: PhantomData<fn(In) -> Out>,
}

impl<In, Out> Clone for Pipeline<In, Out> {
    fn clone(&self) -> Self {
        Self { name: Arc::clone(&self.name), steps: self.steps.clone(), types: PhantomData }
    }
}

fn taken<T: Data>(value: &Value) -> Result<Held<T>, StepError> {
    value.to().map_err(|error| StepError::input(format!("its input does not fit: {error}")).for_good())
}

impl<T: Data> Pipeline<T, T> {
    /// A pipeline without a step: it gives what it takes.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), steps: Vec::new(), types: PhantomData }
    }
}

impl<In: Data, Out: Data> Pipeline<In, Out> {
    fn then_step<Next: Data>(mut self, step: Step) -> Pipeline<In, Next> {
        self.steps.push(step);
        Pipeline { name: self.name, steps: self.steps, types: PhantomData }
    }

    /// Then a function that is done at once. What it does is known by its name: a cache believes that two of one name
    /// do the same.
    pub fn step<Next: Data>(
        self,
        name: impl Into<Arc<str>>,
        function: impl Fn(&Out, &Call) -> Result<Next, StepError> + Send + Sync + 'static,
    ) -> Pipeline<In, Next> {
        let name = name.into();
        let function = move |call: &Call| function(&*taken::<Out>(&call.input)?, call).map(Value::of);
        self.then_step(Step::act(Arc::clone(&name), functions::function(name, function)))
    }

    /// Then a function whose answer comes later.
    pub fn step_async<Next: Data, F>(
        self,
        name: impl Into<Arc<str>>,
        function: impl Fn(Held<Out>, Call) -> F + Send + Sync + 'static,
    ) -> Pipeline<In, Next>
    where
        F: Future<Output = Result<Next, StepError>> + Send + 'static,
    {
        let name = name.into();
        let function = move |call: Call| match taken::<Out>(&call.input) {
            Ok(input) => function(input, call).map(|made| made.map(Value::of)).left_future(),
            Err(error) => std::future::ready(Err(error)).right_future(),
        };
        self.then_step(Step::act(Arc::clone(&name), functions::later(name, function)))
    }

    /// Then a function that takes its time on a core: it is done on a thread for such work.
    pub fn step_blocking<Next: Data>(
        self,
        name: impl Into<Arc<str>>,
        function: impl Fn(&Out, &Call) -> Result<Next, StepError> + Send + Sync + 'static,
    ) -> Pipeline<In, Next> {
        let function = Arc::new(function);
        self.step_async(name, move |input: Held<Out>, call: Call| {
            let function = Arc::clone(&function);
            async move {
                let done = tokio::task::spawn_blocking(move || function(&input, &call)).await;
                done.unwrap_or_else(|error| Err(StepError::new(Fault::Panicked, error.to_string())))
            }
        })
    }

    /// Then another pipeline.
    pub fn then<Next: Data>(mut self, next: Pipeline<Out, Next>) -> Pipeline<In, Next> {
        self.steps.extend(next.steps);
        Pipeline { name: self.name, steps: self.steps, types: PhantomData }
    }

    /// Then several at the same time, which are given the same.
    pub fn parallel<Next: Data>(
        self,
        name: impl Into<Arc<str>>,
        branches: impl IntoIterator<Item = Pipeline<Out, Next>>,
    ) -> Pipeline<In, BTreeMap<String, Next>> {
        let branches =
            branches.into_iter().map(|branch| (Arc::clone(&branch.name), Steps::new(branch.steps))).collect();
        self.then_step(Step::new(name, Kind::Parallel(Arc::new(Parallel::new(branches)))))
    }

    /// Then two of different types at the same time.
    pub fn both<A: Data, B: Data>(
        self,
        name: impl Into<Arc<str>>,
        first: Pipeline<Out, A>,
        second: Pipeline<Out, B>,
    ) -> Pipeline<In, (A, B)> {
        // A pair is a list of two in JSON.
        let branches =
            vec![(Arc::from("first"), Steps::new(first.steps)), (Arc::from("second"), Steps::new(second.steps))];
        let parallel = Parallel { reduce: Some(Reduce::Values), ..Parallel::new(branches) };
        self.then_step(Step::new(name, Kind::Parallel(Arc::new(parallel))))
    }

    /// Then one of two, as `when` says.
    pub fn either<Next: Data>(
        self,
        name: impl Into<Arc<str>>,
        when: impl Fn(&Out) -> bool + Send + Sync + 'static,
        yes: Pipeline<Out, Next>,
        no: Pipeline<Out, Next>,
    ) -> Pipeline<In, Next> {
        let name = name.into();
        let conditional = Conditional {
            when: rule(&name, move |out: &Out| Value::from(when(out))),
            branches: vec![("true".into(), Steps::new(yes.steps)), ("false".into(), Steps::new(no.steps))],
            otherwise: None,
        };
        self.then_step(Step::new(name, Kind::Conditional(Arc::new(conditional))))
    }

    /// Then the same again until it is enough, at most so many times.
    pub fn repeat(
        self,
        name: impl Into<Arc<str>>,
        body: Pipeline<Out, Out>,
        most: u32,
        until: impl Fn(&Out) -> bool + Send + Sync + 'static,
    ) -> Self {
        let name = name.into();
        let again = Loop {
            until: Some(rule(&name, move |out: &Out| Value::from(until(out)))),
            ..Loop::new(Steps::new(body.steps), most)
        };
        self.then_step(Step::new(name, Kind::Loop(Arc::new(again))))
    }

    /// Then somebody is asked, and the run waits for an answer.
    pub fn ask<Answer: Data>(
        self,
        name: impl Into<Arc<str>>,
        message: impl Fn(&Out) -> String + Send + Sync + 'static,
    ) -> Pipeline<In, Answer> {
        let name = name.into();
        let message = rule(&name, move |out: &Out| Value::from(message(out)));
        let human = Human { message: Some(message), answers: None, schema: Value::Null };
        self.then_step(Step::new(name, Kind::Human(Arc::new(human))))
    }

    fn change_last(mut self, change: impl FnOnce(Step) -> Step) -> Self {
        if let Some(last) = self.steps.pop() {
            self.steps.push(change(last));
        }
        self
    }

    fn with(self, change: impl FnOnce(&mut Policy)) -> Self {
        self.change_last(|step| step.with(change))
    }

    /// The last step's answers are remembered.
    #[must_use]
    pub fn cached(self) -> Self {
        self.change_last(|step| Step::new(Arc::clone(&step.name), Kind::Cache(Arc::new(Cached::new(step)))))
    }

    /// The last step is tried again so many times.
    #[must_use]
    pub fn retry(self, more: u32) -> Self {
        self.with(|policy| policy.retry = Retry { more, ..policy.retry })
    }

    /// The last step is tried again as `retry` says.
    #[must_use]
    pub fn retry_as(self, retry: Retry) -> Self {
        self.with(|policy| policy.retry = retry)
    }

    /// The last step may take so long, each time.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|policy| policy.timeout = Some(timeout))
    }

    /// Steps in place of the last one, if it fails: they take what it took.
    #[must_use]
    pub fn or_else<Took: Data>(self, instead: Pipeline<Took, Out>) -> Self {
        let fallback = Step::new(Arc::clone(&instead.name), Kind::Sequence(Steps::new(instead.steps)));
        self.with(|policy| policy.fallback = Some(Arc::new(fallback)))
    }

    /// What can be run.
    pub fn define(self) -> Definition {
        Definition::new(self.name, Steps::new(self.steps))
    }
}

impl<In: Data, T: Data + Clone> Pipeline<In, Vec<T>> {
    /// Then the same for each, so many at the same time.
    pub fn map<Next: Data>(
        self,
        name: impl Into<Arc<str>>,
        body: Pipeline<T, Next>,
        at_once: usize,
    ) -> Pipeline<In, Vec<Next>> {
        let name = name.into();
        let items = rule(&name, |items: &Vec<T>| Value::list(items.iter().cloned().map(Value::of)));
        let each = Each { items: Some(items), body: Steps::new(body.steps), at_once, ignore_failures: false };
        self.then_step(Step::new(name, Kind::Map(Arc::new(each))))
    }
}

fn rule<T: Data>(name: &Arc<str>, function: impl Fn(&T) -> Value + Send + Sync + 'static) -> Rule {
    functions::rule(Arc::clone(name), move |view| Ok(function(&*taken::<T>(view.output)?)))
}
