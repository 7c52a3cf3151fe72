//! A planner and those who do what it plans, put together of what there is: a loop of plan, choice and note.

use std::sync::Arc;

use super::leaf::function;
use crate::{
    action::Action,
    blueprint::{
        fields::Fields,
        finding::code,
        reader::Reader,
        tree::{Node, What},
    },
    error::{Fault, StepError},
    step::{Change, Conditional, How, Human, Kind, Loop, Parallel, Reduce, Router, Rule, Step, Steps},
    value::{Map, Value},
    words::{Expression, Shape},
};

/// Commands at most, if nothing is said: as many as Flujo's.
const COMMANDS: u64 = 10;
/// What the planner is given: the goal, and what came of its commands so far.
const ASKED: &str = "{{ {'goal': context.agentic_goal, 'history': context.command_log} }}";

impl Reader<'_> {
    pub(super) fn agentic(&mut self, fields: &Fields<'_>) -> Option<Kind> {
        let planner = self.inner("planner", fields.node("planner"), fields.mark);
        let Some(node) = fields.node("registry") else {
            self.missing(fields.mark, "an agentic_loop", "registry");
            return None;
        };
        let agents = self.workers(node)?;
        let output = match fields.node("output_template") {
            Some(node) => self.template(node).map(|shape| shape as Rule),
            None => Some(said("output.execution_result")?),
        };
        let most = fields.count("max_loops").unwrap_or(COMMANDS);
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        assembled(planner?, agents, output, most)
    }

    /// Leaves by name.
    fn workers(&mut self, node: &Node) -> Option<Vec<(Arc<str>, Steps)>> {
        let What::Map(entries) = &node.what else {
            let message = "registry is an object of leaves by name";
            self.error(node.mark, code::SORT, message, "write name: agents.x");
            return None;
        };
        let mut workers = Vec::with_capacity(entries.len());
        for (name, node) in entries {
            let found = self.leaf(node, Map::default())?;
            workers.push((name.name(), Steps::new([Step::new(name.name(), Kind::Act(found.action))])));
        }
        Some(workers)
    }
}

fn said(source: &str) -> Option<Rule> {
    Some(Arc::new(Expression::question(source).ok()?))
}

fn shaped(source: Value) -> Option<Rule> {
    Some(Arc::new(Shape::parse(&source).ok()?))
}

fn act(name: &str, action: Arc<dyn Action>) -> Step {
    Step::new(name, Kind::Act(action))
}

fn assembled(planner: Step, agents: Vec<(Arc<str>, Steps)>, output: Option<Rule>, most: u32) -> Option<Kind> {
    let asked = shaped(ASKED.into())?;
    let plan = planner.with(|policy| {
        policy.input = Some(asked);
        policy.sink = Some("agentic_command".into());
    });
    let chooser = Box::new(act("choose", function("agentic choose", |call| chosen(&call.input))));
    let parallel = Parallel { reduce: Some(Reduce::First), ..Parallel::new(agents) };
    let run = Step::new("run_agent", Kind::Router(Arc::new(Router { chooser, parallel })));
    let message = said("output.question")?;
    let human = Human { message: Some(message), answers: None, schema: Value::Null };
    let ask = Step::new("ask_human", Kind::Human(Arc::new(human)));
    let finish = act(
        "finish",
        function("agentic finish", |call| Ok(call.input.get("final_answer").cloned().unwrap_or_default())),
    );
    let choice = Conditional {
        when: said("output.type")?,
        branches: [("run_agent", run), ("ask_human", ask), ("finish", finish)]
            .into_iter()
            .map(|(name, step)| (Arc::from(name), Steps::new([step])))
            .collect(),
        otherwise: None,
    };
    let note = shaped("{{ {'generated_command': context.agentic_command, 'execution_result': output} }}".into())?;
    let note = act("note", super::leaf::passthrough()).with(|policy| policy.input = Some(note));
    let body = Steps::new([plan, Step::new("command", Kind::Conditional(Arc::new(choice))), note]);
    let set = |path: &str, value: Rule| Change { how: How::Set, path: path.into(), value };
    Some(Kind::Loop(Arc::new(Loop {
        until: Some(said("output.generated_command.type == 'finish'")?),
        must_end: true,
        init: vec![set("agentic_goal", said("output")?), set("command_log", shaped(Value::list([]))?)],
        state: vec![Change { how: How::Append, path: "command_log".into(), value: said("output")? }],
        output,
        ..Loop::new(body, most)
    })))
}

/// The agent that a command names, with what it is given.
fn chosen(command: &Value) -> Result<Value, StepError> {
    let Some(name) = command.get("agent_name").and_then(Value::as_text) else {
        let hint = "let the planner give {type: run_agent, agent_name, input_data}";
        return Err(StepError::new(Fault::Output, "the command names no agent").hint(hint));
    };
    let input = command.get("input_data").cloned().unwrap_or_default();
    Ok(Value::Map([(name, input)].into_iter().collect()))
}
