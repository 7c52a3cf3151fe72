//! `caudal profile`: what a server spends its CPU time on, what it holds, what a whole run spent, and what changed.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use caudal_profiler::{Format, Profile, ProfileDiff, Recording};
use caudal_types::Explain;
use clap::ArgMatches;

use super::{
    CommandError, other,
    remote::{self, Question},
    usage,
};
use crate::cli;

/// How long a server may take to give names to what it sampled.
const PATIENCE: Duration = Duration::from_secs(60);
/// What to say where a profile has no samples.
const IDLE: &str = "the server was idle: no CPU samples. Send requests while profiling, or raise --seconds";
/// Functions that are told of what grew.
const TOLD: usize = 10;

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let order = Order::read(matches)?;
    if let Some(files) = matches.get_many::<PathBuf>("diff") {
        return compare(&files.collect::<Vec<_>>(), &order);
    }
    match matches.get_many::<String>("command") {
        Some(words) => whole_run(words, &order),
        None => from_server(matches, &order),
    }
}

/// What should be written, and where.
struct Order {
    seconds: u64,
    hz: u32,
    heap: bool,
    format: Format,
    file: PathBuf,
}

impl Order {
    fn read(matches: &ArgMatches) -> Result<Self, CommandError> {
        let format = matches.get_one::<String>("format").map_or(Ok(Format::Svg), |name| name.parse()).map_err(usage)?;
        let heap = matches.get_flag("heap");
        let file = matches.get_one::<PathBuf>("output").cloned();
        Ok(Self {
            seconds: *matches.get_one("seconds").expect("it has a default"),
            hz: *matches.get_one("hz").expect("it has a default"),
            heap,
            format,
            file: file.unwrap_or_else(|| default_file(heap, format)),
        })
    }

    fn write(&self, bytes: &[u8]) -> Result<(), CommandError> {
        let file = self.file.display();
        if !self.heap && self.format.is_idle(bytes) {
            eprintln!("{IDLE}");
        }
        fs::write(&self.file, bytes).map_err(|error| other(format!("{file} cannot be written: {error}")))?;
        println!("written: {file} ({:.1} kB)", bytes.len() as f64 / 1e3);
        Ok(())
    }
}

fn default_file(heap: bool, format: Format) -> PathBuf {
    let name = if heap { "heap" } else { "profile" };
    let ending = match format {
        Format::Svg => "svg",
        Format::Pprof => "pb.gz",
        Format::Collapsed => "txt",
        Format::Speedscope => "speedscope.json",
    };
    format!("{name}.{ending}").into()
}

fn explained(error: &impl Explain) -> CommandError {
    other(format!("{error}; {}", error.hint()))
}

/// Asks a server that runs.
fn from_server(matches: &ArgMatches, order: &Order) -> Result<ExitCode, CommandError> {
    let mut bases = match matches.get_one::<u32>("pid") {
        Some(pid) => remote::addresses_of(*pid)?,
        None => matches.get_one::<String>("url").into_iter().cloned().collect(),
    };
    let (seconds, hz, format) = (order.seconds, order.hz, order.format.name());
    let (path, takes) = match order.heap {
        true => (format!("/debug/pprof/heap?format={format}"), Duration::ZERO),
        false => {
            let operators = matches.get_one::<String>("operators");
            let operators = operators.map_or_else(String::new, |model| format!("&operators={}", escaped(model)));
            let path = format!("/debug/pprof/profile?seconds={seconds}&hz={hz}&format={format}{operators}");
            (path, Duration::from_secs(seconds))
        }
    };
    let access = remote::Access::of(matches);
    let mut base = bases.pop().expect("--url has a default, and a process one address at least");
    if let (Some(model), false) = (matches.get_one::<String>("operators"), order.heap) {
        eprintln!("measuring the operators of {model}, then sampling for {seconds} s");
    }
    loop {
        let question = Question { base: &base, path: &path, access: access.clone(), takes, patience: PATIENCE };
        let answer = remote::ask(&question)?;
        match (answer.status, bases.pop()) {
            (200, _) => {
                order.write(&answer.body)?;
                return Ok(ExitCode::SUCCESS);
            }
            // It is not administered at this one.
            (404, Some(next)) if answer.code() == "not_found" => base = next,
            _ => return Err(other(answer.refusal(&base))),
        }
    }
}

/// A name as it stands in an address.
fn escaped(name: &str) -> String {
    form_urlencoded::byte_serialize(name.as_bytes()).collect()
}

/// Samples this process while it runs another command of ours.
fn whole_run<'a>(words: impl Iterator<Item = &'a String>, order: &Order) -> Result<ExitCode, CommandError> {
    let inner = cli::command().get_matches_from(["caudal"].into_iter().chain(words.map(String::as_str)));
    if inner.subcommand_name() == Some("profile") {
        return Err(usage("a profile of `caudal profile` shows nothing: name another command"));
    }
    let recording = Recording::start(order.hz).map_err(|error| explained(&error))?;
    let outcome = super::run(&inner);
    let written = recording.finish().and_then(|profile| order.format.write(&profile));
    match written {
        Ok(bytes) => order.write(&bytes)?,
        Err(error) if outcome.is_ok() => return Err(explained(&error)),
        // Why the command failed is what matters.
        Err(_) => {}
    }
    outcome
}

fn compare(files: &[&PathBuf], order: &Order) -> Result<ExitCode, CommandError> {
    if order.format != Format::Svg {
        return Err(usage("what changed is shown as a flame graph: --format svg"));
    }
    let read = |file: &PathBuf| -> Result<Profile, CommandError> {
        let name = file.display();
        let bytes = fs::read(file).map_err(|error| other(format!("{name} cannot be read: {error}")))?;
        Profile::from_bytes(&bytes).map_err(|error| other(format!("{name}: {error}; {}", error.hint())))
    };
    let difference = ProfileDiff::new(read(files[0])?, read(files[1])?);
    let svg = difference.flamegraph().map_err(|error| explained(&error))?;
    let grown = difference.grown_functions();
    if !grown.is_empty() {
        println!("{:>14} more, with what it calls", difference.weight_unit());
    }
    for growth in grown.iter().take(TOLD) {
        println!("{:>14} {}", format!("+{}", growth.by), growth.name);
    }
    order.write(&svg)?;
    Ok(ExitCode::SUCCESS)
}
