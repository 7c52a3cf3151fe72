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
        .about("Finds objects in pictures, without a server")
        .arg(
            Arg::new("images")
                .required(true)
                .num_args(1..)
                .value_name("IMAGES")
                .value_parser(value_parser!(PathBuf))
                .help("pictures, or folders of them"),
        )
        .arg(option("model", "NAME").help("model name; may be left out if only one model detects"))
        .arg(option("conf", "0..1").help("least confidence"))
        .arg(option("iou", "0..1").help("overlap above which the weaker of two boxes of a class goes"))
        .arg(option("max-det", "N").help("most boxes in a picture"))
        .arg(option("classes", "LIST").help("classes that count, by number or name, comma-separated"))
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("one JSON object a line instead of a table"))
        .arg(
            option("draw", "DIR")
                .value_parser(value_parser!(PathBuf))
                .help("write the pictures with the boxes on them there"),
        );
    with_settings(command, for_models)
}

fn embed() -> Command {
    let command = Command::new("embed")
        .about("Makes vectors of texts, without a server: one JSON object a line")
        .arg(Arg::new("texts").required(true).num_args(1..).value_name("TEXTS").help("texts"))
        .arg(option("model", "NAME").help("model name; may be left out if only one model makes embeddings"))
        .arg(option("dimensions", "N").help("values of each vector; all when absent"))
        .arg(Arg::new("truncate").long("truncate").action(ArgAction::SetTrue).help("cut texts that are too long"));
    with_settings(command, for_models)
}

fn models() -> Command {
    let name =
        || Arg::new("name").value_name("MODEL").required(true).help("the model's name: its folder in the repository");
    let json = || Arg::new("json").long("json").action(ArgAction::SetTrue).help("answer as JSON");
    Command::new("models")
        .about("Looks at the model repository, and makes new versions of its models")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_settings(
            Command::new("list").about("Lists the models with what they do and how they run").arg(json()),
            for_models,
        ))
        .subcommand(with_settings(
            Command::new("show").about("Shows one model: inputs, outputs, classes, plan").arg(name()).arg(json()),
            for_models,
        ))
        .subcommand(with_settings(
            Command::new("doctor")
                .about("Explains what is wrong with the repository, where, and how to mend it")
                .arg(json()),
            for_models,
        ))
        .subcommand(with_settings(
            Command::new("profile")
                .about("Tells which operators of a model take how long, by ONNX Runtime's own profile")
                .arg(name())
                .arg(option("runs", "N").default_value("20").help("runs to watch"))
                .arg(option("top", "N").default_value("20").help("operators to tell"))
                .arg(json()),
            for_models,
        ))
        .subcommand(Command::new("schema").about("Prints the JSON schema of model.yaml, for editors"))
        .subcommand(with_settings(fuse().arg(name()).arg(json()), for_models))
        .subcommand(with_settings(optimize().arg(name()).arg(json()), for_models))
}

fn fuse() -> Command {
    Command::new("fuse")
        .about("Writes a version that takes bytes and removes duplicates within its graph, if it answers the same")
        .arg(
            option("only", "PART")
                .value_parser(["preprocess", "nms"])
                .help("move this alone into the graph; all that can be when absent"),
        )
        .arg(images().help("pictures to compare the versions on, or folders of them; made ones when absent"))
}

fn optimize() -> Command {
    Command::new("optimize")
        .about("Tries what makes a model quicker, 8 bits above all, and writes the quickest version within a bound")
        .arg(images().required(true).help("pictures like those that it will see, or folders of them"))
        .arg(
            option("labels", "DIR")
                .value_parser(value_parser!(PathBuf))
                .help("what they show: for photo.jpg a photo.txt with lines of `class cx cy width height`"),
        )
        .arg(
            option("max-loss", "0..1")
                .default_value("0.02")
                .help("most that a version may lose: of mAP@0.5:0.95 with labels, else of what agrees"),
        )
        .arg(option("only", "LIST").help("candidates to try, by the beginnings of their names, comma-separated"))
        .arg(option("write", "best|NAME|none").default_value("best").help("the version to write"))
        .arg(option("seconds", "SECONDS").default_value("1").help("how long each candidate is timed, twice"))
}

fn explain() -> Command {
    Command::new("explain")
        .about("Watches a server that runs and tells what limits it, and what would help")
        .args_override_self(true)
        .arg(option("url", "URL").default_value("http://127.0.0.1:8000").help("the server to ask"))
        .arg(
            option("seconds", "1..300")
                .value_parser(value_parser!(u64).range(1..=300))
                .default_value("5")
                .help("how long to watch"),
        )
        .arg(admin_key())
        .arg(cacert())
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("answer as JSON"))
}

fn token() -> Command {
    Command::new("token")
        .about("Prints the admin token of a server that runs on this machine without an admin_key")
        .after_help("Example:\n  curl -H \"Authorization: Bearer $(caudal token)\" http://127.0.0.1:8000/admin/memory")
        .arg(
            option("port", "PORT")
                .value_parser(value_parser!(u16))
                .default_value("8000")
                .help("the server's port; its admin_port where it has one"),
        )
}

fn profile() -> Command {
    Command::new("profile")
        .about("Shows what a server that runs spends its CPU time on and which memory it holds")
        .after_help(
            "Examples:\n  \
             caudal profile --seconds 60 -o profile.svg        the server on this machine, as a flame graph\n  \
             caudal profile --pid 4242 --format pprof          the server that is process 4242\n  \
             caudal profile --operators nanodet                with that model's operators under ONNX Runtime's frames\n  \
             caudal profile --heap --format pprof -o a.pb.gz   who holds which memory now\n  \
             caudal profile --diff a.pb.gz b.pb.gz             what grew between two profiles\n  \
             caudal profile -- serve --http-port 8080          a whole run, from its start to its end",
        )
        .args_override_self(true)
        .arg(option("url", "URL").default_value("http://127.0.0.1:8000").help("the server to ask"))
        .arg(
            option("pid", "PID")
                .value_parser(value_parser!(u32))
                .conflicts_with("url")
                .help("the server's process, instead of its URL"),
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
                .help("samples for each second that a thread works"),
        )
        .arg(Arg::new("heap").long("heap").action(ArgAction::SetTrue).help("memory that is held, instead of CPU time"))
        .arg(
            option("operators", "MODEL")
                .conflicts_with_all(["heap", "diff", "command"])
                .help("a model whose operators stand on the frames of ONNX Runtime, by their share of its time; they are measured first"),
        )
        .arg(
            option("format", "FORM")
                .value_parser(["svg", "pprof", "collapsed", "speedscope"])
                .default_value("svg")
                .help("a flame graph, pprof's protobuf, text with a stack a line, or JSON for speedscope"),
        )
        .arg(
            option("output", "FILE")
                .short('o')
                .value_parser(value_parser!(PathBuf))
                .help("where to write [default: profile or heap with the ending of its form, here]"),
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
                .help("compares two profiles that were written as collapsed or pprof"),
        )
        .arg(
            Arg::new("command")
                .last(true)
                .num_args(1..)
                .value_name("COMMAND")
                .conflicts_with_all(["url", "pid", "heap"])
                .help("a command of caudal to run and to sample from its start to its end"),
        )
}

fn bench() -> Command {
    Command::new("bench")
        .about("Sends load to a server and counts what comes back; times the codecs of archives")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(bench_codec())
        .subcommand(bench_replay())
        .subcommand(bench_run())
}

/// What scripts must know of both.
const BENCH_CODES: &str = "Exit code: 0 if every request was sent and answered without an error, 1 if some were not, the \
                           server cannot be reached\nor the first requests are all refused with 401, 403 or 404, 2 for a wrong command line or trace, 130 \
                           after Ctrl-C, which prints the report so far.";

fn bench_codec() -> Command {
    let number = |name, value, default, most| {
        option(name, value).value_parser(value_parser!(u64).range(1..=most)).default_value(default)
    };
    let file = |name, value| option(name, value).value_parser(value_parser!(PathBuf));
    Command::new("codec")
        .about("Times the codecs that archives of records can have, without a server, and recommends one")
        .after_help(
            "Examples:\n  caudal bench codec\n  caudal bench codec --events 100000 --json codecs.json --plot codecs.svg",
        )
        .arg(number("events", "N", "1000", 1_000_000).help("events of each corpus"))
        .arg(number("bytes", "N", "1000", 1_000_000).help("bytes of a realistic event, about"))
        .arg(number("repeats", "N", "5", 1_000).help("how often each is timed; the median counts"))
        .arg(file("json", "FILE").help("write what was measured there, as JSON"))
        .arg(file("plot", "FILE").help("write a plot there, as SVG"))
        .arg(file("dir", "DIR").help("where files are written meanwhile: the disk that is to be timed [default: the system's]"))
}

fn bench_replay() -> Command {
    let examples = "Examples:\n  \
                    curl -s -H \"Authorization: Bearer $(caudal token)\" -o arrivals.ndjson \\\n    \
                    'http://127.0.0.1:8000/admin/requests/trace?format=arrivals'\n  \
                    caudal bench replay arrivals.ndjson --input photos/\n  \
                    caudal bench replay arrivals.ndjson --url http://10.0.0.7:8000 --speed 2 --json";
    let command = Command::new("replay")
        .about("Sends recorded arrivals again, each at its time, whatever became of those before")
        .after_help(format!("{examples}\n\n{BENCH_CODES}"))
        .arg(
            Arg::new("trace")
                .required(true)
                .value_name("TRACE")
                .value_parser(value_parser!(PathBuf))
                .help("what GET /admin/requests/trace?format=arrivals answered; - reads it from standard input"),
        )
        .arg(
            option("speed", "TIMES")
                .value_parser(value_parser!(f64))
                .default_value("1")
                .help("how many times as fast as recorded"),
        )
        .arg(duration("last").help("only the last so long of the trace, such as 30s"))
        .arg(bench_input().help(
            "what requests carry, the nearest in size each: pictures or folders of them, texts (.txt), bodies of tensors or \
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
        .about("Asks one model again and again: by connections that wait for answers, or at a rate")
        .after_help(format!("{examples}\n\n{BENCH_CODES}"))
        .arg(option("model", "NAME").required(true).help("the model"))
        .arg(bench_input().required(true).help(
            "what requests carry, in turn: pictures or folders of them, texts (.txt), bodies of tensors or embeddings (.json)",
        ))
        .arg(
            number("connections", "N")
                .help("connections that send the next request when they have the last answer; either this or --rate"),
        )
        .arg(
            option("rate", "N")
                .value_parser(value_parser!(f64))
                .help("requests a second, whatever became of those before; either this or --connections"),
        )
        .group(ArgGroup::new("load").args(["connections", "rate"]).required(true))
        .arg(
            option("arrivals", "HOW")
                .value_parser(["constant", "poisson"])
                .default_value("constant")
                .requires("rate")
                .help("with --rate: at equal distances, or as from many who do not know of each other"),
        )
        .arg(
            option("seed", "N")
                .value_parser(value_parser!(u64))
                .default_value("1")
                .requires("rate")
                .help("with --arrivals poisson: other times for another seed"),
        )
        .arg(duration("duration").default_value("10s").help("how long requests are sent and counted"))
        .arg(duration("warmup").default_value("0s").help("how long requests are sent before that, and not counted"))
        .arg(
            option("requests", "N")
                .value_parser(value_parser!(u64))
                .help("ends after so many, those that warm up included [default: 10 million]"),
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
            "most requests at once where they are sent at their time; more are not sent, and counted [default: 10000]",
        ))
        .arg(duration("timeout").default_value("60s").help("how long a request may take"))
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("the report as one JSON object, and nothing else"),
        )
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
        .about("Shows every setting, its value and where that came from")
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("answer as JSON"));
    with_settings(command, |_| true)
}

fn option(name: &'static str, value: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value)
}

/// Settings that matter where no server runs.
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
    let default = if key.default.is_empty() { String::new() } else { format!(" [default: {}]", key.default) };
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
