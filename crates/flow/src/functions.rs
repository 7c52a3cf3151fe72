//! Rust functions as leaves, formulas and checks. What one does is known by its name: a cache and a durable run believe
//! that two of one name do the same.

use std::sync::Arc;

use futures_util::{FutureExt, future::BoxFuture};

use crate::{
    action::{Action, Answer, Call, Outcome},
    error::StepError,
    step::{Check, Formula, Rule},
    value::Value,
    view::View,
};

struct Named<F> {
    name: Arc<str>,
    function: F,
}

/// A leaf that is a function and done at once.
pub fn function(
    name: impl Into<Arc<str>>,
    function: impl Fn(&Call) -> Answer + Send + Sync + 'static,
) -> Arc<dyn Action> {
    struct Now<F>(Named<F>);

    impl<F: Fn(&Call) -> Answer + Send + Sync + 'static> Action for Now<F> {
        fn identity(&self) -> Value {
            Value::Text(Arc::clone(&self.0.name))
        }

        fn start(&self, call: Call) -> Outcome<'_> {
            Outcome::Done((self.0.function)(&call))
        }
    }

    Arc::new(Now(Named { name: name.into(), function }))
}

/// A leaf that is a function whose answer comes later.
pub fn later<F>(name: impl Into<Arc<str>>, function: impl Fn(Call) -> F + Send + Sync + 'static) -> Arc<dyn Action>
where
    F: Future<Output = Answer> + Send + 'static,
{
    struct Later<F>(Named<F>);

    impl<F: Fn(Call) -> BoxFuture<'static, Answer> + Send + Sync + 'static> Action for Later<F> {
        fn identity(&self) -> Value {
            Value::Text(Arc::clone(&self.0.name))
        }

        fn start(&self, call: Call) -> Outcome<'_> {
            Outcome::Later((self.0.function)(call))
        }
    }

    Arc::new(Later(Named { name: name.into(), function: move |call| function(call).boxed() }))
}

/// A formula that is a function of what a step sees.
pub fn rule(
    name: impl Into<Arc<str>>,
    function: impl Fn(&View<'_>) -> Result<Value, StepError> + Send + Sync + 'static,
) -> Rule {
    struct Of<F>(Named<F>);

    impl<F: Fn(&View<'_>) -> Result<Value, StepError> + Send + Sync + 'static> Formula for Of<F> {
        fn value(&self, view: &View<'_>) -> Result<Value, StepError> {
            (self.0.function)(view)
        }

        fn identity(&self) -> Value {
            Value::Text(Arc::clone(&self.0.name))
        }
    }

    Arc::new(Of(Named { name: name.into(), function }))
}

/// A check that is a function; `Err` tells what is wrong.
pub fn check(
    name: impl Into<Arc<str>>,
    function: impl Fn(&Value) -> Result<(), String> + Send + Sync + 'static,
) -> Arc<dyn Check> {
    struct Of<F>(Named<F>);

    impl<F: Fn(&Value) -> Result<(), String> + Send + Sync + 'static> Check for Of<F> {
        fn check(&self, value: &Value) -> Result<(), String> {
            (self.0.function)(value)
        }

        fn identity(&self) -> Value {
            Value::Text(Arc::clone(&self.0.name))
        }
    }

    Arc::new(Of(Named { name: name.into(), function }))
}
