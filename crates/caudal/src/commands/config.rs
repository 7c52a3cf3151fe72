//! `caudal config`: every setting, its value, where that came from.

use std::process::ExitCode;

use clap::ArgMatches;

use super::{CommandError, load};
use crate::settings::{Key, Raw, TABLE, presets::preset};

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let loaded = load(matches, true)?;
    if matches.get_flag("json") {
        let settings: serde_json::Map<String, serde_json::Value> = loaded
            .raw
            .iter()
            .zip(TABLE)
            .map(|(raw, key)| {
                (raw.key.to_owned(), serde_json::json!({ "value": shown(key, raw), "from": raw.origin.to_string() }))
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&settings).expect("settings are plain data"));
        return Ok(ExitCode::SUCCESS);
    }
    let width = TABLE.iter().map(|key| key.name.len()).max().unwrap_or(0);
    for (key, raw) in TABLE.iter().zip(&loaded.raw) {
        let value = match shown(key, raw) {
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
    for (name, why) in &loaded.idle {
        println!("\n${name} is set and has nothing to set here: {why}");
    }
    Ok(ExitCode::SUCCESS)
}

/// A value as it may be seen: of a secret only that there is one.
fn shown<'a>(key: &Key, raw: &'a Raw) -> &'a str {
    if key.value == "SECRET" && !raw.value.is_empty() { "(set)" } else { &raw.value }
}

fn also(key: &Key) -> String {
    if key.aliases.is_empty() { String::new() } else { format!(" (also ${})", key.aliases.join(", $")) }
}
