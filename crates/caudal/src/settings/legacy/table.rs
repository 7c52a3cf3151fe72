//! Variables of other systems that are explained one by one.

use super::{Legacy, When};

const fn entry(name: &'static str, effect: &'static str, here: &'static str, when: When) -> Legacy {
    Legacy { name, effect, here, when }
}

const fn harmless(name: &'static str, effect: &'static str, here: &'static str) -> Legacy {
    entry(name, effect, here, When::Harmless)
}

/// Protection that is not there.
const fn refused(name: &'static str, effect: &'static str, here: &'static str) -> Legacy {
    entry(name, effect, here, When::Refused)
}

/// Protection that is not there, and that a proxy can give a server which only this machine reaches.
const fn left_to_proxy(name: &'static str, effect: &'static str, here: &'static str) -> Legacy {
    entry(name, effect, here, When::RefusedUnlessLoopback)
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
                         127.0.0.1 behind an authenticating proxy, or unset it";
const NO_TLS: &str = "TLS is not built in: put a proxy that terminates TLS in front of 127.0.0.1 and set \
                      tls_terminated_by_proxy: true";
const NO_SCRUBBING: &str = "nothing is removed: call language models without personal data, and unset it";
const RUNS: &str = "runs are stored in data_dir, or in database_url";
const NO_QUEUE: &str =
    "there is no task queue beside the server: requests wait in each model's own queue (max_queue_size)";
const NO_RATE: &str = "requests are limited by concurrency_limit and max_queue_size, not by rate: keep host at 127.0.0.1 behind a proxy that \
     limits the rate, or unset it";

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
    refused("ENFORCE_HTTPS", "redirects HTTP to HTTPS", NO_TLS),
    refused("UVICORN_SSL_CERTFILE", "is the certificate of HTTPS", NO_TLS),
    refused("UVICORN_SSL_KEYFILE", "is the private key of HTTPS", NO_TLS),
    refused("FLUJO_GOVERNANCE_PII_SCRUB", "removes personal data from what language models are sent", NO_SCRUBBING),
    refused("FLUJO_GOVERNANCE_PII_STRONG", "removes personal data from what language models are sent", NO_SCRUBBING),
    refused(
        "FLUJO_GOVERNANCE_MODE",
        "denies agents by a policy",
        "there is no such policy: remove the pipelines that may not run, and unset it",
    ),
    refused(
        "FLUJO_GOVERNANCE_POLICY_MODULE",
        "is the Python module whose policy allows or denies agents",
        "there is no such policy: remove the pipelines that may not run, and unset it",
    ),
    refused(
        "FLUJO_GOVERNANCE_TOOL_ALLOWLIST",
        "lists the tools that agents may use",
        "an agent may use the tools that its pipeline names, and no others: check the pipelines, and unset it",
    ),
    refused(
        "FLUJO_SANDBOX_MODE",
        "chooses the sandbox in which generated code runs",
        "no step runs generated code, in a sandbox or outside: unset it",
    ),
    set(
        "FLUJO_BLUEPRINT_ALLOWED_IMPORTS",
        "lists the Python modules that pipelines may import",
        "pipelines import no Python; they use the actions that `caudal flow leaves` lists",
    ),
    refused(
        "TRUSTED_HASHES_FILE",
        "lists hashes of the models that may be loaded",
        "every model of model_repository is loaded: keep the folder writable by its owner alone, and unset it",
    ),
    refused(
        "TRUSTED_MODELS_DIR",
        "is the only folder that models are loaded from",
        "models are loaded from model_repository alone: set it to a folder within, or unset it",
    ),
    refused(
        "ENCRYPTION_KEK_B64",
        "is the key that stored data are encrypted with",
        "data_dir is not encrypted: put it on an encrypted disk, and unset it",
    ),
    set(
        "TRUSTED_PROXIES",
        "lists the proxies whose X-Forwarded-For is believed",
        "forwarded addresses are not used for access",
    ),
    left_to_proxy("SECRET_KEY", "signs tokens of users", NO_TOKENS),
    left_to_proxy("JWT_SECRET", "signs tokens of users", NO_TOKENS),
    left_to_proxy("JWT_PUBLIC_KEY", "checks tokens of users", NO_TOKENS),
    left_to_proxy("JWT_PUBLIC_KEY_PATH", "checks tokens of users", NO_TOKENS),
    left_to_proxy("JWKS_KEYS_JSON", "checks tokens of users", NO_TOKENS),
    left_to_proxy("AUTH0_DOMAIN", "is the service that issues tokens of users", NO_TOKENS),
    left_to_proxy("COORDINATOR_JWT_SECRET", "signs tokens of administrators", NO_TOKENS),
    left_to_proxy("DECODER_JWT_SECRET", "signs tokens of administrators", NO_TOKENS),
    left_to_proxy("INTERNAL_SERVICE_TOKEN", "is the token between services", NO_TOKENS),
    set("COORDINATOR_TOKEN", "is the administrator's token", "set CAUDAL_ADMIN_KEY"),
    set("COORDINATOR_SECRET", "signs cookies of the dashboard", "there is no dashboard"),
    left_to_proxy("RATE_LIMIT_ENABLED", "limits requests per minute", NO_RATE),
    left_to_proxy("RATE_LIMIT_PER_MINUTE", "limits requests per minute", NO_RATE),
    left_to_proxy("RATE_LIMIT_PER_HOUR", "limits requests per hour", NO_RATE),
    left_to_proxy("API_RATE_LIMIT", "limits requests per minute", NO_RATE),
    left_to_proxy("UTS_API_RATE_LIMIT", "limits requests per minute", NO_RATE),
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
