//! Leaves of which something is said in templates: it is worked out of the run, each time anew.

use std::sync::Arc;

use caudal_flow::{Action, Call, Formula, Maker, Shape, Started, StepError, Undefined, Value, WordsError};

/// A leaf that is made when it is called.
pub(crate) struct Templated {
    shape: Shape,
    undefined: Undefined,
    make: Maker,
}

impl Templated {
    /// A leaf of which `said` is said, if that holds a template. Its names must be those of `schema`: what they will
    /// stand for is seen when it is called.
    pub(crate) fn of(said: &Value, undefined: Undefined, schema: &Value, make: &Maker) -> Result<Option<Self>, String> {
        let shape = Shape::parse_as(said, undefined).map_err(|error| words(&error))?;
        if shape.is_plain() {
            return Ok(None);
        }
        let known = |name: &str| schema.get("properties").is_some_and(|known| known.get(name).is_some());
        match said.as_map().into_iter().flatten().find(|(name, _)| !known(name)) {
            Some((name, _)) => Err(format!("unknown field `{name}`")),
            None => Ok(Some(Self { shape, undefined, make: Arc::clone(make) })),
        }
    }

    fn made(&self, call: &Call) -> Result<Arc<dyn Action>, StepError> {
        let said = self.shape.value(&call.view())?;
        said.check_bounds()?;
        (self.make)(&said, self.undefined).map_err(|wrong| {
            let error = StepError::input(format!("what its settings come to is wrong: {wrong}"));
            error.hint("mend the templates of its settings, or what they look at").for_good()
        })
    }
}

/// What makes a leaf with this template the same as another.
pub(crate) fn identity(leaf: &str, shape: &Shape, undefined: Undefined) -> Value {
    let of_source = [Value::text(leaf), shape.source().clone()];
    // Files that say nothing keep the identity that runs and caches know them by.
    match undefined {
        Undefined::Strict => Value::list(of_source),
        _ => Value::list(of_source.into_iter().chain([shape.identity()])),
    }
}

/// Why a template cannot be read, and where.
pub(crate) fn words(error: &WordsError) -> String {
    format!("{} (line {}, column {}); {}", error.message, error.line, error.column, error.hint)
}

impl Action for Templated {
    fn identity(&self) -> Value {
        identity("templated", &self.shape, self.undefined)
    }

    fn start(&self, call: Call) -> Started<'_> {
        match self.made(&call) {
            Err(error) => Started::Done(Err(error)),
            // What is made for a call ends with it.
            Ok(action) => Started::Later(Box::pin(async move {
                match action.start(call) {
                    Started::Done(answer) => answer,
                    Started::Later(answer) => answer.await,
                }
            })),
        }
    }

    /// It looks at more than its input and the context.
    fn repeatable(&self) -> bool {
        false
    }
}
