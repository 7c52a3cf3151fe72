//! Speedscope format (`https://www.speedscope.app/file-format-schema.json`): JSON with one profile per thread.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use crate::profile::{IDLE_MESSAGE, Kind, Profile, Stack};

pub(crate) fn write(profile: &Profile) -> Vec<u8> {
    let mut frames: Vec<&str> = Vec::new();
    let mut indices: HashMap<&str, usize> = HashMap::new();
    let mut threads: BTreeMap<&str, Vec<&Stack>> = BTreeMap::new();
    for stack in &profile.stacks {
        threads.entry(stack.frames.first().map_or("", String::as_str)).or_default().push(stack);
        for name in &stack.frames {
            indices.entry(name).or_insert_with(|| {
                frames.push(name);
                frames.len() - 1
            });
        }
    }
    let thread_profile = |(name, stacks): (&&str, &Vec<&Stack>)| -> Value {
        let total: u64 = stacks.iter().map(|stack| stack.amount).sum();
        json!({
            "type": "sampled",
            "name": name,
            "unit": match profile.kind { Kind::Cpu => "nanoseconds", Kind::Heap => "bytes" },
            "startValue": 0,
            "endValue": total,
            "samples": stacks
                .iter()
                .map(|stack| stack.frames.iter().map(|frame| indices[frame.as_str()]).collect::<Vec<_>>())
                .collect::<Vec<_>>(),
            "weights": stacks.iter().map(|stack| stack.amount).collect::<Vec<_>>(),
        })
    };
    let mut profiles: Vec<Value> = threads.iter().map(thread_profile).collect();
    if profiles.is_empty() {
        // speedscope rejects a file without profiles.
        profiles.push(thread_profile((&IDLE_MESSAGE, &Vec::new())));
    }
    let file = json!({
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "exporter": concat!("caudal ", env!("CARGO_PKG_VERSION")),
        "shared": { "frames": frames.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>() },
        "profiles": profiles,
    });
    file.to_string().into_bytes()
}
