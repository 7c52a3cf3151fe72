//! `caudal record list`.

use std::process::ExitCode;

use caudal_record::{time::iso, with_original_time};
use caudal_store::Order;
use clap::ArgMatches;
use serde_json::json;

use super::{Absent, CommandError, Opened, tell, text};

/// Consultations that are asked for in one go.
const STEP: u32 = 500;

pub(super) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let opened = Opened::new(matches, Absent::Refuse)?;
    let order = match text(matches, "sort") {
        Some("oldest") => Order::Oldest,
        Some("events_desc") => Order::Longest,
        Some("events_asc") => Order::Shortest,
        _ => Order::Newest,
    };
    let limit = u64::from(*matches.get_one::<u32>("limit").expect("it has a default"));
    let as_json = matches.get_flag("json");
    if !as_json
        && !tell(format!("{:<38} {:<20} {:<20} {:>9} {:>9}", "consultation", "made", "last event", "events", "sealed"))?
    {
        return Ok(ExitCode::SUCCESS);
    }
    let mut told = 0;
    while told < limit {
        let some = u32::try_from(limit - told).unwrap_or(STEP).min(STEP);
        let page = opened.wait(opened.record.list(order, some, told))?;
        if page.streams.is_empty() {
            break;
        }
        told += page.streams.len() as u64;
        for stream in &page.streams {
            let (name, made, last) = (&stream.id.name, iso(stream.created), iso(stream.head.time));
            let (events, sealed) = (stream.head.sequence, stream.sealed);
            let line = match as_json {
                true => {
                    let shown = json!({
                        "consultation_id": name,
                        "created_at": made,
                        "updated_at": last,
                        "event_count": events,
                        "archived_events": sealed,
                    });
                    with_original_time(shown, stream).to_string()
                }
                false => format!("{name:<38} {:<20} {:<20} {events:>9} {sealed:>9}", &made[..19], &last[..19]),
            };
            if !tell(line)? {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
