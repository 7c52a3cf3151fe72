//! How many steps a second: in memory on one core and on all, kept on disk, and what a run that waits holds.
//!
//! `cargo run --release -p caudal-flow --example pace -- [--json] [--secs N] [--reps N] [--only NAME,NAME] [--folder DIR]`
//!
//! `benches/peers/pipelines.py` runs it beside others.

mod durable;
mod idle;
mod steps;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use serde_json::json;

/// What is measured, by name, and what its number counts.
const CASES: [(&str, &str); 14] = [
    ("chain", "steps"),
    ("runs", "runs"),
    ("cached", "steps"),
    ("cached-runs", "runs"),
    ("mixed", "steps"),
    ("chain-all", "steps"),
    ("runs-all", "runs"),
    ("cached-all", "steps"),
    ("mixed-all", "steps"),
    ("disk", "flushes"),
    ("durable-one", "steps"),
    ("store", "records"),
    ("durable-many", "steps"),
    ("idle", "bytes a run"),
];

/// What the command line says.
struct Order {
    json: bool,
    time: Duration,
    reps: usize,
    only: Option<String>,
    folder: PathBuf,
}

fn order() -> Result<Order, String> {
    let mut order = Order { json: false, time: Duration::from_secs(1), reps: 3, only: None, folder: ".".into() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match &*word {
            "--json" => {
                order.json = true;
                continue;
            }
            // What the case `idle` says to a process of its own.
            idle::ALONE => {
                println!("{}", idle::bytes());
                std::process::exit(0);
            }
            _ => {}
        }
        let said = words.next().ok_or_else(|| format!("{word} wants a value"))?;
        let wrong = |error: &dyn std::fmt::Display| format!("{word} {said}: {error}");
        match &*word {
            "--secs" => order.time = Duration::from_secs_f64(said.parse::<f64>().map_err(|error| wrong(&error))?),
            "--reps" => order.reps = said.parse::<usize>().map_err(|error| wrong(&error))?.max(1),
            "--only" => order.only = Some(said),
            "--folder" => order.folder = said.into(),
            _ => return Err(format!("there is no {word}")),
        }
    }
    Ok(order)
}

fn main() {
    let order = order().unwrap_or_else(|wrong| {
        eprintln!("{wrong}");
        std::process::exit(2);
    });
    let wanted = |name: &str| order.only.as_ref().is_none_or(|only| only.split(',').any(|one| one == name));
    let cases: Vec<_> = CASES.into_iter().filter(|(name, _)| wanted(name)).collect();
    let mut found = vec![Vec::new(); cases.len()];
    // Turn by turn, as neither the disk nor the machine stays the same.
    for _ in 0..order.reps {
        for ((name, _), found) in cases.iter().zip(&mut found) {
            found.push(measure(name, &order));
        }
    }
    for ((name, of), found) in cases.into_iter().zip(found) {
        tell(name, of, found, order.json);
    }
}

/// How many a second of the clock, and how many a second of the processor.
type Rate = (f64, f64);

fn measure(name: &str, order: &Order) -> Rate {
    let (start, busy) = (Instant::now(), processor());
    let count = match name {
        "idle" => return (idle::alone(), 0.0),
        "disk" => durable::flushes(&order.folder, order.time),
        "durable-one" => durable::steps(&order.folder, order.time, 1),
        "durable-many" => durable::steps(&order.folder, order.time, durable::MANY),
        "store" => durable::records(&order.folder, order.time),
        name => steps::measure(name, order.time),
    };
    let (count, took) = count;
    // What was made ready first is counted with the processor's time, of which it is little.
    let busy = (processor() - busy).max(0.001) * took.as_secs_f64() / start.elapsed().as_secs_f64().max(1e-9);
    (count as f64 / took.as_secs_f64(), count as f64 / busy)
}

/// Seconds that this process has had of the processor.
fn processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(") ").next().unwrap_or_default();
    let ticks = |place: usize| after.split(' ').nth(place).and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0);
    // The kernel tells of a hundred ticks a second.
    (ticks(11) + ticks(12)) / 100.0
}

fn tell(name: &str, of: &str, mut found: Vec<Rate>, json: bool) {
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (least, most) = (found[0].0, found[found.len() - 1].0);
    let (middle, busy) = found[found.len() / 2];
    if json {
        let told = json!({"case": name, "of": of, "median": middle, "min": least, "max": most, "per_cpu_s": busy});
        println!("{told}");
    } else {
        println!("{name:14} {middle:>12.0} {of} ({least:.0}-{most:.0}), {busy:.0} a second of the processor");
    }
}
