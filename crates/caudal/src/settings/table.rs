//! Every setting there is.

/// A setting: everything about it but its value.
#[derive(Debug)]
pub(crate) struct Key {
    /// Its name in `caudal.yaml`; with dashes its flag, in capitals after `CAUDAL_` its variable.
    pub(crate) name: &'static str,
    /// Its default; empty if it has no default or is chosen by measuring ([`Key::unset`]).
    pub(crate) default: &'static str,
    /// What the value is, for help.
    pub(crate) value: &'static str,
    /// What it does.
    pub(crate) help: &'static str,
    /// Familiar names of the systems that this one replaces: variables that are read too.
    pub(crate) aliases: &'static [&'static str],
    /// Whether a server that runs takes a new value at SIGHUP.
    pub(crate) live: bool,
}

impl Key {
    /// Its variable.
    pub(crate) fn variable(&self) -> String {
        format!("CAUDAL_{}", self.name.to_uppercase())
    }

    /// The word for its value where it is empty.
    pub(crate) fn unset(&self) -> &'static str {
        if AUTOMATIC.contains(&self.name) { "(automatic)" } else { "(not set)" }
    }

    /// Its flag.
    pub(crate) fn flag(&self) -> String {
        self.name.replace('_', "-")
    }
}

const fn key(name: &'static str, default: &'static str, value: &'static str, help: &'static str) -> Key {
    Key { name, default, value, help, aliases: &[], live: false }
}

const fn known_as(mut key: Key, aliases: &'static [&'static str]) -> Key {
    key.aliases = aliases;
    key
}

const fn live(mut key: Key) -> Key {
    key.live = true;
    key
}

/// Settings whose value is found where none is given: by planning, by measuring, by searching.
const AUTOMATIC: [&str; 6] =
    ["onnxruntime_library", "io_threads", "decode_threads", "instances", "threads", "max_batch_size"];

/// All settings, in the order in which people meet them.
pub(crate) const TABLE: &[Key] = &[
    key(
        "preset",
        "",
        "NAME",
        "a named set of defaults: cpu, low-memory, many-users or gpu; what you set yourself overrides it",
    ),
    key("host", "127.0.0.1", "ADDRESS", "address to listen on"),
    known_as(key("http_port", "8000", "PORT", "port for HTTP"), &["PORT"]),
    key("grpc_port", "8001", "PORT", "port for gRPC; reserved, nothing listens there yet"),
    key(
        "admin_port",
        "",
        "PORT",
        "serve /admin, /debug, /v2/repository and /api/audit on this port only, with metrics and health",
    ),
    key("admin_host", "127.0.0.1", "ADDRESS", "address of admin_port"),
    key(
        "tls_terminated_by_proxy",
        "false",
        "BOOL",
        "declare that a proxy in front of this server terminates TLS; ENFORCE_HTTPS=true is accepted only with it",
    ),
    known_as(
        key(
            "data_dir",
            "",
            "DIR",
            "folder in which consultations are kept, one server at a time; without one nothing is recorded",
        ),
        &["FI_DATA_DIR"],
    ),
    key("data_group_read", "false", "BOOL", "let the group of the server's user read its files: 0640 instead of 0600"),
    known_as(
        key(
            "database_url",
            "",
            "URL",
            "PostgreSQL in which events are kept, instead of SQLite in data_dir: postgres://…",
        ),
        &["DATABASE_URL"],
    ),
    key("database_schema", "caudal", "NAME", "schema in the PostgreSQL database; created if it does not exist"),
    known_as(key("db_pool_size", "20", "N", "connections to PostgreSQL that stay open"), &["DB_POOL_SIZE"]),
    known_as(
        key("db_max_overflow", "10", "N", "connections to PostgreSQL beyond db_pool_size, while they are needed"),
        &["DB_MAX_OVERFLOW"],
    ),
    known_as(
        key(
            "db_pool_timeout_secs",
            "10",
            "SECS",
            "how long it may take until there is a connection: waiting, connecting and trying again together",
        ),
        &["DB_POOL_TIMEOUT"],
    ),
    known_as(key("db_pool_recycle_secs", "1800", "SECS", "how old a connection may become"), &["DB_POOL_RECYCLE"]),
    known_as(
        key("db_pool_pre_ping", "true", "BOOL", "whether an idle connection is tried before it is used"),
        &["DB_POOL_PRE_PING"],
    ),
    known_as(key("db_echo", "false", "BOOL", "whether what is asked of PostgreSQL is logged"), &["DB_ECHO"]),
    key(
        "seal_after_days",
        "",
        "DAYS",
        "consultations idle for so long are moved to archives; by hand only when absent",
    ),
    key("seal_codec", "gzip-4", "CODEC", "how archives are packed: none, gzip-1 to 9, lzf, lz4, zstd-1 to 19"),
    key("seal_file_mb", "4000", "MB", "an archive that has grown so large is closed, and the next one begun"),
    key("record_max_event_kb", "1024", "KIB", "largest event; a batch may have 16 times as much"),
    key(
        "record_flush",
        "true",
        "BOOL",
        "wait for fsync before acknowledging an event; false risks losing acknowledged events in a crash",
    ),
    key(
        "record_snapshot_every",
        "50",
        "EVENTS",
        "what a consultation comes to is kept every so many events, to be replayed from",
    ),
    key(
        "record_exports_mb",
        "64",
        "MIB",
        "what exports made over HTTP hold on disk together; the oldest are removed for new ones, none within 10 minutes",
    ),
    key("record_timezone", "UTC", "NAME", "where the clinic is, as events say it; times themselves are in UTC"),
    key("model_repository", "models", "DIR", "folder of models: <name>/<version>/model.onnx"),
    key(
        "model_control_mode",
        "none",
        "MODE",
        "none: models load at start; poll: and as the repository changes; explicit: when they are told to",
    ),
    live(key(
        "strict_readiness",
        "false",
        "BOOL",
        "one model that does not load makes /readyz answer 503; else only if none loads",
    )),
    key("repository_poll_secs", "5", "SECS", "how often the repository is looked at in poll mode"),
    key("load_model", "", "NAMES", "models to load at start in explicit mode, comma-separated; * for all"),
    live(key(
        "admin_key",
        "",
        "SECRET",
        "key for admin routes, sent as Authorization: Bearer; without one the server makes a token (docs/deploy.md)",
    )),
    key("admin_insecure", "false", "BOOL", "admin routes need no key and no token: every caller may use them"),
    key(
        "allowed_hosts",
        "",
        "NAMES",
        "names under which the server is asked beside addresses and this machine's own, comma-separated; *.NAME for all \
         below, * for any; without names, any on an address that other machines reach",
    ),
    key(
        "cors_allowed_origins",
        "",
        "ORIGINS",
        "origins whose pages may use the server from a browser (CORS), comma-separated, or *; never for admin routes",
    ),
    live(key(
        "model_memory_mb",
        "",
        "MIB",
        "memory limit for all models together; models that do not fit are loaded on demand",
    )),
    key(
        "idle_unload_secs",
        "",
        "SECS",
        "unload a model after this many seconds without requests; the next request loads it again",
    ),
    live(known_as(
        key(
            "memory_monitoring",
            "true",
            "BOOL",
            "watch memory; without it there are no alerts, no clean-up and no refusals",
        ),
        &["MEMORY_ENABLE_MONITORING", "ENABLE_MEMORY_MONITORING"],
    )),
    live(known_as(
        key("memory_monitoring_interval_secs", "60", "SECS", "how often memory use is added to the history"),
        &["MEMORY_MONITORING_INTERVAL_SECONDS", "MEMORY_MONITOR_INTERVAL_SECONDS"],
    )),
    live(known_as(
        key("memory_threshold_percent", "85", "PERCENT", "memory use, in percent, above which an alert is raised"),
        &["MEMORY_THRESHOLD_PERCENT", "MEMORY_MEMORY_THRESHOLD_PERCENT"],
    )),
    live(known_as(
        key(
            "gpu_memory_threshold_percent",
            "85",
            "PERCENT",
            "GPU memory use, in percent, above which an alert is raised",
        ),
        &["GPU_MEMORY_THRESHOLD_PERCENT", "MEMORY_GPU_MEMORY_THRESHOLD_PERCENT"],
    )),
    live(known_as(
        key("memory_auto_cleanup", "true", "BOOL", "free memory when it is short: idle models, buffers kept for runs"),
        &["MEMORY_AUTO_CLEANUP", "AUTO_MEMORY_CLEANUP"],
    )),
    live(known_as(
        key(
            "memory_cleanup_threshold_percent",
            "80",
            "PERCENT",
            "memory use, in percent, above which idle memory is freed (memory_auto_cleanup)",
        ),
        &["MEMORY_CLEANUP_THRESHOLD_PERCENT", "CLEANUP_THRESHOLD_PERCENT"],
    )),
    live(key(
        "memory_shed_percent",
        "95",
        "PERCENT",
        "memory use, in percent, above which new requests get 503; 100 turns this off",
    )),
    live(key(
        "memory_rest_idle_secs",
        "60",
        "SECS",
        "when memory is short, unload models that had no request for this many seconds",
    )),
    live(key(
        "memory_webhook_url",
        "",
        "SECRET",
        "URL that gets a POST of JSON when memory becomes short, and when it no longer is",
    )),
    live(known_as(
        key("metrics_enabled", "true", "BOOL", "serve /metrics and /api/kpis; when false they answer 404"),
        &["METRICS_ENABLED", "PROMETHEUS_ENABLED"],
    )),
    live(key(
        "triton_metrics",
        "true",
        "BOOL",
        "show metrics under Triton's names too (nv_inference_…), for its dashboards",
    )),
    key(
        "pipelines",
        "pipelines",
        "DIR",
        "folder of pipelines, NAME.yaml each, and of flow.yaml, which says what they may",
    ),
    key(
        "flow_durable",
        "true",
        "BOOL",
        "store runs of pipelines in data_dir or database_url; when false they are in memory only, and end with the process",
    ),
    key("flow_max_steps", "100000", "N", "steps that a run of a pipeline may take"),
    key("flow_max_runs", "2000", "N", "runs of pipelines that a server runs concurrently; more are refused (429)"),
    key("flow_runs_mb", "128", "MIB", "input and context that these runs hold together; more are refused (429)"),
    key(
        "flow_cache",
        "memory",
        "WHERE",
        "where answers of pipelines' steps are remembered: memory, as long as the process lives, or sqlite, also in \
         flow-cache.db in data_dir (without one, in the cache folder), which processes share and which lasts",
    ),
    key("flow_cache_mb", "64", "MIB", "answers of pipelines' steps that are remembered in memory"),
    key(
        "flow_cache_disk_mb",
        "256",
        "MIB",
        "cached step outputs on disk, with flow_cache: sqlite; the least recently used are removed first",
    ),
    key("flow_cache_ttl_secs", "3600", "SECS", "how long step outputs are cached"),
    key("watch", "false", "BOOL", "reload the settings file when it changes, as at SIGHUP"),
    live(known_as(
        key("log_level", "info", "LEVEL", "error, warn, info, debug or trace, or a filter as tracing reads it"),
        &["LOG_LEVEL"],
    )),
    key("log_format", "text", "FORMAT", "text or json"),
    key("onnxruntime_library", "", "FILE", "ONNX Runtime's shared library; else ORT_DYLIB_PATH, else the cache folder"),
    key("io_threads", "", "N", "threads that talk to sockets; planned when absent"),
    key("decode_threads", "", "N", "threads that decode pictures and draw; planned when absent"),
    live(known_as(
        key("instances", "", "N", "instances of each model that run at once; planned when absent"),
        &["INFERENCE_WORKERS"],
    )),
    live(known_as(key("threads", "", "N", "threads within one run; planned when absent"), &["INFERENCE_NUM_THREADS"])),
    live(known_as(
        key("max_batch_size", "", "N", "most rows in one run; measured when absent"),
        &["INFERENCE_BATCH_SIZE", "MAX_BATCH_SIZE"],
    )),
    live(known_as(
        key("max_queue_delay_ms", "0", "MS", "how long a free instance waits for more rows"),
        &["BATCH_TIMEOUT_MS"],
    )),
    live(known_as(
        key("max_queue_size", "128", "N", "most requests that wait for one model"),
        &["INFERENCE_QUEUE_SIZE"],
    )),
    live(key("max_queue_mb", "256", "MIB", "most memory that the requests waiting for one model may hold")),
    live(known_as(
        key(
            "providers",
            "cpu",
            "PROVIDERS",
            "execution providers, comma-separated, the first that works is used: cpu, openvino, cuda, tensorrt, xnnpack",
        ),
        &["INFERENCE_DEVICE"],
    )),
    key(
        "pin_to_quota",
        "true",
        "BOOL",
        "under a CPU quota: keep to as many cores as it allows, so that the kernel need not hold the server back",
    ),
    live(known_as(key("max_file_size_mb", "50", "MIB", "largest upload"), &["MAX_FILE_SIZE_MB", "MAX_UPLOAD_SIZE_MB"])),
    live(key("max_images", "64", "N", "most pictures in one request")),
    key("max_image_megapixels", "64", "MP", "most pixels in one picture"),
    key(
        "max_body_memory_mb",
        "256",
        "MIB",
        "memory for all uploads together, three quarters of it for a single one; half as much again holds answers that are not sent yet",
    ),
    key("max_pixel_memory_mb", "512", "MIB", "memory for all pictures being decoded at once"),
    live(known_as(
        key(
            "concurrency_limit",
            "1024",
            "N",
            "requests worked on at once; more get 429. Half as many again may have no deadline: uploads of events, exports, checks",
        ),
        &["LIMIT_CONCURRENCY", "UVICORN_LIMIT_CONCURRENCY"],
    )),
    key("max_connections", "16384", "N", "open connections; more wait in the backlog"),
    known_as(
        key("backlog", "4096", "N", "connections that the kernel keeps until they are accepted"),
        &["BACKLOG", "UVICORN_BACKLOG"],
    ),
    live(key("request_timeout_ms", "30000", "MS", "deadline of requests that name none")),
    key("header_timeout_secs", "10", "SECS", "how long a request's head may take to arrive"),
    live(key("body_timeout_secs", "30", "SECS", "how long a body may pause")),
    known_as(
        key(
            "keep_alive_secs",
            "75",
            "SECS",
            "how long a connection may be idle, or a client take nothing of its answer",
        ),
        &["KEEP_ALIVE", "TIMEOUT_KEEP_ALIVE", "UVICORN_TIMEOUT_KEEP_ALIVE"],
    ),
    live(known_as(
        key("exit_timeout_secs", "30", "SECS", "how long shutting down may take before it is cut short"),
        &["GRACEFUL_TIMEOUT", "TIMEOUT_GRACEFUL_SHUTDOWN", "UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN"],
    )),
    live(known_as(
        key("enable_profiling", "true", "BOOL", "time sections and stages, and remember requests"),
        &["ENABLE_PROFILING", "PROFILING_ENABLED"],
    )),
    live(known_as(
        key("bottleneck_threshold_ms", "100", "MS", "a section that takes longer on average is a bottleneck"),
        &["BOTTLENECK_THRESHOLD_MS"],
    )),
    live(known_as(
        key("profile_output_dir", "profiles", "DIR", "where POST /admin/profiling/export writes"),
        &["PROFILE_OUTPUT_DIR"],
    )),
    live(known_as(
        key("profile_export_format", "json", "FORMAT", "json, csv or txt, where a request does not say"),
        &["PROFILE_EXPORT_FORMAT"],
    )),
    live(key(
        "latency_budgets",
        "",
        "BUDGETS",
        "95th-percentile latency targets: ROUTE = MS or ROUTE STAGE = MS, comma-separated",
    )),
    key("profile_window_secs", "60", "SECS", "spans in which the history of sections is kept; 1,440 of them"),
    known_as(key("kpi_bucket_secs", "10", "SECS", "spans in which key figures are kept"), &["METRICS_BUCKET_SEC"]),
    known_as(
        key("kpi_retention_minutes", "1440", "MINUTES", "how long key figures are kept"),
        &["METRICS_RETENTION_MIN"],
    ),
    live(known_as(
        key("kpi_default_window", "5m", "WINDOW", "1m, 5m, 15m, 1h or 24h, where a request does not say"),
        &["METRICS_DEFAULT_WINDOW"],
    )),
    live(known_as(
        key(
            "slow_request_threshold_ms",
            "auto",
            "MS",
            "requests slower than this are logged, at most 5 lines in 10 s; auto: 100, or five runs of the request's model \
             where these take longer",
        ),
        &["SLOW_REQUEST_THRESHOLD_MS"],
    )),
    known_as(key("otel_disabled", "false", "BOOL", "turn OpenTelemetry export off"), &["OTEL_SDK_DISABLED"]),
    known_as(
        key("otel_exporter", "", "EXPORTER", "exporter of traces: otlp or none; otlp where an endpoint is set"),
        &["OTEL_TRACES_EXPORTER"],
    ),
    known_as(
        key(
            "otel_metrics_exporter",
            "",
            "EXPORTER",
            "exporter of metrics: otlp or none; otlp where an endpoint is set",
        ),
        &["OTEL_METRICS_EXPORTER"],
    ),
    known_as(
        key("otel_endpoint", "", "URL", "the collector's URL; for HTTP, /v1/traces and /v1/metrics are appended"),
        &["OTEL_EXPORTER_OTLP_ENDPOINT"],
    ),
    known_as(
        key(
            "otel_traces_endpoint",
            "",
            "URL",
            "the collector's full URL for traces, with its path; overrides otel_endpoint",
        ),
        &["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"],
    ),
    known_as(
        key(
            "otel_metrics_endpoint",
            "",
            "URL",
            "the collector's full URL for metrics, with its path; overrides otel_endpoint",
        ),
        &["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"],
    ),
    known_as(
        key("otel_protocol", "http/protobuf", "PROTOCOL", "protocol of exports: http/protobuf or grpc"),
        &["OTEL_EXPORTER_OTLP_PROTOCOL"],
    ),
    known_as(
        key("otel_traces_protocol", "", "PROTOCOL", "protocol of exports of traces; otel_protocol when absent"),
        &["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"],
    ),
    known_as(
        key("otel_metrics_protocol", "", "PROTOCOL", "protocol of exports of metrics; otel_protocol when absent"),
        &["OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"],
    ),
    known_as(
        key("otel_headers", "", "SECRET", "headers of each export: NAME=VALUE, comma-separated"),
        &["OTEL_EXPORTER_OTLP_HEADERS"],
    ),
    known_as(
        key("otel_traces_headers", "", "SECRET", "headers of exports of traces; otel_headers when absent"),
        &["OTEL_EXPORTER_OTLP_TRACES_HEADERS"],
    ),
    known_as(
        key("otel_metrics_headers", "", "SECRET", "headers of exports of metrics; otel_headers when absent"),
        &["OTEL_EXPORTER_OTLP_METRICS_HEADERS"],
    ),
    known_as(key("otel_timeout_ms", "10000", "MS", "how long an export may take"), &["OTEL_EXPORTER_OTLP_TIMEOUT"]),
    known_as(
        key("otel_traces_timeout_ms", "", "MS", "timeout of exports of traces; otel_timeout_ms when absent"),
        &["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"],
    ),
    known_as(
        key("otel_metrics_timeout_ms", "", "MS", "timeout of exports of metrics; otel_timeout_ms when absent"),
        &["OTEL_EXPORTER_OTLP_METRICS_TIMEOUT"],
    ),
    known_as(
        key("otel_compression", "none", "ENCODING", "compression of exports: none or gzip"),
        &["OTEL_EXPORTER_OTLP_COMPRESSION"],
    ),
    known_as(
        key(
            "otel_traces_compression",
            "",
            "ENCODING",
            "compression of exports of traces; otel_compression when absent",
        ),
        &["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION"],
    ),
    known_as(
        key(
            "otel_metrics_compression",
            "",
            "ENCODING",
            "compression of exports of metrics; otel_compression when absent",
        ),
        &["OTEL_EXPORTER_OTLP_METRICS_COMPRESSION"],
    ),
    known_as(
        key("otel_certificate", "", "FILE", "PEM file of CA certificates to trust instead of the built-in roots"),
        &["OTEL_EXPORTER_OTLP_CERTIFICATE"],
    ),
    known_as(
        key(
            "otel_traces_certificate",
            "",
            "FILE",
            "CA certificates of exports of traces; otel_certificate when absent",
        ),
        &["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE"],
    ),
    known_as(
        key(
            "otel_metrics_certificate",
            "",
            "FILE",
            "CA certificates of exports of metrics; otel_certificate when absent",
        ),
        &["OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE"],
    ),
    known_as(
        key("otel_metrics_interval_ms", "60000", "MS", "how often metrics are exported"),
        &["OTEL_METRIC_EXPORT_INTERVAL"],
    ),
    known_as(
        key("otel_service_name", "", "NAME", "service.name of exports; caudal when absent"),
        &["OTEL_SERVICE_NAME"],
    ),
    known_as(
        key("otel_resource_attributes", "", "PAIRS", "resource attributes of exports: NAME=VALUE, comma-separated"),
        &["OTEL_RESOURCE_ATTRIBUTES"],
    ),
    known_as(
        key(
            "otel_sampler",
            "parentbased_always_on",
            "SAMPLER",
            "always_on, always_off or traceidratio; with parentbased_ the caller's decision overrides it",
        ),
        &["OTEL_TRACES_SAMPLER"],
    ),
    known_as(
        key("otel_sampler_arg", "1", "RATIO", "share of requests that traceidratio samples"),
        &["OTEL_TRACES_SAMPLER_ARG"],
    ),
    known_as(
        key("otel_queue_size", "2048", "N", "most requests waiting for export; more are dropped and counted"),
        &["OTEL_BSP_MAX_QUEUE_SIZE"],
    ),
    known_as(key("otel_batch_size", "512", "N", "most requests in one export"), &["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"]),
    known_as(
        key("otel_delay_ms", "5000", "MS", "how long an export waits for more requests"),
        &["OTEL_BSP_SCHEDULE_DELAY"],
    ),
    key("otel_stages", "false", "BOOL", "a span for each stage, not for queue and infer alone"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_name_means_two_things() {
        let names: Vec<&str> =
            TABLE.iter().flat_map(|key| [key.name].into_iter().chain(key.aliases.iter().copied())).collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
    }

    #[test]
    fn the_reference_lists_every_setting() {
        let mut text = String::from(
            "# Settings\n\nMade from code; see `crates/caudal/src/settings/table.rs`.\n\n\
             Each setting is a key of `caudal.yaml` (in the working folder, or named by `--config` or `CAUDAL_CONFIG`), a\n\
             variable `CAUDAL_…` in capitals, and a flag with dashes: `http_port`, `CAUDAL_HTTP_PORT`, `--http-port`. A flag\n\
             goes before a variable, a variable before the file, the file before the default. `caudal config` prints what is\n\
             in effect and where it came from. A key that is not known is refused, with the nearest known one.\n\n\
             A server that gets SIGHUP, or has `watch: true`, reads its file again. What is marked ↻ holds from the next\n\
             request on, or for models loaded from then on; the rest waits for a restart, and the log says so. A file that\n\
             is wrong changes nothing.\n\n\
             Below, *automatic* is a value that Caudal chooses by the machine and by measuring.\n",
        );
        for (heading, key) in crate::settings::grouped().flat_map(|(heading, keys)| {
            let first = std::iter::once(Some(heading)).chain(std::iter::repeat(None));
            first.zip(keys)
        }) {
            if let Some(heading) = heading {
                text += &format!(
                    "\n## {heading}\n\n| key | default | what it does | also read from |\n|---|---|---|---|\n"
                );
            }
            let default = match (key.default, key.unset()) {
                ("", "(automatic)") => "*automatic*".to_owned(),
                ("", _) => "–".to_owned(),
                (default, _) => format!("`{default}`"),
            };
            let aliases: Vec<String> = key.aliases.iter().map(|alias| format!("`{alias}`")).collect();
            text += &format!(
                "| `{}`{} ({}) | {default} | {} | {} |\n",
                key.name,
                if key.live { " ↻" } else { "" },
                key.value,
                key.help,
                aliases.join(", ")
            );
        }
        text += "\n## Presets\n\nA preset sets several where nobody says otherwise:\n\n| preset | for whom | sets |\n|---|---|---|\n";
        for preset in crate::settings::presets::PRESETS {
            let values: Vec<String> = preset.values.iter().map(|(key, value)| format!("`{key}: {value}`")).collect();
            text += &format!("| `{}` | {} | {} |\n", preset.name, preset.help, values.join(", "));
        }
        text += "\n## Variables of other systems\n\nA variable whose name is familiar and whose value is empty counts as not set. `DATABASE_URL` is used only where\n\
                 `data_dir` is set as well; SQLAlchemy's `postgresql+asyncpg://` and the like are read as `postgres://`.\n\
                 `FLUJO_EPHEMERAL_STATE`, `FLUJO_STATE_MODE=memory` and `FLUJO_STATE_URI=memory://` set `flow_durable: false`;\n\
                 `LOG_FORMAT` of `json` or `text` sets `log_format`. Variables that Kubernetes sets for a service named `caudal` or\n\
                 `caudal-…` (`CAUDAL_PORT=tcp://…`, `CAUDAL_SERVICE_HOST`) are ignored, also where one has a setting's name.\n\n\
                 These variables of the systems that Caudal replaces have no effect. One that is set is mentioned in the log at\n\
                 start and by `caudal config`; one marked as refused keeps the server from starting:\n\n\
                 | variable | elsewhere it | here |\n|---|---|---|\n";
        for legacy in crate::settings::legacy::LEGACY {
            let when = match legacy.when {
                crate::settings::legacy::When::Refused => " (`true` is refused)",
                crate::settings::legacy::When::Off => " (`false` is mentioned)",
                _ => "",
            };
            text += &format!("| `{}`{when} | {} | {} |\n", legacy.name, legacy.effect, legacy.here);
        }
        caudal_testkit::check_document("settings.md", &text);
    }
}
