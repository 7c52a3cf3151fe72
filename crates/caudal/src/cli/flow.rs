//! `caudal flow …`.

use std::path::PathBuf;

use clap::{Arg, ArgAction, Command, value_parser};

use super::{duration, option, with_settings};
use crate::settings::Key;

/// Exit codes of `caudal flow`.
const CODES: &str = "A PIPELINE is a file, or the name of one in the folder of pipelines. Runs are stored in --data-dir, by\n\
                     default in ~/.local/share/caudal; no server is needed.\n\
                     Exit code: 0 on success (a paused run counts as success), 1 if a run failed, 2 for a wrong command\n\
                     line or setting, 3 if what a pipeline uses cannot be found, 4 if a pipeline file is invalid, 130 after Ctrl-C.";

/// The command line of all of them.
pub(super) fn command() -> Command {
    let command = Command::new("flow")
        .about("Runs pipelines and manages their runs")
        .after_help(CODES)
        .subcommand_required(true)
        .arg_required_else_help(true);
    let with_folder =
        [run(), validate(), list(), show(), trace(), replay(), resume(), cancel(), explain(), visualize(), leaves()];
    let command = with_folder.into_iter().fold(command, |all, one| all.subcommand(with_settings(one, for_flows)));
    command
        .subcommand(init())
        .subcommand(Command::new("schema").about("Prints the JSON schema of pipelines, for editors"))
}

fn run() -> Command {
    Command::new("run")
        .about("Runs a pipeline")
        .after_help(
            "Examples:\n  caudal flow run triage.yaml --input '{\"path\": \"bus.jpg\"}'\n  \
             echo Hello | caudal flow run greet --input - --json",
        )
        .arg(pipeline())
        .arg(
            option("input", "TEXT|JSON|-")
                .allow_hyphen_values(true)
                .env("FLUJO_INPUT")
                .help("the run's input: JSON, otherwise text; - reads standard input"),
        )
        .arg(option("context-data", "JSON").allow_hyphen_values(true).help("the run's initial context: a JSON object"))
        .arg(
            path("context-file", "FILE")
                .conflicts_with("context-data")
                .help("initial context from a JSON or YAML file"),
        )
        .arg(option("run-id", "NAME").help("the run's name [default: generated]"))
        .arg(duration("timeout").help("timeout of the run"))
        .arg(option("max-cost-usd", "USD").value_parser(value_parser!(f64)).help("cost limit of the run"))
        .arg(option("max-tokens", "N").value_parser(value_parser!(u64)).help("token limit of the run"))
        .arg(flag("ephemeral", "keep nothing of the run"))
        .arg(flag("dry-run", "read and check the pipeline and its input, and show what would be done"))
        .args(output())
}

fn output() -> [Arg; 4] {
    [
        json("one JSON document and nothing else: run_id, status, output, steps"),
        flag("live", "show the steps while they run").conflicts_with("json"),
        flag("summary", "show time and cost by step, and the critical path").conflicts_with("json"),
        option("final-output-format", "FORM")
            .value_parser(["auto", "raw", "json", "yaml", "md"])
            .default_value("auto")
            .help("output format: text as is and other values as JSON, or always one of them"),
    ]
}

fn validate() -> Command {
    Command::new("validate")
        .about("Validates pipelines; reports line, column, code and fix of every error")
        .arg(pipeline().required(false).num_args(0..).help("files or names [default: all pipelines in the folder]"))
        .arg(flag("strict", "warnings fail too"))
        .arg(json("one JSON document: a list of findings"))
}

fn list() -> Command {
    Command::new("list")
        .about("Lists runs, newest first")
        .arg(
            option("limit", "N")
                .value_parser(value_parser!(u32).range(1..=10_000))
                .default_value("20")
                .help("how many"),
        )
        .arg(
            option("status", "STATUS")
                .value_parser(["running", "paused", "completed", "failed", "cancelled", "interrupted"])
                .help("of those, only these"),
        )
        .arg(json("one JSON object a line"))
}

fn show() -> Command {
    Command::new("show").about("Shows a run: status, output, open questions").arg(id()).arg(json("one JSON document"))
}

fn trace() -> Command {
    Command::new("trace")
        .about("Shows the steps of a run with times and outputs")
        .arg(id())
        .arg(json("one JSON object a line"))
}

fn replay() -> Command {
    Command::new("replay")
        .about("Replays a recorded run without calling any action, and compares the output")
        .arg(id())
        .arg(outside())
        .arg(json("one JSON document"))
}

fn resume() -> Command {
    Command::new("resume")
        .about("Resumes a run after a pause, a crash or a failure")
        .after_help("Example:\n  caudal flow resume RUN --answer true")
        .arg(id().required_unless_present("all").required(false))
        .arg(flag("all", "all runs whose process has ended").conflicts_with_all(["id", "answer", "at"]))
        .arg(
            option("answer", "TEXT|JSON|-")
                .allow_hyphen_values(true)
                .visible_alias("input")
                .help("answer to the step that asks: JSON, otherwise text"),
        )
        .arg(option("at", "PATH").requires("answer").help("path of the step to answer, if several ask"))
        .arg(outside())
        .arg(flag("force", "take it from a process that is there and does nothing"))
        .args(output())
}

fn cancel() -> Command {
    Command::new("cancel").about("Cancels a run for good").arg(id())
}

fn explain() -> Command {
    Command::new("explain").about("Describes what a pipeline does, step by step").arg(pipeline())
}

fn visualize() -> Command {
    Command::new("visualize")
        .about("Draws a pipeline")
        .arg(pipeline())
        .arg(
            option("format", "FORM")
                .value_parser(["mermaid", "svg"])
                .default_value("mermaid")
                .help("Mermaid text or an SVG image"),
        )
        .arg(path("output", "FILE").short('o').help("where to write [default: standard output]"))
}

fn leaves() -> Command {
    Command::new("leaves")
        .about("Lists the actions that steps can use")
        .arg(json("as JSON, with the JSON schema of each action's settings"))
}

fn init() -> Command {
    Command::new("init")
        .about("Writes an example pipeline and flow.yaml into a folder")
        .arg(Arg::new("dir").value_name("DIR").value_parser(value_parser!(PathBuf)).default_value("pipelines"))
}

fn pipeline() -> Arg {
    Arg::new("pipeline")
        .required(true)
        .value_name("PIPELINE")
        .help("pipeline file, or a name in the folder of pipelines")
}

fn outside() -> Arg {
    option("pipeline", "PIPELINE").help("file of the run's pipeline, if it is not in the folder of pipelines")
}

fn id() -> Arg {
    Arg::new("id").required(true).value_name("RUN").help("the run's name")
}

fn json(help: &'static str) -> Arg {
    flag("json", help)
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn path(name: &'static str, value: &'static str) -> Arg {
    option(name, value).value_parser(value_parser!(PathBuf))
}

/// Settings of pipelines that run without a server.
fn for_flows(key: &Key) -> bool {
    let kept = ["data_dir", "record_flush", "pipelines", "record_timezone"];
    super::for_models(key)
        || kept.contains(&key.name)
        || key.name.starts_with("flow_")
        || key.name.starts_with("database_")
}
