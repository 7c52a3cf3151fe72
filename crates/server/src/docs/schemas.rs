//! Schemas of requests and answers whose Rust types live in crates that know no HTTP, or that handlers write as plain
//! JSON. `crates/caudal/tests/openapi.rs` holds them against the answers of a real server.
#![expect(dead_code, reason = "these types describe JSON that is read and written elsewhere")]

mod admin;
mod consultations;
mod pictures;
mod pipelines;
mod proofs;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

pub(crate) use self::{admin::*, consultations::*, pictures::*, pipelines::*, proofs::*};

/// The bytes of a file.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
pub(crate) struct Binary(Vec<u8>);

/// A JSON object whose members are not fixed.
#[derive(ToSchema)]
pub(crate) struct Members(std::collections::BTreeMap<String, Value>);

/// How urgent a request is: what is `high` is served first.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase", default = "normal")]
pub(crate) enum PriorityName {
    High,
    Normal,
    Low,
}

/// How masks are written: a PNG in Base64, or COCO's run lengths.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase", default = "png")]
pub(crate) enum MaskFormat {
    Png,
    Rle,
}

/// The order of a list of consultations.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case", default = "recent")]
pub(crate) enum ConsultationOrder {
    Recent,
    Oldest,
    EventsDesc,
    EventsAsc,
}

/// The format of a profile.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub(crate) enum ProfileFormat {
    Svg,
    Pprof,
    Collapsed,
    Speedscope,
}

/// The format of recorded requests: Chrome's tracing, or a JSON object a line to replay.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub(crate) enum TraceFormat {
    Chrome,
    Arrivals,
}

/// The order of recorded requests.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase", default = "latest")]
pub(crate) enum RequestOrder {
    Latest,
    Slowest,
}

/// The order of sections.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase", default = "total")]
pub(crate) enum SectionOrder {
    Total,
    #[schema(rename = "self")]
    Own,
    Mean,
    Max,
    P95,
    P99,
    Count,
    Allocated,
    Name,
}

/// The format of a table.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub(crate) enum TableFormat {
    Json,
    Csv,
    Txt,
}

/// The format of an explanation.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase", default = "json")]
pub(crate) enum ExplainFormat {
    Json,
    Txt,
}

/// A window of key figures.
#[derive(ToSchema)]
pub(crate) enum KpiWindow {
    #[schema(rename = "1m")]
    OneMinute,
    #[schema(rename = "5m")]
    FiveMinutes,
    #[schema(rename = "15m")]
    FifteenMinutes,
    #[schema(rename = "1h")]
    OneHour,
    #[schema(rename = "24h")]
    OneDay,
}

/// The type of a tensor's elements, by KServe's names.
#[derive(ToSchema)]
#[schema(rename_all = "UPPERCASE")]
pub(crate) enum Datatype {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
    Bytes,
}

/// An element of a tensor, or a row of elements where they are nested.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Element {
    Number(f64),
    Flag(bool),
    Text(String),
    Row(Vec<Value>),
}

/// Whether a model of the repository serves.
#[derive(ToSchema)]
#[schema(rename_all = "UPPERCASE")]
pub(crate) enum ModelRepositoryState {
    Ready,
    Unavailable,
}

/// A vector: numbers, or little-endian float32 in Base64 where `encoding_format` is `base64`.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum EmbeddingVector {
    Numbers(Vec<f32>),
    Base64(String),
}

/// The state of the server.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub(crate) enum HealthStatus {
    Healthy,
    Loading,
    Degraded,
    Draining,
}

/// That the process lives.
#[derive(ToSchema)]
pub(crate) struct Liveness {
    live: bool,
}
