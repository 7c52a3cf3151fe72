//! `caudal record head`, `key`, `receipt` and `verify-receipt`.

use std::process::ExitCode;

use caudal_record::proof::{Receipt, strict};
use clap::ArgMatches;
use serde_json::json;

use super::{Absent, CommandError, Opened, contents, deliver, explained, id, path, public_key, tell, text, usage};

pub(super) fn head(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let opened = Opened::new(matches, Absent::Refuse)?;
    let head = opened.wait(opened.record.head(id(matches)))?;
    let mut told = json!(head);
    if let Some((_, key)) = opened.record.public_key().map_err(|error| explained(&error))? {
        told["public_key"] = key.into();
    }
    deliver(&told, path(matches, "output"))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn key(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let opened = Opened::new(matches, Absent::Refuse)?;
    if let Some((_, key)) = opened.record.public_key().map_err(|error| explained(&error))? {
        tell(key)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn receipt(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let opened = Opened::new(matches, Absent::Refuse)?;
    let event = text(matches, "event").expect("it is required");
    let receipt = opened.wait(opened.record.receipt(id(matches), event))?;
    opened.note("RECEIPT_MADE", id(matches))?;
    deliver(&receipt, path(matches, "output"))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn verify_receipt(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let (file, key) = (path(matches, "file").expect("it is required"), public_key(matches)?);
    let wrong = |error| usage(format!("{} is no receipt: {error}; `caudal record receipt` makes one", file.display()));
    let (receipt, uncovered): (Receipt, _) = strict::read(&contents(file)?, &[]).map_err(wrong)?;
    if let Some(uncovered) = uncovered {
        tell(format!("BAD: {uncovered}"))?;
        return Ok(ExitCode::FAILURE);
    }
    if let Err(fault) = receipt.verify(key.as_ref()) {
        tell(format!("BAD: {fault}"))?;
        return Ok(ExitCode::FAILURE);
    }
    let (event, head) = (&receipt.event, &receipt.head);
    let signed = match key {
        Some(_) => "the key signed it",
        None => "who made it was not checked: --key HEX does",
    };
    tell(format!(
        "good: event {} ({}) is number {} of {}, which had {} events; {signed}",
        event.event_id, event.event_type, event.sequence, head.consultation, head.sequence
    ))?;
    Ok(ExitCode::SUCCESS)
}
