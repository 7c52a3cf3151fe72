//! The groups of settings, as help and the reference show them: the most important first.

use super::{Key, TABLE};

/// A group: its heading, and the names of its settings, where `name_*` stands for all that begin with `name_`.
struct Group {
    heading: &'static str,
    names: &'static [&'static str],
}

/// The heading of settings that no group names.
const OTHER: &str = "Other settings";

const GROUPS: &[Group] = &[
    Group {
        heading: "Basic settings",
        names: &["http_port", "host", "model_repository", "data_dir", "pipelines", "admin_key", "preset", "log_level"],
    },
    Group {
        heading: "Models",
        names: &[
            "providers",
            "instances",
            "threads",
            "max_batch_size",
            "max_queue_*",
            "model_*",
            "load_model",
            "repository_poll_secs",
            "idle_unload_secs",
            "strict_readiness",
            "onnxruntime_library",
        ],
    },
    Group {
        heading: "Server",
        names: &[
            "grpc_port",
            "allowed_hosts",
            "cors_allowed_origins",
            "api_docs_enabled",
            "admin_*",
            "watch",
            "log_format",
            "io_threads",
            "decode_threads",
            "pin_to_quota",
            "tls_terminated_by_proxy",
            "metrics_enabled",
            "triton_metrics",
            "slow_request_threshold_ms",
        ],
    },
    Group {
        heading: "Limits and timeouts",
        names: &[
            "max_file_size_mb",
            "max_images",
            "max_image_megapixels",
            "max_body_memory_mb",
            "max_pixel_memory_mb",
            "max_connections",
            "concurrency_limit",
            "backlog",
            "request_timeout_ms",
            "header_timeout_secs",
            "body_timeout_secs",
            "keep_alive_secs",
            "exit_timeout_secs",
        ],
    },
    Group { heading: "Memory", names: &["memory_*", "gpu_memory_*"] },
    Group { heading: "Record", names: &["record_*", "seal_*", "data_group_read"] },
    Group { heading: "PostgreSQL", names: &["database_*", "db_*"] },
    Group { heading: "Pipelines", names: &["flow_*"] },
    Group {
        heading: "Profiling and key figures",
        names: &["enable_profiling", "bottleneck_threshold_ms", "profile_*", "latency_budgets", "kpi_*"],
    },
    Group { heading: "OpenTelemetry", names: &["otel_*"] },
];

/// The index of the first group that names `key`; exact names are looked for before patterns.
fn group_of(key: &Key) -> Option<usize> {
    let exact = GROUPS.iter().position(|group| group.names.contains(&key.name));
    let matches = |name: &&str| name.strip_suffix('*').is_some_and(|prefix| key.name.starts_with(prefix));
    exact.or_else(|| GROUPS.iter().position(|group| group.names.iter().any(matches)))
}

/// All settings with the headings of their groups, group by group.
pub(crate) fn grouped() -> impl Iterator<Item = (&'static str, Vec<&'static Key>)> {
    let of = |index: Option<usize>| TABLE.iter().filter(move |key| group_of(key) == index).collect::<Vec<_>>();
    let named = GROUPS.iter().enumerate().map(move |(index, group)| {
        let place = |key: &&Key| group.names.iter().position(|name| *name == key.name).unwrap_or(usize::MAX);
        let mut keys = of(Some(index));
        keys.sort_by_key(place);
        (group.heading, keys)
    });
    let other = of(None);
    named.chain((!other.is_empty()).then_some((OTHER, other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_belongs_to_a_group() {
        let ungrouped: Vec<&str> = TABLE.iter().filter(|key| group_of(key).is_none()).map(|key| key.name).collect();
        assert!(ungrouped.is_empty(), "name their group in settings/groups.rs: {ungrouped:?}");
        assert_eq!(grouped().map(|(_, keys)| keys.len()).sum::<usize>(), TABLE.len());
    }

    #[test]
    fn every_name_of_a_group_is_a_setting() {
        for name in GROUPS.iter().flat_map(|group| group.names) {
            let known = TABLE.iter().any(|key| match name.strip_suffix('*') {
                Some(prefix) => key.name.starts_with(prefix),
                None => key.name == *name,
            });
            assert!(known, "{name} is no setting");
        }
    }
}
