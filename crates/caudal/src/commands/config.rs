//! `caudal config`: every setting, its value, where that came from.

use std::process::ExitCode;

use clap::ArgMatches;

use super::{CommandError, load};
use crate::settings::{Key, TABLE, mask, presets::preset};

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let loaded = load(matches, true)?;
    if matches.get_flag("json") {
        let settings: serde_json::Map<String, serde_json::Value> = loaded
            .raw
            .iter()
            .zip(TABLE)
            .map(|(raw, key)| {
                (
                    raw.key.to_owned(),
                    serde_json::json!({ "value": mask::shown(key.name, &raw.value), "from": raw.origin.to_string() }),
                )
            })
            .collect();
        loaded.notices.iter().filter(|notice| notice.warns).for_each(|notice| eprintln!("{}", notice.text));
        println!("{}", serde_json::to_string_pretty(&settings).expect("settings are plain data"));
        return Ok(ExitCode::SUCCESS);
    }
    let width = TABLE.iter().map(|key| key.name.len()).max().unwrap_or(0);
    for (key, raw) in TABLE.iter().zip(&loaded.raw) {
        let shown = mask::shown(key.name, &raw.value);
        let value = match shown.as_str() {
            "" => key.unset(),
            value => value,
        };
        println!("{:width$}  {value:<14} {:<28} {}{}", key.name, raw.origin.to_string(), key.help, also(key));
    }
    let asked = loaded.raw.iter().find(|raw| raw.key == "preset");
    if let Some(preset) = asked.and_then(|raw| preset(&raw.value)) {
        println!("\nThe preset {} is for {}.", preset.name, preset.help);
    }
    let plan = loaded.settings.models.cpus;
    println!(
        "\nCores by affinity and CPU quota: {}; threads for connections {}, for decoding {}.",
        plan.cpus, plan.io_threads, plan.decode_threads
    );
    if !loaded.notices.is_empty() {
        println!("\nEnvironment variables of other systems:");
        loaded.notices.iter().for_each(|notice| println!("  {}", notice.text));
    }
    Ok(ExitCode::SUCCESS)
}

fn also(key: &Key) -> String {
    if key.aliases.is_empty() { String::new() } else { format!(" (also ${})", key.aliases.join(", $")) }
}
