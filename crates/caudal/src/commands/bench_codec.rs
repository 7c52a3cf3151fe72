//! `caudal bench codec`: which codec archives should have on this machine.

use std::{
    fmt::Write as _,
    fs,
    io::{self, IsTerminal as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use caudal_record::archive::{
    ArchiveError,
    bench::{FAST_ENOUGH, Layout, Plan, Report, codecs},
};
use caudal_types::Explain as _;
use clap::ArgMatches;
use indicatif::ProgressBar;

use super::{CommandError, bench_plot, other};

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let number = |name: &str| *matches.get_one::<u64>(name).expect("it has a default");
    let (events, bytes) = (number("events"), number("bytes") as usize);
    let plan = Plan { events, bytes, repeats: number("repeats") as usize };
    let path = |name: &str| matches.get_one::<PathBuf>(name).cloned();
    let base = path("dir").unwrap_or_else(std::env::temp_dir);
    let folder = base.join(format!("caudal-codec-{}", std::process::id()));
    let failed = |error: io::Error| other(format!("{}: {error}", folder.display()));
    fs::create_dir_all(&folder).map_err(failed)?;
    let bar = if io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    bar.enable_steady_tick(Duration::from_millis(100));
    let report = codecs(plan, &folder, &mut |what| bar.set_message(what.to_owned()));
    bar.finish_and_clear();
    let _ = fs::remove_dir_all(&folder);
    let report = report.map_err(explained)?;
    let write = |file: PathBuf, text: &str| {
        fs::write(&file, text).map_err(|error| other(format!("{} cannot be written: {error}", file.display())))
    };
    if let Some(file) = path("json") {
        write(file, &(serde_json::to_string_pretty(&report).expect("a report is plain data") + "\n"))?;
    }
    if let Some(file) = path("plot") {
        write(file, &bench_plot::svg(&report))?;
    }
    print!("{}", table(&report, plan));
    Ok(ExitCode::SUCCESS)
}

fn explained(error: ArchiveError) -> CommandError {
    other(format!("{error}; {}", error.hint()))
}

fn table(report: &Report, plan: Plan) -> String {
    let mut text = format!(
        "{} events of about {} bytes, one thread, written until they are on disk, read from the page cache\n\n\
         {:<10} {:<8} {:<8} {:>9} {:>9} {:>10} {:>6} {:>10} {:>9}  {}\n",
        plan.events,
        plan.bytes,
        "corpus",
        "layout",
        "codec",
        "write ms",
        "read ms",
        "size KB",
        "ratio",
        "write MB/s",
        "read MB/s",
        "opens with"
    );
    for row in &report.rows {
        let layout = if row.layout == Layout::Chunks { "chunks" } else { "strings" };
        let _ = writeln!(
            text,
            "{:<10} {layout:<8} {:<8} {:>9.2} {:>9.2} {:>10.1} {:>6.2} {:>10.0} {:>9.0}  {}",
            row.corpus,
            row.codec,
            row.write_ms,
            row.read_ms,
            row.size as f64 / 1e3,
            row.ratio,
            row.write_mb_s,
            row.read_mb_s,
            row.plugin.map_or("h5py".to_owned(), |plugin| format!("h5py and {plugin}"))
        );
    }
    let _ = writeln!(
        text,
        "\nsealed: checked, packed on all cores, made durable, read back event by event\n\
         {:<8} {:>13} {:>11} {:>6} {:>6} {:>13}",
        "codec", "consultations", "events each", "MB/s", "ratio", "one event ms"
    );
    for seal in &report.seals {
        let _ = writeln!(
            text,
            "{:<8} {:>13} {:>11} {:>6.0} {:>6.2} {:>13.2}",
            seal.codec, seal.consultations, seal.events_each, seal.mb_s, seal.ratio, seal.one_event_ms
        );
    }
    let _ = writeln!(
        text,
        "\nFor this machine: {}, the best ratio among those that stock h5py opens and that write {FAST_ENOUGH:.0} MB/s on \
         one core;\n{} where readers have hdf5plugin.\nStrings of variable length are not packed by any filter: HDF5 \
         keeps them on a heap that filters do not reach.",
        report.recommended, report.recommended_with_plugin
    );
    text
}
