//! One expression.

use std::sync::Arc;

use minijinja::{
    Error, ErrorKind, Expression as Compiled,
    value::{Object, Value as Word},
};

use super::{
    Undefined, WordsError, compare, environment, hand,
    meter::{self, Meter},
    miss, source,
};
use crate::{
    error::StepError,
    step::Formula,
    value::{Map, Value},
    view::View,
};

/// The names that expressions see.
pub(super) const NAMES: [&str; 8] =
    ["previous_step", "output", "input", "this", "item", "context", "steps", "resume_input"];

/// An expression, ready to be asked.
pub struct Expression {
    source: Arc<str>,
    compiled: Compiled<'static, 'static>,
    /// Which steps it looks at, where it says so.
    steps: Looks,
    /// Whether it is one name and nothing else.
    looks: bool,
    undefined: Undefined,
}

/// Which steps an expression looks at.
enum Looks {
    Named(Vec<Box<str>>),
    All,
}

impl Expression {
    /// Reads an expression. What is not there is a failure, unless it says what to take instead.
    pub fn parse(source: &str) -> Result<Self, WordsError> {
        Self::parse_as(source, Undefined::Strict)
    }

    /// Reads an expression.
    pub fn parse_as(source: &str, undefined: Undefined) -> Result<Self, WordsError> {
        Self::parse_within(source, undefined, &[])
    }

    /// Reads an expression within blocks that have given `names`.
    pub(super) fn parse_within(source: &str, undefined: Undefined, names: &[Arc<str>]) -> Result<Self, WordsError> {
        let ready = source::ready(source)?;
        let compile = |text: String| environment::language(undefined).compile_expression_owned(text);
        let calls = compare::with_calls(&ready);
        // Read first as it is written: what is wrong with it stands where its author put it.
        let mut compiled = compile(ready).map_err(|error| unreadable(source, &error))?;
        let used = compiled.undeclared_variables(true);
        known(source, &compiled, names)?;
        for (offset, filter) in source::filters(source) {
            environment::filter(filter).map_err(|wrong| WordsError::new(source, offset, wrong, "mend the filter"))?;
        }
        if let Some(calls) = calls {
            compiled = compile(calls).map_err(|error| WordsError {
                hint: "put brackets around the comparison",
                ..unreadable(source, &error)
            })?;
        }
        let looks = source::is_name(source);
        let mut named = Vec::new();
        for name in used.iter().filter(|name| *name == "steps" || name.starts_with("steps.")) {
            match name.split('.').nth(1) {
                Some(step) if step != "get" => named.push(Box::from(step)),
                _ => return Ok(Self { source: source.into(), compiled, steps: Looks::All, looks, undefined }),
            }
        }
        Ok(Self { source: source.into(), compiled, steps: Looks::Named(named), looks, undefined })
    }

    /// Reads a question, such as whether a loop is at its end. What is not there yet is nothing, and neither is what it would hold.
    pub fn question(source: &str) -> Result<Self, WordsError> {
        Self::parse_as(source, Undefined::Ignore)
    }

    /// What it was read from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The value as the language has it; `None` if what was asked for is not there.
    pub(super) fn word(&self, view: &View<'_>, names: &Map) -> Result<Option<Word>, StepError> {
        miss::clear();
        let sight = Word::from_object(self.sight(view, names));
        // To look at one thing and do nothing with it is no work, however large it is.
        let meter = (!self.looks).then(Meter::start);
        let word = self.compiled.eval(sight);
        if meter.is_some_and(|meter| meter.overdrawn()) {
            let message = format!("`{}` cannot be worked out: {}", self.short(), meter::too_much());
            return Err(StepError::failed(message).hint("give it less, or part it into several steps").for_good());
        }
        let word = word.map_err(|error| self.failed(&error, view, names))?;
        if !word.is_undefined() {
            return Ok(Some(word));
        }
        match self.undefined {
            Undefined::Strict => Err(self.missing(view, names)),
            Undefined::Warn => {
                tracing::warn!(expression = &*self.source, "what it looks for is not there");
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    fn sight(&self, view: &View<'_>, names: &Map) -> Sight {
        let steps = match &self.steps {
            Looks::All => view.steps(),
            Looks::Named(names) if names.is_empty() => Map::default(),
            Looks::Named(names) => {
                names.iter().filter_map(|name| Some((Arc::<str>::from(&**name), view.step(name)?))).collect()
            }
        };
        Sight {
            output: view.output.clone(),
            context: view.context.clone(),
            steps,
            resumed: view.resumed.cloned().unwrap_or_default(),
            names: names.clone(),
        }
    }

    fn missing(&self, view: &View<'_>, own: &Map) -> StepError {
        let said = match miss::take() {
            Some((name, Value::Map(there))) => {
                // Of the steps, only those that are asked for were looked up.
                let steps = self.sight(view, own).steps;
                let there = if there == steps && !steps.same(view.context) { view.steps() } else { there };
                format!("{} is not there; {}", caudal_types::shorten(&name), instead(&name, &there))
            }
            Some((name, there)) => {
                let count = there.as_list().map_or(0, <[Value]>::len);
                format!("there is no item {name}: the list has {count}, counted from 0")
            }
            None => self.nowhere(view, own).unwrap_or_else(|| "something in it is not there".to_owned()),
        };
        StepError::input(format!("`{}`: {said}", self.short())).hint(OTHERWISE).for_good()
    }

    /// Which name was asked of something that has no names.
    fn nowhere(&self, view: &View<'_>, own: &Map) -> Option<String> {
        let sight = Arc::new(self.sight(view, own));
        let mut paths: Vec<String> = self.compiled.undeclared_variables(true).into_iter().collect();
        paths.sort();
        paths.iter().find_map(|path| {
            let mut names = path.split('.');
            let mut so_far = names.next()?.to_owned();
            let mut value = hand::take(&sight.get_value_by_str(&so_far)?).ok()?;
            for name in names {
                let Some(within) = value.get(name) else {
                    return Some(format!("{so_far} is {}, which has no {name}", value.sort()));
                };
                value = within.clone();
                so_far = format!("{so_far}.{name}");
            }
            None
        })
    }

    fn failed(&self, error: &Error, view: &View<'_>, names: &Map) -> StepError {
        let why = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        // What is not there cannot be reckoned with, and the language tells of its sort, not of its name.
        let reckoned = error.kind() == ErrorKind::InvalidOperation && why.contains(UNDEFINED);
        if reckoned || error.kind() == ErrorKind::UndefinedError {
            return self.missing(view, names);
        }
        let why = caudal_types::shorten(&why).into_owned();
        let hint = match error.kind() {
            ErrorKind::OutOfFuel => "make it shorter",
            _ if why.contains(compare::UNLIKE) => "compare values of one kind: |int, |float and |string make them so",
            _ => "mend the expression",
        };
        StepError::failed(format!("`{}` cannot be worked out: {why}", self.short())).hint(hint).for_good()
    }

    pub(super) fn short(&self) -> String {
        caudal_types::shorten(self.source.trim()).into_owned()
    }

    /// Something that came of its value is wrong.
    pub(super) fn wrong(&self, error: &Error) -> StepError {
        let why = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        StepError::failed(format!("`{}`: {why}", self.short())).hint("let it make less").for_good()
    }
}

/// What the language calls what is not there.
const UNDEFINED: &str = "undefined";

/// What there is instead of `name`.
fn instead(name: &str, there: &Map) -> String {
    let names: Vec<&str> = there.iter().map(|(name, _)| &**name).collect();
    match (caudal_types::nearest(name, names.iter().copied()), names.is_empty()) {
        (Some(near), _) => format!("did you mean {near}?"),
        (None, true) => "there is nothing".to_owned(),
        (None, false) => format!("there is {}", names[..names.len().min(SHOWN)].join(", ")),
    }
}

/// Names of what there is that a failure shows.
const SHOWN: usize = 12;
const OTHERWISE: &str = "mend the name, or say what to take instead: `x or 'something'`, `x|default('something')`";

impl Formula for Expression {
    fn value(&self, view: &View<'_>) -> Result<Value, StepError> {
        match self.word(view, &Map::default())? {
            Some(word) => {
                let value = hand::take(&word).map_err(|error| self.wrong(&error))?;
                // What an expression makes may hold the same often.
                if !self.looks {
                    value.check_bounds()?;
                }
                Ok(value)
            }
            None => Ok(Value::Null),
        }
    }

    fn identity(&self) -> Value {
        self.undefined.identity("expression", Value::Text(Arc::clone(&self.source)))
    }
}

fn unreadable(source: &str, error: &Error) -> WordsError {
    let offset = error.range().map_or(0, |range| range.start).min(source.len());
    let why = error.detail().unwrap_or("it is no expression");
    WordsError::new(source, offset, format!("the expression cannot be read: {why}"), "mend the expression")
}

/// Refuses names that no run has.
fn known(source: &str, compiled: &Compiled<'_, '_>, more: &[Arc<str>]) -> Result<(), WordsError> {
    let asked = compiled.undeclared_variables(false);
    let there = || NAMES.into_iter().chain(more.iter().map(|name| &**name));
    let mut strange: Vec<&String> = asked.iter().filter(|name| there().all(|known| known != name.as_str())).collect();
    strange.sort();
    let Some(strange) = strange.first() else { return Ok(()) };
    let offset = source.find(strange.as_str()).unwrap_or(0);
    let short = caudal_types::shorten(strange);
    let instead = match caudal_types::nearest(strange, there()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("known are {}", there().collect::<Vec<_>>().join(", ")),
    };
    let hint = "begin with a name that is known; texts stand in quotes";
    Err(WordsError::new(source, offset, format!("the name {short} is not known; {instead}"), hint))
}

/// What an expression sees.
#[derive(Debug)]
struct Sight {
    output: Value,
    context: Map,
    steps: Map,
    resumed: Value,
    /// What blocks have given names, which hide others.
    names: Map,
}

impl Object for Sight {
    fn get_value(self: &Arc<Self>, key: &Word) -> Option<Word> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Word> {
        if let Some(value) = self.names.get(key) {
            return hand::counted(value);
        }
        match key {
            "previous_step" | "output" | "input" | "this" | "item" => hand::counted(&self.output),
            "context" => Some(hand::hand(&Value::Map(self.context.clone()))),
            "steps" => Some(hand::hand(&Value::Map(self.steps.clone()))),
            "resume_input" => hand::counted(&self.resumed),
            _ => None,
        }
    }
}
