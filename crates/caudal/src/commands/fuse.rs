//! `caudal models fuse`: preprocessing and suppression into the graph.

use std::{path::PathBuf, process::ExitCode};

use caudal_optimize::{FusedPart, fuse_model};
use clap::ArgMatches;
use serde_json::json;

use super::{CommandError, load, models, pictures};

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let settings = load(matches, true)?.settings;
    let images = pictures::files(matches.get_many::<PathBuf>("images").unwrap_or_default())?;
    let only = match matches.get_one::<String>("only").map(String::as_str) {
        Some("preprocess") => Some(FusedPart::Preprocess),
        Some(_) => Some(FusedPart::Suppress),
        None => None,
    };
    let site = models::site(matches, &settings)?;
    let fused = fuse_model(&site, only, &images).map_err(|error| models::explained(&error))?;
    let parts: Vec<_> = fused.parts.iter().map(|part| part.name()).collect();
    let serves = models::newest_serves(&site);
    if matches.get_flag("json") {
        let told = json!({
            "model": site.folder.name, "from": fused.from.to_string(), "version": fused.version.number.to_string(),
            "file": fused.version.file, "parts": parts, "pictures": fused.pictures, "found": fused.found,
            "least_confidence": fused.conf, "serves": serves,
        });
        println!("{told:#}");
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "{} version {} → {} ({})",
        site.folder.name,
        fused.from,
        fused.version.number,
        fused.version.file.display()
    );
    println!("  in the graph  {}", parts.join(", "));
    let (pictures, found, conf) = (fused.pictures, fused.found, fused.conf);
    println!("  compared      the same answers on {pictures} pictures: {found} found, at least {conf} sure");
    models::tell_whether_it_serves(serves);
    Ok(ExitCode::SUCCESS)
}
