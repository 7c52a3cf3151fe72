//! Branches: at the same time, one of several, or those that a step chooses.

use std::{cell::RefCell, collections::BTreeMap, sync::Arc};

use crate::{
    blueprint::{
        fields::Fields,
        finding::code,
        keys::{REDUCE, ROUTING},
        reader::Reader,
        tree::{Node, Style, What},
    },
    step::{Conditional, Import, Kind, Knows, Merge, Parallel, Reduce, Router, Step, Steps},
    words::Expression,
};

impl Reader<'_> {
    pub(super) fn parallel(&mut self, fields: &Fields<'_>) -> Option<Kind> {
        let branches = self.some_branches(fields, "parallel")?;
        let parallel = self.together(fields, branches);
        if parallel.merge == Merge::ContextUpdate && fields.node("field_mapping").is_none() {
            self.conflicts(fields, &parallel);
        }
        Some(Kind::Parallel(Arc::new(parallel)))
    }

    /// Branches that write to one place fail when they are merged, unless they write the same.
    fn conflicts(&mut self, fields: &Fields<'_>, parallel: &Parallel) {
        let mut seen: BTreeMap<Arc<str>, Arc<str>> = BTreeMap::new();
        for (branch, steps) in &parallel.branches {
            for place in sinks(steps) {
                let first = seen.entry(Arc::clone(&place)).or_insert_with(|| Arc::clone(branch));
                if first != branch {
                    let message = format!("the branches {first} and {branch} both write to context.{place}");
                    let hint = "let them write to different names, or say merge_strategy";
                    self.warn(fields.at("branches"), code::CONFLICT, message, hint);
                }
            }
        }
    }

    fn some_branches(&mut self, fields: &Fields<'_>, what: &str) -> Option<Vec<(Arc<str>, Steps)>> {
        let branches = fields.node("branches").map(|node| self.branches(node)).unwrap_or_default();
        if branches.is_empty() {
            self.missing(fields.at("branches"), what, "branches");
            return None;
        }
        Some(branches)
    }

    /// How branches go together.
    fn together(&mut self, fields: &Fields<'_>, branches: Vec<(Arc<str>, Steps)>) -> Parallel {
        Parallel {
            branches: match fields.node("field_mapping") {
                Some(mapping) => self.mapped(mapping, branches),
                None => branches,
            },
            merge: match fields.word("merge_strategy") {
                Some("overwrite") => Merge::Overwrite,
                Some("no_merge") => Merge::NoMerge,
                Some("error_on_conflict") => Merge::ErrorOnConflict,
                Some("keep_first") => Merge::KeepFirst,
                _ => Merge::ContextUpdate,
            },
            keys: fields.names("context_include_keys").into_iter().map(Node::name).collect(),
            ignore_failures: fields.word("on_branch_failure") == Some("ignore"),
            reduce: fields.node("reduce").and_then(|node| self.reduce(node)),
        }
    }

    /// Branches of which only some names of the context go on: each becomes a pipeline of its own with these outputs.
    fn mapped(&mut self, mapping: &Node, branches: Vec<(Arc<str>, Steps)>) -> Vec<(Arc<str>, Steps)> {
        let What::Map(entries) = &mapping.what else {
            let message = "field_mapping is an object of lists of names, by branch";
            self.error(mapping.mark, code::SORT, message, "write branch: [name, name]");
            return branches;
        };
        for (name, _) in entries.iter().filter(|(name, _)| branches.iter().all(|(own, _)| *own != name.name())) {
            let message = format!("there is no branch {}", caudal_types::shorten(&name.name()));
            self.error(name.mark, code::SORT, message, "name one of the branches");
        }
        let narrowed = |(name, steps): (Arc<str>, Steps)| {
            let Some(What::List(names)) = mapping.get(&name).map(|node| &node.what) else { return (name, steps) };
            let outputs = names.iter().map(|name| (name.name(), name.name())).collect();
            let pipeline = Arc::clone(&name);
            let import = Import {
                pipeline,
                steps,
                inherits: true,
                knows: Knows::default(),
                outputs: Some(outputs),
                ignore_failures: false,
            };
            let step = Step::new(Arc::clone(&name), Kind::Import(Arc::new(import)));
            (name, Steps::new([step]))
        };
        branches.into_iter().map(narrowed).collect()
    }

    fn reduce(&mut self, node: &Node) -> Option<Reduce> {
        let said = match &node.what {
            What::Map(_) => Some(self.fields(node, &[REDUCE], "reduce")?),
            _ => None,
        };
        let named =
            said.as_ref().and_then(|said| ["callable", "path", "mode"].into_iter().find_map(|key| said.node(key)));
        let Some(mode) = node.text().or_else(|| named.and_then(Node::text)) else {
            self.error(node.mark, code::SORT, "reduce is a mode, a rule or an expression", "write values, for example");
            return None;
        };
        Some(match &*mode.trim().to_lowercase() {
            "keys" => Reduce::Keys,
            "values" => Reduce::Values,
            "union" => Reduce::Union,
            "concat" => Reduce::Concat,
            "first" => Reduce::First,
            "last" => Reduce::Last,
            "majority_vote" => Reduce::Majority,
            "code_consensus" => Reduce::Consensus,
            "judge_selection" => {
                let judge = said.as_ref().and_then(|said| said.node("evaluator"));
                Reduce::Judge(Arc::new(self.inner("evaluator", judge, node.mark)?))
            }
            _ => Reduce::Rule(self.rule(named.unwrap_or(node))?),
        })
    }

    pub(super) fn conditional(&mut self, fields: &Fields<'_>) -> Option<Kind> {
        let branches = fields.node("branches").map(|node| self.answers(node));
        let otherwise = fields.node("default_branch").map(|node| self.steps(node));
        let when = match (fields.node("condition"), fields.node("condition_expression")) {
            (Some(condition), Some(_)) => {
                let message = "a choice has condition or condition_expression, not both";
                self.error(condition.mark, code::SORT, message, "take one of both out");
                None
            }
            (Some(condition), None) => self.named_rule(condition, "condition_expression"),
            (None, Some(expression)) => self.question(expression),
            // Flujo takes what came before as the branch's name.
            (None, None) => Expression::question("output").ok().map(|output| Arc::new(output) as _),
        };
        let Some(branches) = branches.filter(|branches| !branches.is_empty()) else {
            self.missing(fields.mark, "a choice", "branches");
            return None;
        };
        Some(Kind::Conditional(Arc::new(Conditional { when: when?, branches, otherwise })))
    }

    /// Branches of a choice, by their own letters. Of plain words that YAML 1.1 takes for one boolean, one may stand.
    fn answers(&mut self, node: &Node) -> Vec<(Arc<str>, Steps)> {
        let What::Map(entries) = &node.what else { return Vec::new() };
        let mut booleans: Vec<bool> = Vec::new();
        for (name, _) in entries {
            let (What::Scalar(_, Style::Plain), crate::Value::Bool(yes)) = (&name.what, name.value()) else { continue };
            if booleans.contains(&yes) {
                let message = format!("there are two branches {yes}: plain yes, on and true are the same");
                self.error(name.mark, code::SORT, message, "put quotes around one");
            }
            booleans.push(yes);
        }
        self.branches(node)
    }

    pub(super) fn router(&mut self, fields: &Fields<'_>) -> Option<Kind> {
        let Some(node) = fields.node("router") else {
            self.missing(fields.mark, "a dynamic_router", "router");
            return None;
        };
        let fields = self.fields(node, &[ROUTING], "router")?;
        let chooser = self.inner("router_agent", fields.node("router_agent"), node.mark);
        let branches = self.some_branches(&fields, "router")?;
        let parallel = self.together(&fields, branches);
        Some(Kind::Router(Arc::new(Router { chooser: Box::new(chooser?), parallel })))
    }
}

/// Where in the context steps write to.
fn sinks(steps: &Steps) -> Vec<Arc<str>> {
    let found = RefCell::new(Vec::new());
    steps.any(&|step| {
        let sink = step.policy.as_ref().and_then(|policy| policy.sink.as_ref());
        found.borrow_mut().extend(sink.map(|sink| Arc::from(sink.trim_start_matches("context."))));
        false
    });
    found.into_inner()
}
