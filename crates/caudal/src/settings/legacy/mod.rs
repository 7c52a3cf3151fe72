//! Variables of the systems that this one replaces and that are no setting here. They are accepted, so that an old
//! environment still starts, and each is explained; one that asks for protection which is not there is refused.

use std::collections::BTreeMap;

use super::SettingsError;

/// When a variable matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// Always, and nothing is missing without it.
    Harmless,
    /// Where it is set to something other than `false`.
    Set,
    /// Where it is `false`.
    Off,
    /// Unless it is off: the server does not start.
    Refused,
}

/// A variable without effect.
#[derive(Debug)]
pub(crate) struct Legacy {
    pub(crate) name: &'static str,
    /// Its effect in the system that it comes from; completes "there it …".
    pub(crate) effect: &'static str,
    /// The way to the same here, or why none is needed.
    pub(crate) here: &'static str,
    pub(crate) when: When,
}

/// Something to be said about a variable when the server starts, and by `caudal config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    /// The variable, the first of several.
    pub(crate) name: String,
    /// Whether something that was asked for does not happen.
    pub(crate) warns: bool,
    pub(crate) text: String,
}

const fn entry(name: &'static str, effect: &'static str, here: &'static str, when: When) -> Legacy {
    Legacy { name, effect, here, when }
}

const fn harmless(name: &'static str, effect: &'static str, here: &'static str) -> Legacy {
    entry(name, effect, here, When::Harmless)
}

const fn set(name: &'static str, effect: &'static str, here: &'static str) -> Legacy {
    entry(name, effect, here, When::Set)
}

const NO_LOOP: &str = "there is one event loop, and it is compiled in";
const NO_WORKERS: &str = "one process serves on all cores; threads follow the CPU quota";
const NO_RECYCLING: &str = "the process need not be recycled: its memory does not grow with requests";
const NO_REDIS: &str =
    "no Redis is needed: caches are in memory, and flow_cache: sqlite keeps results of pipeline steps";
const NO_TOKENS: &str = "admin requests take admin_key, and models are open to every client that reaches the port: keep host at \
                         127.0.0.1, or put an authenticating proxy in front";
const RUNS: &str = "runs are stored in data_dir, or in database_url";
const NO_QUEUE: &str =
    "there is no task queue beside the server: requests wait in each model's own queue (max_queue_size)";
const NO_RATE: &str =
    "requests are limited by concurrency_limit and max_queue_size, not by rate: limit the rate at a proxy";

/// All that are explained one by one.
pub(crate) const LEGACY: &[Legacy] = &[
    // HTTP server.
    harmless("WORKERS", "sets the number of processes", NO_WORKERS),
    harmless("API_WORKERS", "sets the number of processes", NO_WORKERS),
    harmless("LIMIT_MAX_REQUESTS", "recycles a process after so many requests", NO_RECYCLING),
    harmless("LIMIT_MAX_REQUESTS_JITTER", "spreads the recycling of processes", NO_RECYCLING),
    harmless("UVICORN_LOOP", "chooses the event loop", NO_LOOP),
    harmless("UVICORN_HTTP", "chooses the HTTP parser", "there is one HTTP parser, and it is compiled in"),
    set("API_HOST", "is the address to listen on", "set CAUDAL_HOST"),
    set("API_PORT", "is the port to listen on", "set CAUDAL_HTTP_PORT"),
    set("DECODER_PORT", "is the decoder's port", "set CAUDAL_HTTP_PORT"),
    set("COORDINATOR_PORT", "is the coordinator's port", "set CAUDAL_HTTP_PORT"),
    set("API_TIMEOUT", "is the time limit of a request, in seconds", "set CAUDAL_REQUEST_TIMEOUT_MS, in milliseconds"),
    entry(
        "API_DOCS_ENABLED",
        "turns the pages /docs and /openapi.json off",
        "they are always served: block them at a proxy",
        When::Off,
    ),
    set("UTS_MAX_FILE_SIZE", "is the largest upload, in bytes", "set CAUDAL_MAX_FILE_SIZE_MB, in MiB"),
    set("METRICS_PATH", "is the path of the metrics page", "the page is /metrics"),
    set(
        "PROMETHEUS_PORT",
        "is Prometheus' own port",
        "/metrics is served on http_port, and on admin_port where that is set",
    ),
    set(
        "HOT_RELOAD",
        "reloads the server when its code changes",
        "watch: true reads settings again when their file changes",
    ),
    // Protection.
    entry(
        "ENFORCE_HTTPS",
        "redirects HTTP to HTTPS",
        "TLS is not built in: put a proxy that terminates TLS in front of 127.0.0.1 and set tls_terminated_by_proxy: true",
        When::Refused,
    ),
    entry(
        "FLUJO_GOVERNANCE_PII_SCRUB",
        "removes personal data from what language models are sent",
        "nothing is removed: call language models without personal data, and unset it",
        When::Refused,
    ),
    set(
        "FLUJO_GOVERNANCE_MODE",
        "allows or denies tools by a policy",
        "flow.yaml says which hosts (allow) and files pipelines may use",
    ),
    set(
        "FLUJO_GOVERNANCE_TOOL_ALLOWLIST",
        "lists the tools that agents may use",
        "an agent may use the tools that its pipeline names, and no others",
    ),
    set("FLUJO_SANDBOX_MODE", "chooses where generated code runs", "no step runs generated code"),
    set(
        "FLUJO_BLUEPRINT_ALLOWED_IMPORTS",
        "lists the Python modules that pipelines may import",
        "pipelines import no Python; they use the actions that `caudal flow leaves` lists",
    ),
    set(
        "TRUSTED_HASHES_FILE",
        "lists hashes of the models that may be loaded",
        "every model of model_repository is loaded: keep the folder writable by its owner alone",
    ),
    set(
        "TRUSTED_MODELS_DIR",
        "is the only folder that models are loaded from",
        "models are loaded from model_repository alone",
    ),
    set(
        "ENCRYPTION_KEK_B64",
        "is the key that stored data are encrypted with",
        "data_dir is not encrypted: put it on an encrypted disk",
    ),
    set(
        "TRUSTED_PROXIES",
        "lists the proxies whose X-Forwarded-For is believed",
        "forwarded addresses are not used for access",
    ),
    set(
        "ALLOWED_HOSTS",
        "lists the Host headers that are answered",
        "CAUDAL_ALLOWED_HOSTS does, as names separated by commas",
    ),
    set("SECRET_KEY", "signs tokens of users", NO_TOKENS),
    set("JWT_SECRET", "signs tokens of users", NO_TOKENS),
    set("COORDINATOR_JWT_SECRET", "signs tokens of administrators", NO_TOKENS),
    set("DECODER_JWT_SECRET", "signs tokens of administrators", NO_TOKENS),
    set("COORDINATOR_TOKEN", "is the administrator's token", "set CAUDAL_ADMIN_KEY"),
    set("COORDINATOR_SECRET", "signs cookies of the dashboard", NO_TOKENS),
    set("INTERNAL_SERVICE_TOKEN", "is the token between services", NO_TOKENS),
    set("RATE_LIMIT_ENABLED", "limits requests per minute", NO_RATE),
    set("RATE_LIMIT_PER_MINUTE", "limits requests per minute", NO_RATE),
    set("RATE_LIMIT_PER_HOUR", "limits requests per hour", NO_RATE),
    set("API_RATE_LIMIT", "limits requests per minute", NO_RATE),
    // Databases, caches, queues.
    set("REDIS_URL", "is the Redis server for caches and for the pool of decoders", NO_REDIS),
    set("REDIS_HOST", "is the Redis server for caches", NO_REDIS),
    set("REDIS_MAXMEMORY", "bounds Redis' memory", "flow_cache_mb bounds the cache of pipeline steps"),
    set(
        "POSTGRES_HOST",
        "is the database server",
        "set CAUDAL_DATABASE_URL, and CAUDAL_DATA_DIR for archives and keys",
    ),
    set("CELERY_BROKER_URL", "is the broker of background tasks", NO_QUEUE),
    set("CELERY_CONCURRENCY", "sets the number of background tasks", NO_QUEUE),
    set(
        "FI_CORPUS_PATH",
        "is the HDF5 file of consultations",
        "set CAUDAL_DATA_DIR, and bring the file in by `caudal record import FILE`",
    ),
    set("EXPORT_DIR", "is the folder of exports", "exports lie below data_dir"),
    // Models.
    harmless(
        "INFERENCE_PREFETCH",
        "decodes pictures ahead",
        "the next pictures are decoded while a batch runs, as many as the queue holds",
    ),
    set("INFERENCE_MAX_WORKERS", "bounds the number of model workers", "set CAUDAL_INSTANCES"),
    harmless("USE_ONNX", "chooses ONNX models", "models are ONNX files"),
    entry(
        "USE_TENSORRT",
        "runs models by TensorRT",
        "unset it, and set providers: tensorrt if your ONNX Runtime has TensorRT",
        When::Refused,
    ),
    entry(
        "USE_FP16",
        "runs models in 16 bits",
        "a model runs in the precision that its file has: export it in FP16, and unset it",
        When::Refused,
    ),
    set("ENABLE_PYTORCH", "serves PyTorch models", "models are ONNX files: export them"),
    set("TRITON_URL", "is the Triton server that runs the models", "models run in this process, from model_repository"),
    set("TRITON_MODEL_REPO", "is the folder of models", "set CAUDAL_MODEL_REPOSITORY"),
    set("MODELS_PATH", "is the folder of models", "set CAUDAL_MODEL_REPOSITORY: <name>/1/model.onnx"),
    set("MODELS_DIR", "is the folder of models", "set CAUDAL_MODEL_REPOSITORY: <name>/1/model.onnx"),
    set(
        "OPENSEARCH_URL",
        "is the index that images are searched in",
        "there is no search: vectors are answered, to be stored elsewhere",
    ),
    // Tracing and metrics.
    set("JAEGER_HOST", "is the collector of traces", "set CAUDAL_OTEL_ENDPOINT: Jaeger takes OTLP on port 4318"),
    set("LOG_FORMAT", "is the form of log lines", "set CAUDAL_LOG_FORMAT: text or json"),
    harmless(
        "OTEL_PROPAGATORS",
        "chooses how a trace is passed on",
        "callers say which trace a request belongs to by the W3C's traceparent",
    ),
    harmless("OTEL_METRIC_EXPORT_TIMEOUT", "bounds an export", "otel_timeout_ms bounds each export"),
    harmless("OTEL_LOGS_EXPORTER", "chooses where log lines are sent", "log lines go to standard error"),
    harmless("OTEL_BSP_EXPORT_TIMEOUT", "bounds an export", "otel_timeout_ms bounds each export"),
    // Pipelines.
    harmless("FLUJO_DISABLE_UVLOOP", "chooses the event loop", NO_LOOP),
    harmless(
        "FLUJO_PERF_DEBUG",
        "prints timings",
        "every run is timed step by step: caudal flow run --summary shows it",
    ),
    set("FLUJO_STATE_URI", "is the database of runs", RUNS),
    set("FLUJO_STATE_MODE", "chooses whether runs are stored", "set CAUDAL_FLOW_DURABLE: true or false"),
    set("FLUJO_DB_PATH", "is the database of runs", RUNS),
    set(
        "FLUJO_CONFIG_PATH",
        "is the file of settings",
        "set CAUDAL_CONFIG; budgets, prices and providers stand in flow.yaml beside the pipelines",
    ),
    set(
        "FLUJO_TEMPLATE_UNDEFINED",
        "decides about names that a template does not find",
        "a pipeline's file says it: templates: {undefined: strict, warn or ignore}",
    ),
    set("FLUJO_MEMORY_INDEXING_ENABLED", "indexes what runs said for later runs", "there is no such index"),
    set(
        "FLUJO_SHADOW_EVAL_ENABLED",
        "judges a part of all answers by another model",
        "there is no such evaluation: make it a step",
    ),
    set(
        "COORDINATOR_MIRROR_INTERVAL",
        "is how often the pool of decoders is written to its file",
        "there is no pool of decoders",
    ),
];

/// Beginnings of names that nothing here corresponds to, with what they are about.
const GROUPS: &[(&str, &[&str])] = &[
    ("settings of Flujo's own runtime", &["FLUJO_"]),
    (
        "services, keys, models and training of Universal Translation",
        &[
            "UTS_",
            "DECODER_",
            "COORDINATOR_",
            "ENCODER_",
            "JWT_",
            "JWKS_",
            "SERVICE_DISCOVERY_",
            "SERVICE_TTL",
            "MDNS_",
            "ETCD_",
            "USE_ETCD",
            "CIRCUIT_BREAKER_",
            "PREFETCH_VOCAB_",
            "PREFETCH_ADAPTERS",
            "PREFETCH_MODELS",
            "VOCAB_",
            "VOCABS_",
            "ADAPTER_DIR",
            "ADAPTERS_DIR",
            "POOL_CONFIG_PATH",
            "MODEL_VERSION",
            "MAX_BATCH_TOKENS",
            "TOKEN_EXPIRY",
            "ENABLE_SYSTEM_METRICS",
            "ENABLE_GPU_METRICS",
            "ENABLE_VOCABULARY_METRICS",
            "ENABLE_FALLBACK",
            "HF_HUB_",
        ],
    ),
    ("Redis", &["REDIS_"]),
    (
        "task queue, object storage, model registry, cameras and accounts of Nexus",
        &[
            "CELERY_",
            "PREFETCH_MULTIPLIER",
            "MAX_TASKS_PER_CHILD",
            "MINIO_",
            "MLFLOW_",
            "JAEGER_",
            "CAMERA_",
            "MAX_CAMERAS",
            "RECORDINGS_",
            "ACCESS_TOKEN_EXPIRE_",
            "REFRESH_TOKEN_EXPIRE_",
            "PASSWORD_MIN_LENGTH",
            "MAX_LOGIN_ATTEMPTS",
            "LOCKOUT_DURATION_",
            "AUTO_DOWNLOAD_MODELS",
            "MODEL_WARMUP_",
            "MODELS_CACHE_PATH",
            "ALLOWED_UPLOAD_EXTENSIONS",
        ],
    ),
    ("search of the Triton-API", &["OPENSEARCH_"]),
    (
        "services beside the record of Free Intelligence",
        &["AURITY_", "WHISPER_", "DIARIZATION_", "LLM_", "OLLAMA_", "FI_"],
    ),
];

/// Names with these beginnings that are read after all.
const READ: [&str; 2] = ["FLUJO_INPUT", "FLUJO_EPHEMERAL_STATE"];

/// Whether a switch is off, or a value empty.
pub(super) fn is_off(value: &str) -> bool {
    matches!(value.trim().to_lowercase().as_str(), "" | "false" | "0" | "no" | "off" | "none" | "null")
}

/// Whether a switch is on.
pub(super) fn is_on(value: &str) -> bool {
    matches!(value.trim().to_lowercase().as_str(), "true" | "1" | "yes" | "on")
}

/// The settings that some variables stand for by their value, not by their name: `(key, value, variable)`.
pub(super) fn translate(environment: &BTreeMap<String, String>) -> Vec<(&'static str, &'static str, &'static str)> {
    let value = |name: &str| environment.get(name).map_or("", String::as_str).trim().to_lowercase();
    let mut found = Vec::new();
    if matches!(&*value("FLUJO_STATE_URI"), "memory" | "memory://" | "mem://" | "inmemory://") {
        found.push(("flow_durable", "false", "FLUJO_STATE_URI"));
    }
    if matches!(&*value("FLUJO_STATE_MODE"), "memory" | "ephemeral") {
        found.push(("flow_durable", "false", "FLUJO_STATE_MODE"));
    }
    if is_on(&value("FLUJO_EPHEMERAL_STATE")) {
        found.push(("flow_durable", "false", "FLUJO_EPHEMERAL_STATE"));
    }
    match &*value("LOG_FORMAT") {
        "json" => found.push(("log_format", "json", "LOG_FORMAT")),
        "text" => found.push(("log_format", "text", "LOG_FORMAT")),
        _ => {}
    }
    found
}

/// What is to be said of the variables of other systems in `environment`; `read` are those that were taken for settings.
pub(super) fn notices(
    environment: &BTreeMap<String, String>,
    read: &[&str],
    behind_proxy: bool,
) -> Result<Vec<Notice>, SettingsError> {
    let mut notices = Vec::new();
    for legacy in LEGACY {
        let Some(value) = environment.get(legacy.name).filter(|value| !value.trim().is_empty()) else { continue };
        if read.contains(&legacy.name) || behind_proxy && legacy.name == "ENFORCE_HTTPS" {
            continue;
        }
        let matters = match legacy.when {
            When::Harmless => true,
            When::Set => !is_off(value),
            When::Off => is_off(value),
            // What is not plainly off is meant to be on.
            When::Refused if !is_off(value) => {
                return Err(SettingsError::Refused { name: legacy.name, effect: legacy.effect, here: legacy.here });
            }
            When::Refused => false,
        };
        if matters {
            let (name, warns) = (legacy.name.to_owned(), legacy.when != When::Harmless);
            let text = format!("${name} has no effect: elsewhere it {}; here {}", legacy.effect, legacy.here);
            notices.push(Notice { name, warns, text });
        }
    }
    notices.extend(groups(environment, read));
    Ok(notices)
}

/// One notice for each group of variables that are not explained one by one.
fn groups(environment: &BTreeMap<String, String>, read: &[&str]) -> Vec<Notice> {
    let alias = |name: &str| super::TABLE.iter().any(|key| key.aliases.contains(&name));
    let explained = |name: &str| alias(name) || LEGACY.iter().any(|legacy| legacy.name == name);
    let counts = |(name, value): &(&String, &String)| {
        !is_off(value) && !explained(name) && !read.contains(&name.as_str()) && !READ.contains(&name.as_str())
    };
    let of_group = |(about, beginnings): &(&str, &[&str])| {
        let begins = |name: &str| beginnings.iter().any(|beginning| name.starts_with(beginning));
        let names: Vec<String> = environment
            .iter()
            .filter(counts)
            .filter(|(name, _)| begins(name))
            .map(|(name, _)| format!("${name}"))
            .collect();
        let first = names.first()?.trim_start_matches('$').to_owned();
        let (has, they) = if names.len() == 1 { ("has", "it is") } else { ("have", "they are") };
        let text =
            format!("{} {has} no effect: {they} about {about}, which nothing here corresponds to", names.join(", "));
        Some(Notice { name: first, warns: false, text })
    };
    GROUPS.iter().filter_map(of_group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(variables: &[(&str, &str)]) -> Vec<Notice> {
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        notices(&environment, &[], false).unwrap()
    }

    #[test]
    fn empty_and_false_values_are_not_mentioned() {
        for value in ["", " ", "false", "False", "0", "no", "none"] {
            let names =
                ["REDIS_URL", "ENFORCE_HTTPS", "USE_FP16", "FLUJO_STATE_MODE", "RATE_LIMIT_ENABLED", "UTS_ROLE"];
            let variables: Vec<(&str, &str)> = names.iter().map(|name| (*name, value)).collect();
            assert_eq!(said(&variables), [], "{value:?}");
        }
    }

    #[test]
    fn notice_names_the_effect_and_the_setting_and_no_value() {
        let notices = said(&[("REDIS_URL", "redis://:pa55@cache/0"), ("API_DOCS_ENABLED", "false")]);
        assert!(notices.iter().all(|notice| notice.warns && !notice.text.contains("pa55")), "{notices:?}");
        assert!(notices[0].text.contains("turns the pages /docs"), "{notices:?}");
        assert!(notices[1].text.contains("$REDIS_URL has no effect: elsewhere it is the Redis server"), "{notices:?}");
    }

    #[test]
    fn unexplained_variables_of_a_system_share_a_line() {
        let notices = said(&[("UTS_ROLE", "decoder"), ("ETCD_HOST", "etcd"), ("FLUJO_TRACE_EXTRA", "1")]);
        let texts: Vec<&str> = notices.iter().map(|notice| notice.text.as_str()).collect();
        assert!(texts[0].starts_with("$FLUJO_TRACE_EXTRA has no effect: it is about settings of Flujo"), "{texts:?}");
        assert!(texts[1].starts_with("$ETCD_HOST, $UTS_ROLE have no effect: they are about services"), "{texts:?}");
    }

    #[test]
    fn in_memory_state_of_flujo_makes_runs_ephemeral() {
        for (name, value) in
            [("FLUJO_STATE_URI", "memory://"), ("FLUJO_STATE_MODE", "Ephemeral"), ("FLUJO_EPHEMERAL_STATE", "1")]
        {
            let environment = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            assert_eq!(translate(&environment), [("flow_durable", "false", name)]);
        }
        let environment = BTreeMap::from([("FLUJO_STATE_URI".to_owned(), "sqlite:///runs.db".to_owned())]);
        assert_eq!(translate(&environment), []);
    }

    #[test]
    fn every_variable_is_explained_once() {
        let mut names: Vec<&str> = LEGACY.iter().map(|legacy| legacy.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), LEGACY.len());
        let aliases = || super::super::TABLE.iter().flat_map(|key| key.aliases);
        assert!(aliases().all(|alias| !names.contains(alias)), "a variable that is read needs no explanation");
    }
}
