//! The command line. Flags of settings are made from the table of settings, so that none can be forgotten.

use std::{collections::BTreeMap, path::PathBuf};

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, value_parser};

use crate::settings::{Key, TABLE, grouped};

mod flow;
mod media;
mod record;

/// The command in which a server tries a model before it loads it.
pub(crate) const TRY_COMMAND: &str = "try-model";

/// The whole command line.
pub(crate) fn command() -> Command {
    Command::new("caudal")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Serves AI models from your own machines and shows where every millisecond goes")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(serve())
        .subcommand(detect())
        .subcommand(embed())
        .subcommand(models())
        .subcommand(explain())
        .subcommand(profile())
        .subcommand(token())
        .subcommand(bench())
        .subcommand(media::command())
        .subcommand(record::command())
        .subcommand(flow::command())
        .subcommand(config())
        .subcommand(read_events())
        .subcommand(try_model())
}

fn read_events() -> Command {
    let number =
        |name, default| option(name, "N").value_parser(value_parser!(u64).range(1..=1_000_000)).default_value(default);
    Command::new(caudal_record::archive::IMPORT_COMMAND)
        .about("Reads the events of an HDF5 file, within limits, for an import")
        .hide(true)
        .arg(Arg::new("file").required(true).value_name("FILE").value_parser(value_parser!(PathBuf)))
        .arg(number("memory-mb", "4096").help("address space"))
        .arg(number("cpu-seconds", "3600").help("CPU time"))
        .arg(number("patience", "30").help("CPU seconds in which it has to find something more"))
}

fn try_model() -> Command {
    let number = |name| option(name, "N").value_parser(value_parser!(u64).range(1..));
    let path =
        |name| option(name, "PATH").value_parser(value_parser!(PathBuf)).required(true).allow_hyphen_values(true);
    Command::new(TRY_COMMAND)
        .about("Loads a model, to see what that takes")
        .hide(true)
        .args([path("library"), path("repository")])
        .arg(option("model", "NAME").required(true).allow_hyphen_values(true))
        .args([number("parent").required(true), number("run-limit-ms").required(true)])
        .args(["instances", "threads", "max-batch-size"].map(number))
}

fn serve() -> Command {
    with_settings(Command::new("serve").about("Serves the models of a repository over HTTP"), |_| true)
}

fn detect() -> Command {
    let command = Command::new("detect")
        .about("Detects objects in images, without a server")
        .arg(
            Arg::new("images")
                .required(true)
                .num_args(1..)
                .value_name("IMAGES")
                .value_parser(value_parser!(PathBuf))
                .help("images, or folders of images"),
        )
        .arg(option("model", "NAME").help("model name; may be left out if only one model detects"))
        .arg(option("conf", "0..1").help("minimum confidence"))
        .arg(option("iou", "0..1").help("IoU threshold for non-maximum suppression"))
        .arg(option("max-det", "N").help("maximum boxes per image"))
        .arg(option("classes", "LIST").help("classes to report, by number or name, comma-separated"))
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("print one JSON object per line instead of a table"),
        )
        .arg(option("draw", "DIR").value_parser(value_parser!(PathBuf)).help("folder to write annotated images to"));
    with_settings(command, for_models)
}

fn embed() -> Command {
    let command = Command::new("embed")
        .about("Computes text embeddings, without a server; prints one JSON object per line")
        .arg(Arg::new("texts").required(true).num_args(1..).value_name("TEXTS").help("texts"))
        .arg(option("model", "NAME").help("model name; may be left out if only one model makes embeddings"))
        .arg(option("dimensions", "N").help("dimensions of each embedding [default: all]"))
        .arg(Arg::new("truncate").long("truncate").action(ArgAction::SetTrue).help("truncate texts that are too long"));
    with_settings(command, for_models)
}

fn models() -> Command {
    let name =
        || Arg::new("name").value_name("MODEL").required(true).help("the model's name: its folder in the repository");
    let json = || Arg::new("json").long("json").action(ArgAction::SetTrue).help("answer as JSON");
    Command::new("models")
        .about("Inspects the model repository and creates optimized model versions")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_settings(
            Command::new("list").about("Lists models with their task and execution plan").arg(json()),
            for_models,
        ))
        .subcommand(with_settings(
            Command::new("show").about("Shows one model: inputs, outputs, classes, plan").arg(name()).arg(json()),
            for_models,
        ))
        .subcommand(with_settings(
            Command::new("doctor").about("Reports problems in the repository and how to fix them").arg(json()),
            for_models,
        ))
        .subcommand(with_settings(
            Command::new("profile")
                .about("Reports how long each operator of a model takes, from ONNX Runtime's profiler")
                .arg(name())
                .arg(option("runs", "N").default_value("20").help("runs to profile"))
                .arg(option("top", "N").default_value("20").help("operators to list"))
                .arg(json()),
            for_models,
        ))
        .subcommand(Command::new("schema").about("Prints the JSON schema of model.yaml, for editors"))
        .subcommand(with_settings(fuse().arg(name()).arg(json()), for_models))
        .subcommand(with_settings(optimize().arg(name()).arg(json()), for_models))
}

fn fuse() -> Command {
    Command::new("fuse")
        .about("Writes a version whose graph takes image bytes and applies NMS itself, if its results are the same")
        .arg(
            option("only", "PART")
                .value_parser(["preprocess", "nms"])
                .help("move only this part into the graph [default: every part that can be moved]"),
        )
        .arg(images().help("images to compare the versions on, or folders of images [default: generated images]"))
}

fn optimize() -> Command {
    Command::new("optimize")
        .about("Tries optimizations such as 8-bit quantization and writes the fastest version within an accuracy bound")
        .arg(images().required(true).help("calibration images like those in production, or folders of images"))
        .arg(
            option("labels", "DIR")
                .value_parser(value_parser!(PathBuf))
                .help("folder of labels: for photo.jpg a photo.txt with lines of `class cx cy width height`"),
        )
        .arg(
            option("max-loss", "0..1")
                .default_value("0.02")
                .help("maximum accuracy loss: of mAP@0.5:0.95 with labels, otherwise of agreement with the original"),
        )
        .arg(option("only", "LIST").help("candidates to try, by name prefix, comma-separated"))
        .arg(option("write", "best|NAME|none").default_value("best").help("the version to write"))
        .arg(option("seconds", "SECONDS").default_value("1").help("seconds to time each candidate, twice"))
}

fn explain() -> Command {
    Command::new("explain")
        .about("Observes a running server, reports what limits it and which change would help")
        .args_override_self(true)
        .arg(option("url", "URL").default_value("http://127.0.0.1:8000").help("URL of the server"))
        .arg(
            option("seconds", "1..300")
                .value_parser(value_parser!(u64).range(1..=300))
                .default_value("5")
                .help("how long to observe"),
        )
        .arg(admin_key())
        .arg(cacert())
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("answer as JSON"))
}

fn token() -> Command {
    Command::new("token")
        .about("Prints the admin token of a server on this machine that has no admin_key")
        .after_help("Example:\n  curl -H \"Authorization: Bearer $(caudal token)\" http://127.0.0.1:8000/admin/memory")
        .arg(
            option("port", "PORT")
                .value_parser(value_parser!(u16))
                .default_value("8000")
                .help("the server's port; its admin_port if set"),
        )
}

fn profile() -> Command {
    Command::new("profile")
        .about("Profiles the CPU time or the heap of a running server")
        .after_help(
            "Examples:\n  \
             caudal profile --seconds 60 -o profile.svg        the server on this machine, as a flame graph\n  \
             caudal profile --pid 4242 --format pprof          the server that is process 4242\n  \
             caudal profile --operators nanodet                with that model's operators under ONNX Runtime's frames\n  \
             caudal profile --heap --format pprof -o a.pb.gz   who holds which memory now\n  \
             caudal profile --diff a.pb.gz b.pb.gz             what grew between two profiles\n  \
             caudal profile -- serve --http-port 8080          a whole run, from start to end",
        )
        .args_override_self(true)
        .arg(option("url", "URL").default_value("http://127.0.0.1:8000").help("URL of the server"))
        .arg(
            option("pid", "PID")
                .value_parser(value_parser!(u32))
                .conflicts_with("url")
                .help("process id of the server, instead of its URL"),
        )
        .arg(
            option("seconds", "1..300")
                .value_parser(value_parser!(u64).range(1..=300))
                .default_value("60")
                .help("how long to sample"),
        )
        .arg(
            option("hz", "1..1000")
                .value_parser(value_parser!(u32).range(1..=1000))
                .default_value("100")
                .help("samples per second of CPU time of each thread"),
        )
        .arg(Arg::new("heap").long("heap").action(ArgAction::SetTrue).help("profile live heap memory instead of CPU time"))
        .arg(
            option("operators", "MODEL")
                .conflicts_with_all(["heap", "diff", "command"])
                .help("a model whose operators replace the frames of ONNX Runtime, by their share of its time; they are measured first"),
        )
        .arg(
            option("format", "FORM")
                .value_parser(["svg", "pprof", "collapsed", "speedscope"])
                .default_value("svg")
                .help("output format: a flame graph, pprof protobuf, collapsed stacks, or JSON for speedscope"),
        )
        .arg(
            option("output", "FILE")
                .short('o')
                .value_parser(value_parser!(PathBuf))
                .help("output file [default: profile or heap with the extension of its format, in the working folder]"),
        )
        .arg(admin_key())
        .arg(cacert())
        .arg(
            Arg::new("diff")
                .long("diff")
                .num_args(2)
                .value_names(["BEFORE", "AFTER"])
                .value_parser(value_parser!(PathBuf))
                .conflicts_with_all(["url", "pid", "heap", "command"])
                .help("compare two profiles in collapsed or pprof format"),
        )
        .arg(
            Arg::new("command")
                .last(true)
                .num_args(1..)
                .value_name("COMMAND")
                .conflicts_with_all(["url", "pid", "heap"])
                .help("a caudal command to run and to profile from start to end"),
        )
}

fn bench() -> Command {
    Command::new("bench")
        .about("Load-tests a server; benchmarks archive codecs")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(bench_codec())
        .subcommand(bench_replay())
        .subcommand(bench_run())
}

/// Exit codes of the load tests.
const BENCH_CODES: &str = "Exit code: 0 if every request was sent and answered without an error, 1 if some were not, the \
                           server cannot be reached\nor the first requests are all refused with 401, 403 or 404, 2 for a wrong command line or trace, 130 \
                           after Ctrl-C, which prints the report so far.";

fn bench_codec() -> Command {
    let number = |name, value, default, most| {
        option(name, value).value_parser(value_parser!(u64).range(1..=most)).default_value(default)
    };
    let file = |name, value| option(name, value).value_parser(value_parser!(PathBuf));
    Command::new("codec")
        .about("Benchmarks the compression codecs of archives, without a server, and recommends one")
        .after_help(
            "Examples:\n  caudal bench codec\n  caudal bench codec --events 100000 --json codecs.json --plot codecs.svg",
        )
        .arg(number("events", "N", "1000", 1_000_000).help("events per corpus"))
        .arg(number("bytes", "N", "1000", 1_000_000).help("approximate size of a realistic event, in bytes"))
        .arg(number("repeats", "N", "5", 1_000).help("measurements of each codec; the median is reported"))
        .arg(file("json", "FILE").help("write the measurements to this file, as JSON"))
        .arg(file("plot", "FILE").help("write a plot to this file, as SVG"))
        .arg(file("dir", "DIR").help("folder for temporary files, on the disk to measure [default: the system's]"))
}

fn bench_replay() -> Command {
    let examples = "Examples:\n  \
                    curl -s -H \"Authorization: Bearer $(caudal token)\" -o arrivals.ndjson \\\n    \
                    'http://127.0.0.1:8000/admin/requests/trace?format=arrivals'\n  \
                    caudal bench replay arrivals.ndjson --input photos/\n  \
                    caudal bench replay arrivals.ndjson --url http://10.0.0.7:8000 --speed 2 --json";
    let command = Command::new("replay")
        .about("Replays recorded arrivals, each at its time, without waiting for earlier responses")
        .after_help(format!("{examples}\n\n{BENCH_CODES}"))
        .arg(
            Arg::new("trace")
                .required(true)
                .value_name("TRACE")
                .value_parser(value_parser!(PathBuf))
                .help("response of GET /admin/requests/trace?format=arrivals; - reads standard input"),
        )
        .arg(
            option("speed", "TIMES")
                .value_parser(value_parser!(f64))
                .default_value("1")
                .help("speed relative to the recording"),
        )
        .arg(duration("last").help("replay only the last part of the trace, such as 30s"))
        .arg(bench_input().help(
            "request inputs, the nearest in size for each arrival: images or folders of images, texts (.txt), request bodies for tensors or \
             embeddings (.json); made up when absent",
        ));
    with_load(command)
}

fn bench_run() -> Command {
    let examples = "Examples:\n  \
                    caudal bench run --model small --input bus.jpg --connections 8 --duration 30s\n  \
                    caudal bench run --model small --input photos/ --rate 50 --arrivals poisson --duration 1m";
    let number = |name, value| option(name, value).value_parser(value_parser!(usize));
    let command = Command::new("run")
        .about("Load-tests one model: closed loop over connections, or open loop at a rate")
        .after_help(format!("{examples}\n\n{BENCH_CODES}"))
        .arg(option("model", "NAME").required(true).help("the model"))
        .arg(bench_input().required(true).help(
            "request inputs, used in turn: images or folders of images, texts (.txt), request bodies for tensors or embeddings (.json)",
        ))
        .arg(
            number("connections", "N")
                .help("connections, each of which sends its next request after a response; either this or --rate"),
        )
        .arg(
            option("rate", "N")
                .value_parser(value_parser!(f64))
                .help("requests per second, sent without waiting for responses; either this or --connections"),
        )
        .group(ArgGroup::new("load").args(["connections", "rate"]).required(true))
        .arg(
            option("arrivals", "HOW")
                .value_parser(["constant", "poisson"])
                .default_value("constant")
                .requires("rate")
                .help("with --rate: arrival process, evenly spaced or Poisson"),
        )
        .arg(
            option("seed", "N")
                .value_parser(value_parser!(u64))
                .default_value("1")
                .requires("rate")
                .help("random seed for --arrivals poisson"),
        )
        .arg(duration("duration").default_value("10s").help("measured time"))
        .arg(duration("warmup").default_value("0s").help("time of unmeasured requests before it"))
        .arg(
            option("requests", "N")
                .value_parser(value_parser!(u64))
                .help("maximum requests, warm-up included [default: 10 million]"),
        );
    with_load(command)
}

fn bench_input() -> Arg {
    Arg::new("input").long("input").num_args(1..).value_name("PATH").value_parser(value_parser!(PathBuf))
}

fn duration(name: &'static str) -> Arg {
    option(name, "TIME").value_parser(humantime::parse_duration)
}

fn with_load(command: Command) -> Command {
    command
        .arg(option("url", "URL").default_value("http://127.0.0.1:8000").help("the server"))
        .arg(cacert())
        .arg(option("in-flight", "N").value_parser(value_parser!(usize)).help(
            "maximum requests in flight when sent by schedule; further ones are not sent, but counted [default: 10000]",
        ))
        .arg(duration("timeout").default_value("60s").help("timeout of a request"))
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("print only the report, as one JSON object"))
}

fn admin_key() -> Arg {
    option("key", "SECRET").help(
        "the server's admin key; for a server of this user on this machine, its token is found without [env: \
         CAUDAL_ADMIN_KEY]",
    )
}

fn cacert() -> Arg {
    option("cacert", "FILE").value_parser(value_parser!(PathBuf)).help(
        "certificates (PEM) of the authorities that are trusted for https:// [default: those that browsers trust]",
    )
}

fn images() -> Arg {
    Arg::new("images").long("images").num_args(1..).value_name("PATH").value_parser(value_parser!(PathBuf))
}

fn config() -> Command {
    let command = Command::new("config")
        .about("Shows every setting, its value and its source")
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("answer as JSON"));
    with_settings(command, |_| true)
}

fn option(name: &'static str, value: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value)
}

/// Settings of commands that run models without a server.
fn for_models(key: &Key) -> bool {
    const NAMES: [&str; 9] = [
        "model_repository",
        "onnxruntime_library",
        "instances",
        "threads",
        "max_batch_size",
        "providers",
        "max_image_megapixels",
        "max_pixel_memory_mb",
        "log_level",
    ];
    NAMES.contains(&key.name)
}

fn with_settings(command: Command, wanted: fn(&Key) -> bool) -> Command {
    let file = option("config", "FILE")
        .value_parser(value_parser!(PathBuf))
        .help("settings file [default: caudal.yaml, if it is there] [env: CAUDAL_CONFIG]");
    // The last of two equal flags wins, as scripts that add their own expect.
    let command = command.arg(file).args_override_self(true);
    let wanted = grouped()
        .flat_map(|(heading, keys)| keys.into_iter().map(move |key| (heading, key)))
        .filter(|(_, key)| wanted(key));
    wanted.fold(command, |command, (heading, key)| command.arg(setting(heading, key)))
}

fn setting(heading: &'static str, key: &'static Key) -> Arg {
    let default = match (key.default, key.unset()) {
        ("", "(automatic)") => " [default: automatic]".to_owned(),
        ("", _) => String::new(),
        (value, _) => format!(" [default: {value}]"),
    };
    let argument = Arg::new(key.name)
        .long(key.flag())
        .value_name(key.value)
        .help(format!("{}{default} [env: {}]", key.help, key.variable()))
        .help_heading(heading);
    match (key.name, key.value) {
        // As other servers call it.
        ("http_port", _) => argument.visible_alias("port").allow_hyphen_values(true),
        // A switch may stand alone, and then what follows is not its value.
        (_, "BOOL") => argument.num_args(0..=1).default_missing_value("true"),
        // A value may begin with a dash: whether it may be is for the setting to say.
        _ => argument.allow_hyphen_values(true),
    }
}

/// The settings among the flags.
pub(crate) fn settings(matches: &ArgMatches) -> BTreeMap<&'static str, String> {
    let given = |key: &'static Key| Some((key.name, matches.try_get_one::<String>(key.name).ok()??.clone()));
    TABLE.iter().filter_map(given).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_makes_sense() {
        super::command().debug_assert();
    }
}
