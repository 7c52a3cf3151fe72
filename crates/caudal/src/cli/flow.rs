//! `caudal flow …`.

use std::path::PathBuf;

use clap::{Arg, ArgAction, Command, value_parser};

use super::{duration, option, with_settings};
use crate::settings::Key;

/// What scripts must know of all of `caudal flow`.
const CODES: &str = "A PIPELINE is a file, or the name of one in the folder of pipelines. Runs are kept in --data-dir, or in\n\
                     ~/.local/share/caudal where none is said; no server is needed.\n\
                     Exit code: 0 if all is well (a run that waits for somebody is), 1 if a run failed, 2 for a wrong command\n\
                     line or setting, 3 if what a pipeline uses cannot be found, 4 if a pipeline file is invalid, 130 after Ctrl-C.";

/// The command line of all of them.
pub(super) fn command() -> Command {
    let command = Command::new("flow")
        .about("Runs pipelines, and looks after their runs")
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
                .help("what it is given: JSON, or else a text; - reads standard input"),
        )
        .arg(
            option("context-data", "JSON")
                .allow_hyphen_values(true)
                .help("what it knows from the beginning: an object"),
        )
        .arg(path("context-file", "FILE").conflicts_with("context-data").help("the same from a file, JSON or YAML"))
        .arg(option("run-id", "NAME").help("the run's name [default: one is made]"))
        .arg(duration("timeout").help("how long it may take"))
        .arg(option("max-cost-usd", "USD").value_parser(value_parser!(f64)).help("what it may cost"))
        .arg(option("max-tokens", "N").value_parser(value_parser!(u64)).help("tokens that it may spend"))
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
            .help("how the output is printed: texts as they are and all else as JSON, or always so"),
    ]
}

fn validate() -> Command {
    Command::new("validate")
        .about("Reads pipelines and tells all that is wrong: line, column, code, and how to mend it")
        .arg(pipeline().required(false).num_args(0..).help("files or names; all of the folder when absent"))
        .arg(flag("strict", "warnings fail too"))
        .arg(json("one JSON document: a list of findings"))
}

fn list() -> Command {
    Command::new("list")
        .about("Lists runs, the latest first")
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
    Command::new("show")
        .about("Shows a run: how far it is, what it gave, what it asks")
        .arg(id())
        .arg(json("one JSON document"))
}

fn trace() -> Command {
    Command::new("trace")
        .about("Shows the steps of a run with their times and outputs")
        .arg(id())
        .arg(json("one JSON object a line"))
}

fn replay() -> Command {
    Command::new("replay")
        .about("Goes through a recorded run again without calling anything, and compares what comes out")
        .arg(id())
        .arg(outside())
        .arg(json("one JSON document"))
}

fn resume() -> Command {
    Command::new("resume")
        .about("Takes a run up where it was left: after a pause, a crash or a failure")
        .after_help("Example:\n  caudal flow resume RUN --answer true")
        .arg(id().required_unless_present("all").required(false))
        .arg(flag("all", "all runs whose process is gone").conflicts_with_all(["id", "answer", "at"]))
        .arg(
            option("answer", "TEXT|JSON|-")
                .allow_hyphen_values(true)
                .visible_alias("input")
                .help("what is said to the step that asks: JSON, or else a text"),
        )
        .arg(option("at", "PATH").requires("answer").help("which step is answered, where several ask"))
        .arg(outside())
        .arg(flag("force", "take it from a process that is there and does nothing"))
        .args(output())
}

fn cancel() -> Command {
    Command::new("cancel").about("Ends a run that waits or was left: it never goes on").arg(id())
}

fn explain() -> Command {
    Command::new("explain").about("Tells what a pipeline does, step by step").arg(pipeline())
}

fn visualize() -> Command {
    Command::new("visualize")
        .about("Draws a pipeline")
        .arg(pipeline())
        .arg(
            option("format", "FORM")
                .value_parser(["mermaid", "svg"])
                .default_value("mermaid")
                .help("text for Mermaid, or a picture"),
        )
        .arg(path("output", "FILE").short('o').help("where to write [default: standard output]"))
}

fn leaves() -> Command {
    Command::new("leaves").about("Lists what steps can use").arg(json("with the JSON schemas of their settings"))
}

fn init() -> Command {
    Command::new("init")
        .about("Writes an example pipeline, and flow.yaml, into a folder")
        .arg(Arg::new("dir").value_name("DIR").value_parser(value_parser!(PathBuf)).default_value("pipelines"))
}

fn pipeline() -> Arg {
    Arg::new("pipeline").required(true).value_name("PIPELINE").help("a file, or a name in the folder of pipelines")
}

fn outside() -> Arg {
    option("pipeline", "PIPELINE").help("the run's pipeline, where its file is not in the folder of pipelines")
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

/// Settings that matter to pipelines without a server.
fn for_flows(key: &Key) -> bool {
    let kept = ["data_dir", "record_flush", "pipelines", "record_timezone"];
    super::for_models(key)
        || kept.contains(&key.name)
        || key.name.starts_with("flow_")
        || key.name.starts_with("database_")
}
