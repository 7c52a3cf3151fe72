//! Which room may know which: the arrows of the house, checked against what the manifests say.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::say::{Result, cargo};

/// Each room with the rooms it may know. What is not here is forbidden.
const ALLOWED: &[(&str, &[&str])] = &[
    ("caudal-types", &[]),
    ("caudal-observe", &["caudal-observe-macros"]),
    ("caudal-observe-macros", &[]),
    ("caudal-sight", &["caudal-observe", "caudal-types"]),
    ("caudal-memory", &[]),
    ("caudal-load", &["caudal-types"]),
    ("caudal-engine", &["caudal-types"]),
    ("caudal-engine-ort", &["caudal-engine", "caudal-types"]),
    ("caudal-vision", &["caudal-observe", "caudal-types"]),
    ("caudal-graph", &[]),
    ("caudal-language", &["caudal-observe", "caudal-types"]),
    ("caudal-batcher", &["caudal-engine", "caudal-observe", "caudal-types"]),
    (
        "caudal-tasks",
        &["caudal-batcher", "caudal-engine", "caudal-language", "caudal-observe", "caudal-types", "caudal-vision"],
    ),
    ("caudal-optimize", &["caudal-engine", "caudal-graph", "caudal-tasks", "caudal-types", "caudal-vision"]),
    ("caudal-profiler", &["caudal-types"]),
    ("caudal-telemetry", &["caudal-types"]),
    ("caudal-store", &["caudal-types"]),
    ("caudal-record", &["caudal-observe", "caudal-store", "caudal-types"]),
    ("caudal-media", &["caudal-types"]),
    ("caudal-flow", &["caudal-store", "caudal-types"]),
    (
        "caudal-flow-leaves",
        &["caudal-engine", "caudal-flow", "caudal-record", "caudal-tasks", "caudal-types", "caudal-vision"],
    ),
    (
        "caudal-server",
        &[
            "caudal-flow",
            "caudal-memory",
            "caudal-observe",
            "caudal-profiler",
            "caudal-record",
            "caudal-sight",
            "caudal-store",
            "caudal-tasks",
            "caudal-telemetry",
            "caudal-types",
        ],
    ),
    (
        "caudal",
        &[
            "caudal-engine",
            "caudal-engine-ort",
            "caudal-flow",
            "caudal-flow-leaves",
            "caudal-load",
            "caudal-media",
            "caudal-memory",
            "caudal-observe",
            "caudal-optimize",
            "caudal-profiler",
            "caudal-record",
            "caudal-server",
            "caudal-store",
            "caudal-tasks",
            "caudal-telemetry",
            "caudal-types",
            "caudal-vision",
        ],
    ),
    ("caudal-testkit", &["caudal-engine", "caudal-types"]),
    ("xtask", &["caudal-types"]),
];

/// Outside crates that a room must not touch: what would let in what it must not know.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("caudal-types", &["tokio", "axum", "serde"]),
    ("caudal-observe", &["tokio", "axum", "serde", "prometheus-client"]),
    ("caudal-sight", &["tokio", "axum", "hyper", "prometheus-client"]),
    ("caudal-memory", &["tokio", "axum", "prometheus-client"]),
    ("caudal-load", &["axum", "ort", "prometheus-client"]),
    ("caudal-flow", &["axum", "hyper", "ort"]),
    ("caudal-flow-leaves", &["axum", "ort"]),
    ("caudal-engine", &["tokio", "axum", "ort"]),
    ("caudal-engine-ort", &["tokio", "axum"]),
    ("caudal-vision", &["tokio", "axum", "ort"]),
    ("caudal-language", &["tokio", "axum", "ort"]),
    ("caudal-graph", &["tokio", "axum", "ort"]),
    ("caudal-optimize", &["axum", "hyper", "ort"]),
    ("caudal-profiler", &["tokio", "axum", "hyper", "ort"]),
    ("caudal-telemetry", &["axum", "hyper", "ort", "prometheus-client"]),
    ("caudal-store", &["axum", "hyper", "ort", "prometheus-client"]),
    ("caudal-record", &["axum", "hyper", "ort", "prometheus-client"]),
    ("caudal-media", &["tokio", "axum", "hyper", "ort", "prometheus-client"]),
    ("caudal-batcher", &["axum", "hyper", "ort", "image"]),
    ("caudal-tasks", &["axum", "hyper", "ort"]),
    ("caudal-server", &["ort", "image", "turbojpeg", "tokenizers"]),
];

/// Checks every arrow.
pub(crate) fn run() -> Result {
    let output = cargo().args(["metadata", "--format-version", "1", "--no-deps", "--offline"]).output();
    let output = output.map_err(|error| format!("cargo metadata cannot be run: {error}"))?;
    let metadata: Value = serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))?;
    let wrong = check(&rooms(&metadata));
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(format!("arrows that must not be:\n  {}", wrong.join("\n  "))),
    }
}

type Rooms = BTreeMap<String, BTreeSet<String>>;

/// Each room of the workspace with what it depends on; what only tests need does not count.
fn rooms(metadata: &Value) -> Rooms {
    let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    let needs = |package: &Value| {
        let needs = package["dependencies"].as_array().into_iter().flatten();
        needs.filter(|need| need["kind"].as_str() != Some("dev")).map(name).collect()
    };
    let packages = metadata["packages"].as_array().into_iter().flatten();
    packages.map(|package| (name(package), needs(package))).collect()
}

fn check(rooms: &Rooms) -> Vec<String> {
    let mut wrong = Vec::new();
    for (room, needs) in rooms {
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| name == room) else {
            wrong.push(format!("{room} stands in no list: say in xtask/src/arrows.rs what it may know"));
            continue;
        };
        let forbidden = FORBIDDEN.iter().find(|(name, _)| name == room).map_or(&[][..], |(_, forbidden)| forbidden);
        for need in needs {
            let is_room = need.starts_with("caudal") || need == "xtask";
            if is_room && !allowed.contains(&need.as_str()) || forbidden.contains(&need.as_str()) {
                wrong.push(format!("{room} → {need}"));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_arrow(room: &str, need: &str) -> Vec<String> {
        check(&BTreeMap::from([(room.to_owned(), BTreeSet::from([need.to_owned()]))]))
    }

    #[test]
    fn forbidden_arrows_are_found_and_allowed_ones_are_not() {
        assert_eq!(check_arrow("caudal-vision", "caudal-engine"), ["caudal-vision → caudal-engine"]);
        assert_eq!(check_arrow("caudal-server", "ort"), ["caudal-server → ort"]);
        assert_eq!(check_arrow("caudal-server", "caudal-tasks"), Vec::<String>::new());
        assert_eq!(check_arrow("caudal-attic", "serde").len(), 1, "an unknown room is not let in");
    }

    #[test]
    fn the_house_keeps_to_them() {
        run().unwrap();
    }
}
