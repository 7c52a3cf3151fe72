//! Leaves that are a function of their settings and their call, and done at once.

use std::sync::Arc;

use caudal_flow::{Action, Answer, Call, Leaf, Registry, Started, Undefined, Value};

use crate::{
    aside::{aside, is_large},
    settings::{self, Settings},
    templated::Templated,
};

/// The name under which Flujo's users know a leaf.
pub(crate) const ALIAS: &str = "flujo.builtins.";

/// A leaf that is a function.
struct Plain<S> {
    name: &'static str,
    said: Value,
    settings: S,
    work: Work<S>,
    takes: Takes,
}

/// How long a leaf that is a function takes.
#[derive(Clone, Copy, PartialEq)]
enum Takes {
    /// No time, whatever it is given.
    None,
    /// The longer, the more it is given.
    Time,
}

/// What a leaf does, given what was said, as it came and as it was read.
pub(crate) type Work<S> = fn(&Value, &S, &Call) -> Answer;

impl<S: Settings> Action for Plain<S> {
    fn identity(&self) -> Value {
        Value::list([Value::text(self.name), self.said.clone()])
    }

    fn start(&self, call: Call) -> Started<'_> {
        if self.takes == Takes::None || !is_large(&call.input) {
            return Started::Done((self.work)(&self.said, &self.settings, &call));
        }
        let (work, said, settings) = (self.work, self.said.clone(), self.settings.clone());
        Started::Later(Box::pin(aside(usize::MAX, move || work(&said, &settings, &call))))
    }
}

/// Adds `leaf` under `name`, and under the name that it has in Flujo.
pub(crate) fn add(registry: &mut Registry, name: &'static str, leaf: Leaf) {
    registry.add(format!("{ALIAS}{name}"), leaf.clone());
    registry.add(name, leaf);
}

/// A leaf made of its settings, in which texts may hold expressions in `{{ }}`.
pub(crate) fn leaf<S: Settings, A: Action>(
    about: &'static str,
    make: impl Fn(&Value, S) -> Result<A, String> + Send + Sync + 'static,
) -> Leaf {
    let raw = raw_leaf(about, make);
    let (now, schema) = (Arc::clone(&raw.make), raw.settings.clone());
    let make = move |said: &Value, undefined: Undefined| -> Result<Arc<dyn Action>, String> {
        match Templated::of(said, undefined, &schema, &now)? {
            Some(templated) => Ok(Arc::new(templated)),
            None => now(said, undefined),
        }
    };
    Leaf { make: Arc::new(make), ..raw }
}

/// A leaf made of its settings as they are said.
pub(crate) fn raw_leaf<S: Settings, A: Action>(
    about: &'static str,
    make: impl Fn(&Value, S) -> Result<A, String> + Send + Sync + 'static,
) -> Leaf {
    raw_leaf_as(about, move |said, settings, _| make(said, settings))
}

/// The same of one with templates of its own.
pub(crate) fn raw_leaf_as<S: Settings, A: Action>(
    about: &'static str,
    make: impl Fn(&Value, S, Undefined) -> Result<A, String> + Send + Sync + 'static,
) -> Leaf {
    let make = move |said: &Value, undefined: Undefined| -> Result<Arc<dyn Action>, String> {
        Ok(Arc::new(make(said, settings::read(said)?, undefined)?))
    };
    Leaf { about, settings: settings::schema::<S>(), make: Arc::new(make) }
}

/// Adds a leaf that is a function. With much to work through it does that aside.
pub(crate) fn plain<S: Settings>(registry: &mut Registry, name: &'static str, about: &'static str, work: Work<S>) {
    function(registry, name, about, work, Takes::Time);
}

/// Adds a leaf that is a function, and takes no time however large its input is.
pub(crate) fn quick<S: Settings>(registry: &mut Registry, name: &'static str, about: &'static str, work: Work<S>) {
    function(registry, name, about, work, Takes::None);
}

fn function<S: Settings>(
    registry: &mut Registry,
    name: &'static str,
    about: &'static str,
    work: Work<S>,
    takes: Takes,
) {
    let make = move |said: &Value, settings| Ok(Plain { name, said: said.clone(), settings, work, takes });
    add(registry, name, leaf::<S, _>(about, make));
}
