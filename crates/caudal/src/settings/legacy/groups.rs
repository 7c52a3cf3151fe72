//! Variables of other systems that are told by the beginnings of their names.

use std::collections::BTreeMap;

use super::{IN_FILE, LEGACY, Notice, is_off};
use crate::settings::{TABLE, injected};

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

/// One notice for each group of variables that are not explained one by one.
pub(super) fn notices(environment: &BTreeMap<String, String>, read: &[&str]) -> Vec<Notice> {
    let alias = |name: &str| TABLE.iter().any(|key| key.aliases.contains(&name));
    let legacy = |name: &str| LEGACY.iter().any(|legacy| [name, name.trim_end_matches(IN_FILE)].contains(&legacy.name));
    let known = |name: &str| alias(name) || legacy(name) || read.contains(&name) || READ.contains(&name);
    let counts = |(name, value): &(&String, &String)| {
        !is_off(value) && !known(name) && !injected::is_of_service(name, value, environment)
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
