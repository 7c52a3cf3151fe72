//! `caudal record stats`.

use std::{fmt::Write as _, fs, process::ExitCode};

use caudal_store::Order;
use clap::ArgMatches;
use indicatif::{HumanBytes, HumanCount};
use serde_json::{Value, json};

use super::{Absent, CommandError, DATABASE, Opened, deliver, tell};

/// Consultations that are asked for in one go.
const STEP: u32 = 500;

pub(super) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let opened = Opened::new(matches, Absent::Refuse)?;
    let (mut consultations, mut events, mut sealed) = (0, 0, 0);
    loop {
        let page = opened.wait(opened.record.list(Order::Oldest, STEP, consultations))?;
        if page.streams.is_empty() {
            break;
        }
        consultations += page.streams.len() as u64;
        events += page.streams.iter().map(|stream| stream.head.sequence).sum::<u64>();
        sealed += page.streams.iter().map(|stream| stream.sealed).sum::<u64>();
    }
    let archives = opened.wait(opened.record.store().archives())?;
    let size = |name: &str| fs::metadata(opened.folder.join(name)).map_or(0, |file| file.len());
    let figures = opened.record.store().figures();
    let slowest = figures.slowest.iter().map(|statement| {
        json!({
            "statement": statement.text,
            "longest_ms": statement.longest.as_secs_f64() * 1e3,
            "count": statement.count,
            "total_ms": statement.total.as_secs_f64() * 1e3,
        })
    });
    let mut told = json!({
        "engine": figures.engine,
        "consultations": consultations,
        "events": events,
        "archived_events": sealed,
        "archives": archives.len(),
        "archive_bytes": archives.iter().map(|note| note.bytes).sum::<u64>(),
        "slowest": slowest.collect::<Vec<_>>(),
    });
    // Only of its own files does it know how large they are.
    if opened.settings.database.is_none() {
        told["database_bytes"] = size(DATABASE).into();
        told["log_bytes"] = size("caudal.db-wal").into();
    }
    match matches.get_flag("json") {
        true => deliver(&told, None)?,
        false => tell(words(&told).trim_end()).map(drop)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn words(told: &Value) -> String {
    let mut said = String::new();
    let count = |name: &str| HumanCount(told[name].as_u64().unwrap_or_default());
    let bytes = |name: &str| HumanBytes(told[name].as_u64().unwrap_or_default());
    let mut line = |name: &str, value: String| {
        // A string takes what is written to it.
        let _ = writeln!(said, "{name:<14} {value}");
    };
    line("engine", told["engine"].as_str().unwrap_or_default().to_owned());
    line("consultations", count("consultations").to_string());
    line("events", format!("{}, {} of them in archives", count("events"), count("archived_events")));
    line("archives", format!("{}, {}", count("archives"), bytes("archive_bytes")));
    if told["database_bytes"].is_u64() {
        line("database", format!("{}, {} of log", bytes("database_bytes"), bytes("log_bytes")));
    }
    for statement in told["slowest"].as_array().into_iter().flatten() {
        let longest = statement["longest_ms"].as_f64().unwrap_or_default();
        line("slowest", format!("{longest:.2} ms {}", statement["statement"].as_str().unwrap_or_default()));
    }
    said
}
