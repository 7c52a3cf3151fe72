//! The keys that files may have: one table, by which files are read and from which their JSON schema is made.

/// What a key takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// A text.
    Text,
    /// A text that is an expression.
    Expression,
    /// Anything, of which texts are templates.
    Template,
    /// Yes or no.
    Bool,
    /// A whole number, not below zero.
    Count,
    /// A number, not below zero.
    Number,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// Texts in a list.
    Names,
    /// Texts by name.
    TextsByName,
    /// Anything.
    Any,
    /// A JSON schema.
    Schema,
    /// An object with these keys.
    Section(&'static [Key]),
    /// A text, or an object with these keys.
    TextOr(&'static [Key]),
    /// Objects with these keys, by name.
    SectionsByName(&'static [Key]),
    /// Objects with these keys, in a list.
    Sections(&'static [Key]),
    /// One step.
    Step,
    /// Steps in a list, or one.
    Steps,
    /// Steps by name.
    Branches,
    /// A leaf: its name, or an object with `id` and `params`.
    Leaf,
}

/// A key.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) form: Form,
    pub(super) about: &'static str,
}

macro_rules! keys {
    ($($(#[doc = $doc:literal])* $name:ident { $($key:literal: $form:expr, $about:literal;)* })*) => {
        $($(#[doc = $doc])* pub(super) const $name: &[Key] = {
            use Form::*;
            &[$(Key { name: $key, form: $form, about: $about }),*]
        };)*
    };
}

/// The kinds of steps, and the keys that each has beside those that all have.
pub(super) const KINDS: [(&str, &[Key]); 11] = [
    ("step", LEAF),
    ("parallel", PARALLEL),
    ("conditional", CONDITIONAL),
    ("loop", LOOP),
    ("map", MAP),
    ("dynamic_router", ROUTER),
    ("hitl", HUMAN),
    ("cache", CACHE),
    ("agentic_loop", AGENTIC),
    ("tree_search", SEARCH),
    ("StateMachine", MACHINE),
];

const MERGES: &[&str] = &["context_update", "overwrite", "no_merge", "error_on_conflict", "keep_first"];
const FAILURES: &[&str] = &["propagate", "ignore"];

keys! {
    /// The file itself.
    FILE {
        "version": OneOf(&["0.1"]), "The version of the form: 0.1.";
        "name": Text, "What the pipeline is called.";
        "description": Text, "What it is about, for people.";
        "agents": SectionsByName(AGENT), "Models with their prompts, for `uses: agents.x`.";
        "imports": TextsByName, "Other files by name, for `uses: imports.x`; beside this one or in folders below it.";
        "steps": Steps, "What is done, one after the other.";
        "input_schema": Schema, "What the pipeline takes: a JSON schema.";
        "output_schema": Schema, "What it gives: a JSON schema.";
        "durable": Bool, "Whether each step is kept before the next begins, where runs are kept; true, if nothing is said.";
        "timeout_s": Number, "How long a run may take, in seconds.";
        "usage_limits": Section(LIMITS), "What a run may spend.";
        "templates": Section(TEMPLATES), "How expressions are read.";
        "static_invariants": Names, "What must hold of `output` and `context` after each step of the file: rules by name, or expressions. Else the run fails.";
    }
    /// How expressions are read.
    TEMPLATES {
        "undefined": OneOf(&["strict", "warn", "ignore"]), "What becomes of names that are not there: a failure, a line in the log, or nothing.";
    }
    /// What may be spent.
    LIMITS {
        "total_cost_usd_limit": Number, "US dollars.";
        "total_tokens_limit": Count, "Tokens read and written.";
        "total_steps_limit": Count, "Steps that are begun.";
    }
    /// An agent.
    AGENT {
        "model": Text, "`provider:name`.";
        "system_prompt": Any, "What it is told first: a text, or {from_file, variables}.";
        "output_schema": Schema, "What it gives: a JSON schema.";
        "model_settings": Any, "What the provider is told beside.";
        "timeout": Number, "How long one try may take, in seconds.";
        "max_retries": Count, "Tries after the first.";
    }
    /// What all steps have.
    STEP {
        "kind": OneOf(&["step", "parallel", "conditional", "loop", "map", "dynamic_router", "hitl", "cache", "agentic_loop", "tree_search", "StateMachine"]), "What sort of step it is: step, if nothing is said.";
        "name": Text, "Its name.";
        "step": Text, "Its name, as older files have it.";
        "input": Template, "What it is given, in place of what the step before gave.";
        "config": Section(CONFIG), "How it is done.";
        "updates_context": Bool, "Whether its output, an object, becomes a part of the context.";
        "validate_fields": Bool, "Whether what updates the context must be there already.";
        "sink_to": Text, "Where in the context its output goes.";
        "fallback": Step, "What is done if it fails in the end.";
        "usage_limits": Section(LIMITS), "What it may spend.";
        "validators": Names, "What is looked at before its output is believed: checks by name, or expressions of `output`.";
        "static_invariants": Names, "What must hold of `output` and `context` when it is done, or the run fails, whatever its fallback; of a tree_search, of each candidate.";
        "plugins": Any, "The same, as a list of names or of {name, priority}.";
        "input_schema": Schema, "What it takes: a JSON schema; of hitl, what answers are taken.";
        "output_schema": Schema, "What it gives: a JSON schema.";
        "processing": Section(PROCESSING), "How a model's output is made to fit; given to the leaf.";
        "use_history": Bool, "Whether an agent sees earlier turns; given to the leaf.";
        "meta": Any, "What its author says about it.";
    }
    /// How a model's output is made to fit.
    PROCESSING {
        "structured_output": OneOf(&["off", "auto", "openai_json", "outlines", "xgrammar"]), "Whether the provider is told of output_schema: off, or else as it takes it.";
        "aop": OneOf(&["off", "minimal", "full"]), "Flujo's, not looked at: an answer that does not fit is asked for again.";
        "coercion": Any, "Flujo's, not looked at.";
        "schema": Any, "Flujo's, not looked at: say output_schema.";
        "output_schema": Any, "The same.";
        "enforce_grammar": Bool, "Flujo's, not looked at.";
        "reasoning_precheck": Any, "Flujo's, not looked at.";
    }
    /// How a step is done.
    CONFIG {
        "max_retries": Count, "Tries after the first: 1, if nothing is said, for leaves.";
        "timeout_s": Number, "How long one try may take, in seconds.";
        "timeout": Number, "The same, as older files have it.";
        "retry_wait_s": Number, "Before the second try, in seconds; each further wait is twice as long.";
        "retry_longest_s": Number, "The longest wait, in seconds: 60, if nothing is said. Where the other side asks for a longer one (Retry-After), the step fails.";
        "retry_jitter": Bool, "Whether waits are drawn at random, so that many do not come back at once.";
        "temperature": Number, "Given to the leaf.";
        "top_k": Count, "Given to the leaf.";
        "top_p": Number, "Given to the leaf.";
        "preserve_fallback_diagnostics": Bool, "Why it failed stays in the run's log in any case.";
        "execution_mode": OneOf(&["sync", "background"]), "Whether the next step waits for it.";
        "inherit_context": Bool, "Of an import: whether it sees the context.";
        "input_to": OneOf(&["initial_prompt", "import_artifacts", "both"]), "Of an import: where in its context its input stands, too; its first step is given it in any case.";
        "input_scratchpad_key": Text, "Of an import: its input's name in import_artifacts: initial_input, if nothing is said.";
        "outputs": Any, "Of an import: which of its context goes where in ours.";
        "inherit_conversation": Bool, "Of an import: whether it knows context.conversation_history; so, if nothing is said.";
        "propagate_hitl": Bool, "Of an import: whoever is asked within it is asked; always so.";
        "on_failure": OneOf(&["abort", "skip", "continue_with_default"]), "Of an import: what its failure is to us.";
    }
    /// A leaf.
    LEAF {
        "uses": Text, "What it does: a leaf by name, `agents.x`, `imports.x` or `module:name`.";
        "agent": Leaf, "The same, or an object with `id` and `params`.";
        "with": Any, "The leaf's settings.";
    }
    /// Branches at the same time.
    PARALLEL {
        "branches": Branches, "What is done at the same time, by name.";
        "merge_strategy": OneOf(MERGES), "What of the branches' contexts goes on.";
        "on_branch_failure": OneOf(FAILURES), "Whether branches that fail are left out.";
        "context_include_keys": Names, "Names of the context that branches see: all, if none are listed. Under overwrite, only these come back.";
        "field_mapping": Any, "Which names of the context each branch may change, by branch.";
        "ignore_branch_names": Bool, "Names of branches never go into the context, so it changes nothing.";
        "reduce": TextOr(REDUCE), "What becomes of the outputs: keys, values, union, concat, first, last, majority_vote, code_consensus, {mode: judge_selection, evaluator}, a rule, an expression.";
    }
    /// What becomes of outputs.
    REDUCE {
        "mode": Text, "How: the name of one way, a rule or an expression.";
        "callable": Text, "A rule by name, or an expression.";
        "path": Text, "The same.";
        "evaluator": Leaf, "Of judge_selection: says how good an output is. Given {solution, task}, it gives a number or an object with score.";
    }
    /// One branch of several.
    CONDITIONAL {
        "condition": Text, "Which: a rule by name.";
        "condition_expression": Expression, "Which: an expression, whose value is the branch's name.";
        "branches": Branches, "The branches by name; `true` and `false` (or yes and no, on and off) for what is true and what is not.";
        "default_branch": Steps, "If there is none of that name.";
    }
    /// The same again.
    LOOP { "loop": Section(LOOPING), "What is done again."; }
    /// What a loop says.
    LOOPING {
        "body": Steps, "What is done.";
        "max_loops": Count, "How often at most: 5, if nothing is said and there is an exit; else once.";
        "exit_condition": Text, "Whether it is enough: a rule by name.";
        "exit_expression": Expression, "Whether it is enough: an expression.";
        "init": Any, "What is set in the context before the first turn: {set, append, merge}, or a list of these.";
        "state": Section(STATE), "What is changed in the context after each turn.";
        "propagation": Any, "What the next turn is given: context, previous_output, auto, or a template as next_input.";
        "propagate": Any, "The same, as older files have it.";
        "output_template": Template, "What the loop gives.";
        "output": Template, "What the loop gives, as an object.";
        "initial_input_mapper": Text, "What the first turn is given: a rule by name.";
        "iteration_input_mapper": Text, "What the next turn is given: a rule by name.";
        "loop_output_mapper": Text, "What the loop gives: a rule by name.";
        "conversation": Bool, "Whether what is said is kept as `context.conversation_history` and told to the agents within.";
        "history_management": Section(HISTORY), "How much of the conversation is kept.";
        "history_template": Text, "Flujo's, not looked at: models are told turns as messages.";
        "ai_turn_source": OneOf(&["last", "all_agents", "named_steps"]), "What the assistant says: the last words of a turn, all words, or what `named_steps` give.";
        "user_turn_sources": Any, "What the user says: `hitl` for answers of people, and names of steps.";
        "named_steps": Names, "Steps whose outputs the assistant says.";
    }
    /// How much of a conversation is kept.
    HISTORY {
        "strategy": OneOf(&["truncate_tokens", "truncate_turns", "summarize"]), "By tokens, or by turns; what was said first is kept in any case. A summary is left to a step.";
        "max_tokens": Count, "Tokens: 4096, if nothing is said.";
        "max_turns": Count, "Turns: 20, if nothing is said.";
        "summarize_ratio": Number, "Flujo's, not looked at.";
        "summarizer_agent": Any, "Flujo's, not looked at.";
    }
    /// Changes of the context.
    STATE {
        "set": Sections(CHANGE), "What is put there.";
        "append": Sections(CHANGE), "What is put at the end of lists.";
        "merge": Sections(CHANGE), "What is put into objects.";
    }
    /// A change of the context.
    CHANGE {
        "target": Text, "Where: `context.` and names with points between.";
        "value": Template, "What.";
    }
    /// The same for each.
    MAP { "map": Section(MAPPING), "What is done with each item."; }
    /// What a map says.
    MAPPING {
        "iterable_input": Template, "Which items: a name of the context, or a template.";
        "body": Steps, "What is done with each: it is `this`.";
        "concurrency": Count, "How many at the same time: one, if nothing is said.";
        "on_item_failure": OneOf(FAILURES), "Whether items that fail become null.";
        "init": Any, "What is set in the context before: {set, append, merge}, or a list of these.";
        "finalize": Section(FINALIZE), "What the map gives.";
    }
    /// What a map gives.
    FINALIZE {
        "output_template": Template, "A template.";
        "output": Template, "An object of templates.";
    }
    /// Branches that a step chooses.
    ROUTER { "router": Section(ROUTING), "Who chooses, and of what."; }
    /// What a router says.
    ROUTING {
        "router_agent": Leaf, "Who chooses: gives a name, a list of names, or an object of inputs by name.";
        "branches": Branches, "The branches by name.";
        "merge_strategy": OneOf(MERGES), "What of the branches' contexts goes on.";
        "on_branch_failure": OneOf(FAILURES), "Whether branches that fail are left out.";
        "context_include_keys": Names, "Names of the context that branches see: all, if none are listed.";
        "field_mapping": Any, "Which names of the context each branch may change, by branch.";
        "reduce": TextOr(REDUCE), "What becomes of the outputs.";
    }
    /// Somebody is asked.
    HUMAN { "message": Template, "What is asked: what the step is given, if nothing is said."; }
    /// An answer is remembered.
    CACHE {
        "wrapped_step": Step, "What is remembered.";
        "ttl_s": Number, "For how long, in seconds.";
        "context_keys": Names, "Which names of the context the answer depends on: all, if nothing is said.";
    }
    /// A planner and those who do what it plans.
    AGENTIC {
        "planner": Leaf, "Who plans: gives {type: run_agent, agent_name, input_data}, {type: ask_human, question} or {type: finish, final_answer}.";
        "registry": Any, "Who does it: leaves by name.";
        "max_loops": Count, "How many commands at most: 10, if nothing is said.";
        "output_template": Template, "What it gives.";
    }
    /// The best of what is proposed.
    SEARCH {
        "proposer": Leaf, "Given a candidate, proposes a list of next ones.";
        "evaluator": Leaf, "Given a candidate, says how good it is.";
        "strategy": OneOf(&["beam", "a_star"]), "How the tree is searched: a_star, as Flujo does, if nothing is said.";
        "branching_factor": Count, "Candidates taken of each proposal: 3.";
        "beam_width": Count, "Candidates kept of each level: 3.";
        "max_depth": Count, "Levels: 5.";
        "max_iterations": Count, "Proposals in all: 100.";
        "goal_score_threshold": Number, "Enough, if a candidate has this score: 1.";
        "require_goal": Bool, "Whether it is a failure if none has.";
        "cost_function": Text, "What a candidate costs: a rule by name, or an expression.";
        "candidate_validator": Text, "Candidates for which this is not so are left out: a rule by name, or an expression.";
        "discovery_agent": Leaf, "Flujo's, not looked at.";
        "path_max_tokens": Count, "Flujo's, not looked at.";
    }
    /// States.
    MACHINE {
        "start_state": Text, "The first state.";
        "end_states": Any, "The last ones.";
        "states": Branches, "What is done in each.";
        "transitions": Sections(TRANSITION), "What leads from one to the next, the first that fits.";
        "max_states": Count, "How many states at most are passed: 100.";
    }
    /// What leads from a state to the next.
    TRANSITION {
        "from": Text, "From which; `*` for any.";
        "on": OneOf(&["success", "failure", "pause"]), "After what.";
        "to": Text, "To which.";
        "when": Expression, "Only if this is so.";
    }
}
