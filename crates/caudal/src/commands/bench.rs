//! `caudal bench`: load from outside, and what came of it.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use caudal_load::{
    ArrivalTrace, ClosedLoop, Control, EndReason, Inputs, Limits, LoadError, OpenLoop, Report, Request, Schedule,
    Target, closed_loop, open_loop, plan_replay,
};
use caudal_types::{ErrorKind, Explain};
use clap::ArgMatches;
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use super::{CommandError, bench_codec, bench_table, other, pictures, usage};

/// How often the bar moves.
const STEP: Duration = Duration::from_millis(100);
/// So many answers must have come before a load ends because all of them refuse it.
const ENOUGH_REFUSALS: u64 = 10;
/// What a shell answers for a process that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    if let Some(("codec", matches)) = matches.subcommand() {
        return bench_codec::run(matches);
    }
    allow_sockets();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| other(format!("the async runtime could not be started: {error}")))?;
    let (report, json) = match matches.subcommand() {
        Some(("replay", matches)) => (runtime.block_on(replay(matches))?, matches.get_flag("json")),
        Some(("run", matches)) => (runtime.block_on(load(matches))?, matches.get_flag("json")),
        _ => return Err(usage("see `caudal bench --help`")),
    };
    tell(&report, json);
    Ok(match report.ended {
        EndReason::Stopped => ExitCode::from(INTERRUPTED),
        _ if report.failed() > 0 => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}

async fn replay(matches: &ArgMatches) -> Result<Report, CommandError> {
    let trace = read_trace(matches.get_one::<PathBuf>("trace").expect("it is required"))?;
    let trace = match matches.get_one::<Duration>("last") {
        Some(time) => trace.keep_last(*time).map_err(explained)?,
        None => trace,
    };
    let inputs = inputs(matches)?;
    let target = target(matches).await?;
    let speed = *matches.get_one("speed").expect("it has a default");
    let replay = plan_replay(&trace, target, &inputs, speed).await.map_err(explained)?;
    let bar = bar(replay.duration(), &format!("{} requests", replay.request_count()));
    let control = Control::default();
    watched(replay.run(limits(matches), control.clone()), &control, &bar).await
}

async fn load(matches: &ArgMatches) -> Result<Report, CommandError> {
    let model = matches.get_one::<String>("model").expect("it is required");
    let inputs = inputs(matches)?;
    let requests: Arc<[Request]> = inputs.as_slice().iter().map(|input| Request::for_input(model, input)).collect();
    let target = target(matches).await?;
    let time = |name: &str| *matches.get_one::<Duration>(name).expect("it has a default");
    let (duration, warm_up, limits) = (time("duration"), time("warmup"), limits(matches));
    let (control, bar) = (Control::default(), bar(duration.saturating_add(warm_up), model));
    match matches.get_one::<f64>("rate") {
        Some(rate) => {
            let schedule = schedule(matches, *rate, duration.saturating_add(warm_up));
            let config = OpenLoop { target, requests, schedule, warm_up, limits };
            watched(open_loop(config, control.clone()), &control, &bar).await
        }
        None => {
            let connections = *matches.get_one("connections").expect("one of the two is required");
            let config = ClosedLoop { target, requests, connections, warm_up, duration, limits };
            watched(closed_loop(config, control.clone()), &control, &bar).await
        }
    }
}

fn schedule(matches: &ArgMatches, rate: f64, duration: Duration) -> Schedule {
    match matches.get_one::<String>("arrivals").map(String::as_str) {
        Some("poisson") => {
            let seed = *matches.get_one("seed").expect("it has a default");
            Schedule::Poisson { rate, duration, seed }
        }
        _ => Schedule::Constant { rate, duration },
    }
}

fn limits(matches: &ArgMatches) -> Limits {
    let limits = Limits::default();
    let requests = matches.try_get_one::<u64>("requests").ok().flatten();
    Limits {
        in_flight: matches.get_one("in-flight").copied().unwrap_or(limits.in_flight),
        requests: requests.copied().unwrap_or(limits.requests),
        timeout: *matches.get_one("timeout").expect("it has a default"),
    }
}

async fn target(matches: &ArgMatches) -> Result<Target, CommandError> {
    let url = matches.get_one::<String>("url").expect("it has a default");
    let authorities = matches.get_one::<PathBuf>("cacert").map(PathBuf::as_path);
    Target::connect_trusting(url, authorities).await.map_err(explained)
}

fn inputs(matches: &ArgMatches) -> Result<Inputs, CommandError> {
    let files = pictures::files(matches.get_many::<PathBuf>("input").unwrap_or_default())?;
    Inputs::read_files(&files).map_err(explained)
}

fn read_trace(file: &Path) -> Result<ArrivalTrace, CommandError> {
    let text: Box<dyn BufRead> = match file == Path::new("-") {
        true => Box::new(io::stdin().lock()),
        false => {
            let failed = |error| other(format!("{} cannot be read: {error}", file.display()));
            Box::new(BufReader::new(File::open(file).map_err(failed)?))
        }
    };
    ArrivalTrace::read_lines(text).map_err(explained)
}

/// Waits for a load with a bar, and stops it at Ctrl-C.
async fn watched(
    load: impl Future<Output = Result<Report, LoadError>>,
    control: &Control,
    bar: &ProgressBar,
) -> Result<Report, CommandError> {
    let interrupts = signal(SignalKind::interrupt());
    let mut interrupts = interrupts.map_err(|error| other(format!("Ctrl-C cannot be waited for: {error}")))?;
    let began = Instant::now();
    let mut load = std::pin::pin!(load);
    let mut refused = false;
    let report = loop {
        tokio::select! {
            report = &mut load => break report,
            Some(()) = interrupts.recv() => control.stop(),
            () = tokio::time::sleep(STEP) => {
                let so_far = control.progress();
                refused |= so_far.answered >= ENOUGH_REFUSALS && so_far.refused == so_far.answered;
                if refused {
                    control.stop();
                }
                bar.set_position((began.elapsed().as_millis() as u64).min(bar.length().unwrap_or_default()));
                bar.set_message(format!("{} sent, {} answered, {} failed", so_far.sent, so_far.answered, so_far.failed));
            }
        }
    };
    bar.finish_and_clear();
    match report.map_err(explained)? {
        report if refused => Err(refusal(&report)),
        report => Ok(report),
    }
}

/// The error of a load that the server refuses altogether.
fn refusal(report: &Report) -> CommandError {
    let statuses: Vec<String> = report.statuses.keys().map(u16::to_string).collect();
    let codes: Vec<&str> = report.codes.keys().map(String::as_str).collect();
    let codes = if codes.is_empty() { String::new() } else { format!(" ({})", codes.join(", ")) };
    other(format!(
        "{} refused all of the first requests with {}{codes}; check the model's name and the URL, and whether the server \
         wants a key",
        report.url,
        if statuses.is_empty() { "401, 403 or 404".to_owned() } else { statuses.join(" and ") },
    ))
}

fn bar(length: Duration, what: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix} {bar:30} {elapsed}, {eta} left: {msg}");
    let style = style.expect("the template is a constant");
    ProgressBar::new(length.as_millis() as u64).with_style(style).with_prefix(what.to_owned())
}

fn tell(report: &Report, json: bool) {
    let text = match json {
        true => serde_json::to_string(report).expect("a report is plain data") + "\n",
        false => bench_table::table(report),
    };
    print!("{text}");
}

fn explained(error: LoadError) -> CommandError {
    let words = format!("{error}; {}", error.hint());
    match error.kind() {
        ErrorKind::InvalidParameter | ErrorKind::InvalidRequest => usage(words),
        _ => other(words),
    }
}

/// Each request under way holds a socket: as many as the system lets us have. Fewer show up as `own_limit`.
fn allow_sockets() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
